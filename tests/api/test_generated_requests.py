"""Requests that nobody thought of, made by schemathesis from the API's own description, find no fault with it.

They run in a network namespace with nothing but loopback: among them are checks of targets nobody chose either.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from servmon.services.connection import Connection
from servmon.store.pool import open_pool
from tests.fix_api import TOKEN, services_on, serving

# What it checks beside the requests themselves: every check it knows but those named here.
LEFT_OUT = {
    # A schema cannot say which of two fields exclude each other, or that a url's host belongs to its protocol.
    "positive_data_acceptance": "more is checked than JSON Schema can express",
}


@pytest.mark.deep
def test_two_thousand_generated_requests_find_no_fault(make_netns, database, tmp_path):
    namespace = make_netns()
    cases = namespace.run_async(lambda: hunt(database, tmp_path, examples=40))
    assert cases >= 2000


@pytest.mark.timeout(120)
def test_some_generated_requests_find_no_fault(make_netns, database, tmp_path):
    namespace = make_netns()
    assert namespace.run_async(lambda: hunt(database, tmp_path, examples=1, phases="examples,fuzzing")) > 20


async def hunt(dsn: str, folder: Path, *, examples: int, phases: str = "examples,coverage,fuzzing,stateful") -> int:
    """Serve the API and let schemathesis at it; returns how many requests it made. Fails with what it found."""
    async with await open_pool(dsn) as pool, serving(services_on(Connection(pool))) as api:
        found = await _ran(api.port, folder, examples, phases)
    assert found.returncode == 0, found.stdout[-8000:]
    made = re.search(r"(\d+) generated", found.stdout)
    assert made, found.stdout[-2000:]
    return int(made[1])


async def _ran(port: int, folder: Path, examples: int, phases: str) -> subprocess.CompletedProcess[str]:
    import asyncio  # noqa: PLC0415

    command = [
        *(str(Path(sys.executable).with_name("st")), "run", f"http://127.0.0.1:{port}/openapi.json"),
        *("--url", f"http://127.0.0.1:{port}", "-H", f"Authorization: Bearer {TOKEN}"),
        *("--max-examples", str(examples), "--phases", phases, "--seed", "1"),
        *("--checks", "all", "--exclude-checks", ",".join(LEFT_OUT), "--exclude-path", "/events"),
        *("--suppress-health-check", "all", "--no-color", "--continue-on-failure"),
    ]
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, cwd=folder)
