"""Requests that nobody thought of, made by schemathesis from the API's own description, find no fault with it.

They run in a network namespace with nothing but loopback: among them are checks of targets nobody chose either.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from servmon.services.connection import Connection
from servmon.store.pool import open_pool
from tests.fix_api import TOKEN, services_on, serving
from tests.fix_daemon import RunningServmon

# The one that examples speak of; it is down, so there is an outage, and it is read-only, which has to be said.
ENDPOINTS = """
[[endpoints]]
id = "api-gateway"
site = "pop-north"
url = "tcp://127.0.0.1:9"
check_interval = 5
"""

PHASES = "examples,coverage,fuzzing,stateful"
# What it checks beside the requests themselves: every check it knows but those named here.
LEFT_OUT = {
    # A schema cannot say which of two fields exclude each other, or that a url's host belongs to its protocol.
    "positive_data_acceptance": "more is checked than JSON Schema can express",
}


@pytest.mark.deep
@pytest.mark.timeout(3000)
def test_thousands_of_generated_requests_find_no_fault_in_the_running_daemon(make_netns, servmon_daemon, tmp_path):
    daemon = servmon_daemon(ENDPOINTS)

    async def hunt_the_daemon() -> Found:
        await daemon.start()
        try:
            # Whoever tries many wrong tokens has to wait, which is 429 and no 401: the other hunt tries them.
            return await hunt(
                daemon.port, tmp_path, token_of(daemon), examples=25, left_out=(*LEFT_OUT, "ignored_auth")
            )
        finally:
            await daemon.stop()

    found = make_netns().run_async(hunt_the_daemon)
    assert found.cases >= 2000
    assert "Stateful" in found.said
    assert "Traceback" not in daemon.log()


@pytest.mark.timeout(120)
def test_some_generated_requests_find_no_fault(make_netns, database, tmp_path, monkeypatch):
    monkeypatch.setattr("servmon.api.auth.MOST_WRONG", 100_000)

    async def hunt_a_few() -> Found:
        async with await open_pool(database) as pool, serving(services_on(Connection(pool))) as api:
            return await hunt(api.port, tmp_path, TOKEN, examples=1, phases="examples,fuzzing")

    assert make_netns().run_async(hunt_a_few).cases > 20


class Found(NamedTuple):
    """How many requests were made, and all that schemathesis said."""

    cases: int
    said: str


def token_of(daemon: RunningServmon) -> str:
    return (daemon.data_dir / "admin.token").read_text(encoding="ascii").strip()


async def hunt(
    port: int, folder: Path, token: str, *, examples: int, phases: str = PHASES, left_out: Iterable[str] = LEFT_OUT
) -> Found:
    """Let schemathesis at the API; fails with what it found."""
    chosen = ("--max-examples", str(examples), "--phases", phases, "--exclude-checks", ",".join(left_out))
    found = await asyncio.to_thread(_ran, port, folder, token, chosen)
    (folder / "said.txt").write_text(found.stdout, encoding="utf-8")
    assert found.returncode == 0, found.stdout[-12000:]
    made = re.search(r"(\d+) generated", found.stdout)
    assert made, found.stdout[-2000:]
    return Found(int(made[1]), found.stdout)


def _ran(port: int, folder: Path, token: str, chosen: Iterable[str]) -> subprocess.CompletedProcess[str]:
    command = [
        *(str(Path(sys.executable).with_name("st")), "run", f"http://127.0.0.1:{port}/openapi.json"),
        *("--url", f"http://127.0.0.1:{port}", "-H", f"Authorization: Bearer {token}", *chosen),
        *("--seed", "1", "--checks", "all", "--exclude-path", "/events"),
        *("--suppress-health-check", "all", "--no-color", "--continue-on-failure"),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
