"""A real browser without a window, told what to do over its debugging protocol."""

from __future__ import annotations

import asyncio
import itertools
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientWebSocketResponse

from tests.fix_servers import patience

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0")


class Browser:
    """One tab."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        # The pages that stood so far, by the browser's own ids.
        self._stood: set[str] = set()

    async def begin(self) -> None:
        """Let the browser tell of its pages, that of its start included."""
        await self._send("Page.enable")
        await self._send("Page.setLifecycleEventsEnabled", enabled=True)

    async def open(self, url: str) -> None:
        """Go to ``url`` as somebody who typed it, until the page stands."""
        page = (await self._send("Page.navigate", url=url))["loaderId"]
        while page not in self._stood:
            await self._listen()

    async def click(self, selector: str, *, pages: int = 1) -> None:
        """Press the button or follow the link, until the next page stands, and those it leads on to by itself."""
        before = len(self._stood)
        await self.value(f"document.querySelector({selector!r}).click()")
        while len(self._stood) < before + pages:
            await self._listen()

    async def write(self, selector: str, text: str) -> None:
        """Type ``text`` into a field."""
        await self.value(f"document.querySelector({selector!r}).value = {text!r}")

    async def value(self, expression: str) -> Any:
        """What an expression is on this page."""
        answer = await self._send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, (expression, answer)
        return answer["result"].get("value")

    async def _send(self, command: str, **given: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": command, "params": given})
        while True:
            message = await self._listen()
            if message.get("id") == number:
                return message["result"]

    async def _listen(self) -> dict[str, Any]:
        message = await self._socket.receive_json()
        if message.get("method") == "Page.lifecycleEvent" and message["params"]["name"] == "load":
            self._stood.add(message["params"]["loaderId"])
        return message


@asynccontextmanager
async def browsing(folder: Path) -> AsyncIterator[Browser]:
    """A browser with nothing in its memory, that keeps what it has in ``folder``."""
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        *(CHROMIUM, *_ARGUMENTS, f"--user-data-dir={folder}", "about:blank"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        port = await _port(process)
        async with (
            ClientSession(f"http://127.0.0.1:{port}") as session,
            session.ws_connect(await _tab(session), max_msg_size=0) as socket,
        ):
            browser = Browser(socket)
            await browser.begin()
            yield browser
    finally:
        process.terminate()
        await process.communicate()


async def _tab(session: ClientSession) -> str:
    """Where the one tab is spoken to; the browser listens a moment before it has one."""
    async with patience():
        while True:
            async with session.get("/json/list") as answer:
                tabs = [one for one in await answer.json() if one["type"] == "page"]
            if tabs:
                return tabs[0]["webSocketDebuggerUrl"]
            await asyncio.sleep(0.02)


async def _port(process: asyncio.subprocess.Process) -> int:
    assert process.stderr is not None
    async for line in process.stderr:
        if found := re.search(rb"DevTools listening on ws://127\.0\.0\.1:(\d+)/", line):
            return int(found[1])
    raise AssertionError("the browser ended at once")
