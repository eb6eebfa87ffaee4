"""Where every fixture comes from: one file per subject."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from servmon.settings import SECTIONS

# Whoever starts the tests in the background has them, and all that they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

FROM_SYSTEMD = {"STATE_DIRECTORY", "CREDENTIALS_DIRECTORY", "LOGS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC"}
pytest_plugins = [
    "tests.fix_postgres",
    "tests.fix_proxy",
    "tests.fix_faults",
    "tests.fix_servers",
    "tests.fix_pooler",
    "tests.fix_dns",
    "tests.fix_targets",
    "tests.fix_netns",
    "tests.fix_api",
    "tests.fix_live",
    "tests.fix_cli",
    "tests.fix_daemon",
    "tests.fix_mail",
    "tests.fix_elastic",
    "tests.fix_kibana",
]

# Neither what this machine sets for a servmon of its own, nor what systemd tells one, is meant for those of the tests.
for name in [*os.environ]:  # noqa: TID251 - a test's world is made here
    if name.startswith(tuple(f"{section.upper()}_" for section in SECTIONS)) or name in FROM_SYSTEMD:
        del os.environ[name]  # noqa: TID251 - as above

# How long an example takes to make is the machine's affair. Everybody's tests try the same examples each time, so that
# they fail by a change and not by chance; the deep ones look for new ones.
BUSY = [HealthCheck.too_slow]
settings.register_profile("fast", max_examples=150, deadline=None, suppress_health_check=BUSY, derandomize=True)
settings.register_profile("deep", max_examples=20_000, deadline=None, suppress_health_check=BUSY)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))  # noqa: TID251 - chosen by the Makefile


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which PostgreSQL the tests use, instead of the embedded one."""
    parser.addoption("--postgres", type=Path, help="its programs, such as /usr/lib/postgresql/15/bin")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test printed may hold lone surrogates, which the parallel runner cannot send between its processes."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report
