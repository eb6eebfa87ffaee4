"""``servmon watch``: what happens, as it happens."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from typing import Any

import typer

from servmon.cli.base import shown
from servmon.cli.desk import Desk, over_api
from servmon.cli.tables import word
from servmon.cli.when import readable
from servmon.clock import now, rfc3339

# The servmon says something every 15 s; who hears nothing for so long comes back.
SILENCE_SECONDS = 45.0
# No event of ours is near this; what never ends its line is cut off.
LONGEST_LINE = 1_048_576


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event."""

    kind: str
    data: dict[str, Any]


class Follower:
    """Follows /events through lost connections: it goes on after the last event it saw."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._last: str | None = None
        self._wait = 3.0
        self._said = ""

    def events(self) -> Iterator[Event]:
        """Every event from now on, for ever; ends the process where servmon refuses, or is not there to begin with."""
        connected = False
        while True:
            try:
                with self._open() as answer:
                    if connected:
                        self._say("servmon answers again")
                    elif self._desk.on_terminal:  # nothing may happen for hours
                        self._say("following what happens; Ctrl-C ends it")
                    connected = True
                    yield from self._read(iter(partial(answer.readline, LONGEST_LINE), b""))
                self._say("servmon has ended the stream; coming back")
            except (OSError, HTTPException, ValueError) as error:
                sentence = self._desk.api.nobody_answers(error)
                if not connected:
                    self._desk.api.complain(sentence)
                self._say(f"{sentence}; trying again until it does")
            time.sleep(self._wait)

    def _say(self, sentence: str) -> None:
        """Say how the connection is, where that is not as it was: a night of trying again is one line."""
        if sentence != self._said:
            typer.echo(shown(sentence), err=True)
            self._said = sentence

    def _open(self) -> Any:
        resume = {"Last-Event-ID": self._last} if self._last else {}
        return self._desk.api.open("/events", {"Accept": "text/event-stream", **resume}, SILENCE_SECONDS)

    def _read(self, stream: Iterable[bytes]) -> Iterator[Event]:
        """The events in ``stream``; what is cut off in its middle is none (it comes again)."""
        fields: dict[str, str] = {}
        for raw in stream:
            name, _, value = raw.decode("utf-8", "replace").rstrip("\r\n").partition(":")
            value = value.removeprefix(" ")
            if name == "retry" and value.isascii() and value.isdecimal():
                self._wait = min(int(value) / 1000, 60.0)
            elif name:
                fields[name] = value
            elif raw.endswith(b"\n") and "event" in fields:
                yield Event(fields["event"], json.loads(fields.get("data", "{}")))
                self._last = fields.get("id", self._last)
                fields = {}
            else:
                fields = {}


@over_api
def watch(desk: Desk) -> None:
    """Follow state changes, outages and what people change, a line each, until Ctrl-C; comes back by itself."""
    try:
        for event in Follower(desk).events():
            if desk.as_json:
                typer.echo(json.dumps({"event": event.kind, **event.data}))
            else:
                cells = _cells(event)
                typer.echo("  ".join(cell for cell in cells if cell) if desk.on_terminal else "\t".join(cells))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _cells(event: Event) -> list[str]:
    """When, what kind, whom it is about, and what happened."""
    return [word(part) for part in (readable(_moment(event)), *_told(event))]


def _moment(event: Event) -> str:
    """When it happened, or where that is not said, as by an older servmon, when it was heard of."""
    data = event.data
    at: str | None = data.get("at") or data.get("resolved_at") or data.get("declared_at")
    return at or rfc3339(now())


def _told(event: Event) -> list[str]:
    data = event.data
    if event.kind == "state_change":
        return ["state", data["endpoint_id"], f"{data['old']} -> {data['new']}: {data['reason']}"]
    if event.kind == "outage":
        how = "resolved" if data["resolved"] else f"open, {data['severity']}"
        return ["outage", data["endpoint_id"], f"{how}: {data['description']}", data["id"]]
    if event.kind == "change":
        return ["change", data["target"], f"{data['action']} by {data['who']}"]
    if event.kind == "missed":
        return ["missed", "", "some of what happened meanwhile is not remembered any more"]
    return [event.kind, "", json.dumps(data)]
