"""`servmon selftest`: a private instance in a temporary folder watches a local web server through an outage."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from aiohttp import web

T = TypeVar("T")
Say = Callable[[str], None]

PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.2
_CONFIGURATION = """
[servmon]
data_dir = {data_dir}
[api]
port = {port}
[alert]
notification_channels = []
[service]
retry_interval = 1
[[endpoints]]
id = "web"
name = "Local web server"
url = "http://127.0.0.1:{target_port}/health"
check_interval = 1
timeout = 1
retries = 1
expected_response_pattern = '"status":"UP"'
"""


class SelftestFailed(Exception):  # noqa: N818 - it is a finding, printed as such
    """What was expected did not come."""


async def run(say: Say) -> bool:
    """Walk an outage through its life and ``say`` each step; true if everything came as it should."""
    with tempfile.TemporaryDirectory(prefix="servmon-selftest-") as folder:
        os.chmod(folder, 0o711)  # noqa: PTH101, S103 - started by root, PostgreSQL is another account and has to get in
        try:
            await _story(Path(folder), say)
        except SelftestFailed as failure:
            say(f"FAILED: {failure}")
            return False
    say("All as it should be.")
    return True


async def _story(folder: Path, say: Say) -> None:
    port, target_port = _free_port(), _free_port()
    async with contextlib.AsyncExitStack() as ladder:
        web_server = await ladder.enter_async_context(contextlib.AsyncExitStack())
        await web_server.enter_async_context(_web_server(target_port))
        api = await ladder.enter_async_context(_daemon(folder, port, target_port))
        say(f"A private servmon answers at {api.url} with its own Postgres.")
        status = await api.until("/services/web/status", lambda found: found["status"] == "UP")
        say(f"The local web server is UP: answered in {status['response_time']:.1f} ms.")
        await web_server.aclose()
        say("The web server is stopped.")
        active = await api.until("/outages/active", lambda found: len(found["items"]) == 1)
        outage = active["items"][0]
        say(f"Outage declared: {outage['description']}")
        down = await api.until("/services/web/status", lambda found: found["state"] == "down")
        _expect(down["outage_id"] == outage["id"], "the status does not name the outage")
        async with _web_server(target_port):
            say("The web server is started again.")
            resolved = await api.until(f"/outages/{outage['id']}", lambda found: found["resolved"])
        say(f"Outage resolved by itself: from {resolved['start_time']} to {resolved['resolved_at']}.")
        history = (await api.get("/services/web/history?limit=1000"))["items"]
        first_down = min(row["timestamp"] for row in history if row["status"] == "DOWN")
        _expect(resolved["start_time"] == first_down, "the outage does not start at the first failure")
        summary = await api.get("/outages/summary")
        _expect(summary["total"] == summary["resolved"] == 1, f"the summary says {summary}")
        say(f"History holds {len(history)} checks; the outage starts at its first failure.")


def _expect(condition: object, otherwise: str) -> None:
    if not condition:
        raise SelftestFailed(otherwise)


class _Api:
    """The private instance's admin API."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.url = url
        self._session = session

    async def get(self, path: str) -> dict[str, Any]:
        async with self._session.get(self.url + path) as answer:
            found: dict[str, Any] = await answer.json()
            _expect(answer.ok, f"GET {path} answers {answer.status}: {found}")
            return found

    async def until(self, path: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        return await _until(lambda: self.get(path), holds, f"GET {path}")


async def _until(ask: Callable[[], Awaitable[T]], holds: Callable[[T], bool], what: str) -> T:
    last: T | None = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                last = found = await ask()
                if holds(found):
                    return found
                await asyncio.sleep(POLL_SECONDS)
    raise SelftestFailed(f"{what}: waited {PATIENCE_SECONDS:g} s in vain, last seen: {last}")


@asynccontextmanager
async def _daemon(folder: Path, port: int, target_port: int) -> AsyncIterator[_Api]:
    data_dir = folder / "data"
    configuration = folder / "servmon.toml"
    text = _CONFIGURATION.format(data_dir=json.dumps(str(data_dir)), port=port, target_port=target_port)
    configuration.write_text(text, encoding="utf-8")
    with (folder / "servmon.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "servmon", "run", "--config", str(configuration)), stdout=log, stderr=log
        )
    try:
        token = await _until(lambda: _token(data_dir, process), bool, "the admin token")
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
            api = _Api(session, f"http://127.0.0.1:{port}")
            await _until(lambda: _answers(session, api.url), bool, "/healthz")
            yield api
    except SelftestFailed as failure:
        log_text = (folder / "servmon.log").read_text(encoding="utf-8", errors="replace")
        raise SelftestFailed(f"{failure}\nits log:\n{log_text[-4000:]}") from None
    finally:
        await _stop(process)


async def _token(data_dir: Path, process: asyncio.subprocess.Process) -> str:
    _expect(process.returncode is None, f"the private instance ended with exit code {process.returncode}")
    try:
        return (data_dir / "admin.token").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url + "/healthz") as answer:
            return answer.ok
    except aiohttp.ClientConnectionError:
        return False


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        raise SelftestFailed("the private instance did not stop when asked to") from None


@asynccontextmanager
async def _web_server(port: int) -> AsyncIterator[None]:
    async def health(_request: web.Request) -> web.Response:
        return web.Response(text='{"status":"UP"}', content_type="application/json")

    server = web.Application()
    server.router.add_get("/health", health)
    runner = web.AppRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield
    finally:
        await runner.cleanup()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
