"""``/events``: what happens as it happens, as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from aiohttp import web

from servmon.api.auth import STAYS
from servmon.api.outage_shapes import outage_shape
from servmon.api.routing import Route
from servmon.api.shapes import plain
from servmon.model import Outage, Role
from servmon.services.stream import Happening, Listener, Stream, TooSlowError

STREAM = web.AppKey("stream", Stream)
OPEN = web.AppKey("open_streams", set[asyncio.Event])
# A line that says nothing tells the network between that somebody still listens, and asks whether the token counts.
HEARTBEAT_SECONDS = 15.0
TOKEN_POLL_SECONDS = 0.5
RETRY_MILLISECONDS = 3000


async def follow_events(request: web.Request) -> web.StreamResponse:
    """Follow state changes, outages and planned work as they happen (server-sent events).

    With the header Last-Event-ID it goes on after that event; one named missed says that not everything since is
    remembered. It ends when the token is revoked.
    """
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    closing = asyncio.Event()
    request.app[OPEN].add(closing)
    try:
        with request.app[STREAM].listen(request.headers.get("Last-Event-ID")) as listener:
            await response.write(f"retry: {RETRY_MILLISECONDS}\n\n".encode())
            if not listener.complete:
                await response.write(b"event: missed\ndata: {}\n\n")
            with suppress(ConnectionResetError, TooSlowError):
                await _pass_on(request, response, listener, closing)
    finally:
        request.app[OPEN].discard(closing)
    return response


async def _pass_on(
    request: web.Request, response: web.StreamResponse, listener: Listener, closing: asyncio.Event
) -> None:
    silent = 0.0
    while not closing.is_set() and request[STAYS]():
        try:
            async with asyncio.timeout(TOKEN_POLL_SECONDS):
                happening = await listener.next()
        except TimeoutError:
            silent += TOKEN_POLL_SECONDS
            if silent >= HEARTBEAT_SECONDS:
                await response.write(b": nothing new\n\n")
                silent = 0.0
            continue
        silent = 0.0
        await response.write(_written(happening))


def _written(happening: Happening) -> bytes:
    # JSON has no line ends of its own, so nothing in the data can begin another event.
    data = json.dumps(plain(_shaped(happening.data)))
    return f"id: {happening.id}\nevent: {happening.kind}\ndata: {data}\n\n".encode()


def _shaped(data: Mapping[str, Any]) -> Mapping[str, Any]:
    outage = data.get("outage")
    return outage_shape(outage) if isinstance(outage, Outage) else data


async def close_streams(app: web.Application) -> None:
    """End every open stream, so that a stop does not wait for listeners."""
    for closing in app[OPEN]:
        closing.set()


ROUTES = (Route("GET", "/events", follow_events, Role.READ, seconds=None),)
