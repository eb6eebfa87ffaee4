"""A way to Postgres that a test can cut, stall and deafen, also at one moment of the conversation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

import pytest

CHUNK = 65536


class PostgresProxy:
    """Listens on a port of this machine and passes everything on to the server of ``dsn``, a unix socket.

    ``mode`` says how: ``open``; ``cut``: connections are broken and new ones too; ``stalled``: nothing passes in
    either direction; ``deaf``: the server hears, and its answers get lost; ``clinging``: the client is not told that a
    connection has ended.
    """

    def __init__(self, dsn: str) -> None:
        self.target = dsn
        self.mode = "open"
        self.accepted = 0
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._triggers: list[tuple[bytes, bool, Callable[[], None]]] = []

    @property
    def port(self) -> int:
        assert self._server is not None
        return self._server.sockets[0].getsockname()[1]

    @property
    def dsn(self) -> str:
        """The same database by way of the proxy."""
        parts = urlsplit(self.target)
        return f"postgresql://servmon:secret@127.0.0.1:{self.port}{parts.path}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        assert self._server is not None
        self.set("cut")
        self._server.close()
        await self._server.wait_closed()

    def set(self, mode: str) -> None:
        """Behave so from now on."""
        self.mode = mode
        self._changed.set()
        self._changed = asyncio.Event()
        if mode == "cut":
            for writer in self._open:
                writer.transport.abort()

    def when(self, said: bytes, do: Callable[[], None], *, after: bool = False) -> None:
        """Do something once, as the client says ``said``: before the server hears it, or after."""
        self._triggers.append((said, after, do))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.mode == "cut":
            writer.transport.abort()
            return
        query = parse_qs(urlsplit(self.target).query)
        path = f"{query['host'][0]}/.s.PGSQL.{query.get('port', ['5432'])[0]}"
        try:
            server_reader, server_writer = await asyncio.open_unix_connection(path)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, server_writer}
        with suppress(OSError):
            async with asyncio.TaskGroup() as group:
                there = group.create_task(self._pass_on(reader, server_writer, from_client=True))
                back = group.create_task(self._pass_on(server_reader, writer, from_client=False))
                await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
                while self.mode == "clinging":
                    await self._changed.wait()
                there.cancel()
                back.cancel()
        self._open -= {writer, server_writer}
        writer.transport.abort()
        server_writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_client: bool) -> None:
        with suppress(OSError):
            while chunk := await reader.read(CHUNK):
                if from_client:
                    self._act(chunk, after=False)
                while self.mode == "stalled":
                    await self._changed.wait()
                if self.mode == "deaf" and not from_client:
                    continue
                writer.write(chunk)
                await writer.drain()
                if from_client:
                    self._act(chunk, after=True)

    def _act(self, chunk: bytes, *, after: bool) -> None:
        for trigger in [one for one in self._triggers if one[0] in chunk and one[1] is after]:
            self._triggers.remove(trigger)
            trigger[2]()


@pytest.fixture
async def pg_proxy(database: str) -> AsyncIterator[PostgresProxy]:
    """A proxy before ``database``."""
    made = PostgresProxy(database)
    await made.start()
    yield made
    await made.stop()
