"""servmon among the variables of systemd, Kubernetes and other programs."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from tests.fix_daemon import SEEING
from tests.test_cli import servmon
from tests.test_settings import FOREIGN


async def test_among_foreign_variables_it_starts_with_its_defaults_and_without_a_word(servmon_daemon):
    daemon = servmon_daemon(SEEING)
    daemon.environment = FOREIGN
    await daemon.start()
    assert (await daemon.get("/readyz"))["degraded"] == []
    assert "warning" not in daemon.log()
    await daemon.stop()


async def test_what_looks_like_a_slip_is_one_warning_and_no_hindrance(servmon_daemon):
    daemon = servmon_daemon(SEEING)
    daemon.environment = {"SERVICE_CHECK_INTERVALL": "5", "SERVICE_CHECK_RETRIES": ""}
    await daemon.start()
    (warning,) = (await daemon.get("/readyz"))["degraded"]
    assert warning.startswith(
        "environment: SERVICE_CHECK_INTERVALL: is no setting and ignored; was SERVICE_CHECK_INTERVAL"
    )
    assert daemon.log().count("SERVICE_CHECK_INTERVALL") == 1
    await daemon.stop()


@pytest.mark.parametrize("command", [("run",), ("config", "check"), ("doctor",), ("db", "migrate")])
async def test_a_known_variable_with_a_wrong_value_ends_every_command_with_its_name(command, monkeypatch, tmp_path):
    monkeypatch.setenv("SERVICE_CHECK_INTERVAL", "often")
    monkeypatch.setenv("SERVMON_DATA_DIR", str(tmp_path))
    code, out, err = await servmon(*command)
    said = 'environment: SERVICE_CHECK_INTERVAL: must be a whole number, not "often"\n'
    assert (code, out, err) == (2, "", said)


async def test_the_tests_themselves_are_not_touched_by_what_this_machine_sets():
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0"),
        "tests/test_settings.py::test_nothing_given_means_the_defaults",
        "tests/test_settings.py::test_settings_built_by_hand_read_no_environment",
        env=os.environ | {"SERVICE_CHECK_INTERVAL": "often", "API_PORT": "7", "STATE_DIRECTORY": "/nowhere"},  # noqa: TID251
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
