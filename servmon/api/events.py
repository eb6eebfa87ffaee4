"""``/events``: what happens as it happens, as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from aiohttp import web

from servmon.api.auth import ACCESS, STAY, Stay
from servmon.api.outage_shapes import outage_shape
from servmon.api.routing import Route
from servmon.api.shapes import plain
from servmon.clock import now, rfc3339
from servmon.model import Outage, Role
from servmon.services.stream import EndedError, Happening, Listener, Stream, TooSlowError

STREAM = web.AppKey("stream", Stream)
OPEN = web.AppKey("open_streams", set[Listener])
# A line that says nothing tells the network between that somebody still listens.
HEARTBEAT_SECONDS = 15.0
RETRY_MILLISECONDS = 3000


async def follow_events(request: web.Request) -> web.StreamResponse:
    """Follow state changes, outages and planned work as they happen (server-sent events).

    With the header Last-Event-ID it goes on after that event; one named missed says that not everything since is
    remembered. It ends when the token is revoked.
    """
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    with request.app[STREAM].listen(request.headers.get("Last-Event-ID")) as listener, _kept_open(request, listener):
        await response.write(f"retry: {RETRY_MILLISECONDS}\n\n".encode())
        if not listener.complete:
            await response.write(f'event: missed\ndata: {{"at": "{rfc3339(now())}"}}\n\n'.encode())
        with suppress(ConnectionResetError, TooSlowError, EndedError):
            while request[STAY].holds():
                await response.write(await _next(listener, request[STAY]))
    return response


@contextmanager
def _kept_open(request: web.Request, listener: Listener) -> Iterator[None]:
    """Until servmon stops, or whoever listens has to go."""

    def look() -> None:
        if not request[STAY].holds():
            listener.end()
            _cut_where_unread(request)

    listeners = request.app[OPEN]
    listeners.add(listener)
    try:
        with request.app[ACCESS].book.watched(look):
            yield
    finally:
        listeners.discard(listener)


def _cut_where_unread(request: web.Request) -> None:
    """Who does not read what was said would keep the stream open until he does."""
    transport = request.transport
    if isinstance(transport, asyncio.WriteTransport) and transport.get_write_buffer_size():
        transport.abort()


async def _next(listener: Listener, stay: Stay) -> bytes:
    """What happens next, or after a while the line that says nothing; no later than the token ends by itself."""
    left = HEARTBEAT_SECONDS if stay.ends_at is None else (stay.ends_at - now()).total_seconds()
    try:
        async with asyncio.timeout(min(HEARTBEAT_SECONDS, left)):
            return _written(await listener.next())
    except TimeoutError:
        return b": nothing new\n\n"


def _written(happening: Happening) -> bytes:
    # JSON has no line ends of its own, so nothing in the data can begin another event.
    data = json.dumps(plain(_shaped(happening.data)))
    return f"id: {happening.id}\nevent: {happening.kind}\ndata: {data}\n\n".encode()


def _shaped(data: Mapping[str, Any]) -> Mapping[str, Any]:
    outage = data.get("outage")
    return outage_shape(outage) if isinstance(outage, Outage) else data


async def close_streams(app: web.Application) -> None:
    """End every open stream, so that a stop does not wait for listeners."""
    for listener in app[OPEN]:
        listener.end()


ROUTES = (Route("GET", "/events", follow_events, Role.READ, seconds=None),)
