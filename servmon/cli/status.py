"""``servmon status``: how everything is, in one screen."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, NoReturn

import typer

from servmon.cli.base import EXIT_CONFIGURATION, fail, shown
from servmon.cli.desk import Desk, over_api, width
from servmon.cli.maintenance import COLUMNS as WINDOW_COLUMNS
from servmon.cli.outages import OPEN as OUTAGE_COLUMNS
from servmon.cli.tables import Column, cut, lines, table
from servmon.cli.when import lasted, readable
from servmon.clock import now
from servmon.errors import ServmonError

# At a glance the reason says more than the id.
_MATTERS = {"ID": (None, 7), "WHAT": (32, 0)}
_AT_A_GLANCE = tuple(
    Column(title, value, *_MATTERS.get(title, (least, rank))) for title, value, least, rank in OUTAGE_COLUMNS
)
SUSPECT_COLUMNS = (
    Column("ENDPOINT", "endpoint_id", least=12),
    Column("SINCE", lambda row: readable(row["since"]), rank=1),
    Column("LASTED", lambda row: lasted(row["since"], None)),
    Column("FAILED", "failures"),
    Column("STILL NEEDED", lambda row: "being verified" if row["verifying"] else row["failures_needed"]),
    Column("WHY", "error_message", least=32),
)
# What is read at a glance; the list of services has the others.
SUSPECTS_SHOWN = 20

# Home, and nothing below what is written: no flicker, nothing left of a longer screen before.
_BEGIN, _END_OF_LINE, _REST = "\x1b[H", "\x1b[K\n", "\x1b[J"
_OTHER_SCREEN, _OWN_SCREEN = "\x1b[?1049h\x1b[2J", "\x1b[?1049l"


class UnansweredError(ServmonError):
    """What was asked was not answered, for the reason it tells."""


@over_api
def status(
    desk: Desk,
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again and again, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=0.2, max=3600, help="Seconds between two looks with --watch.")] = 2.0,
) -> None:
    """Say how many endpoints are up and down, which outages are open and which work is going on."""
    if not watch:
        _show(desk)
    elif desk.on_terminal and not desk.as_json:
        _keep_showing(desk, every)
    else:
        fail("--watch needs a terminal; for a program there is: servmon watch --json", EXIT_CONFIGURATION)


def _show(desk: Desk) -> None:
    found = _look(desk)
    if desk.as_json:
        desk.json(found)
        return
    for line in _screen(found) if desk.on_terminal else _plain(found):
        typer.echo(line)


def _look(desk: Desk) -> dict[str, Any]:
    return {
        "services": desk.api.get("/services/status/summary"),
        "degraded": desk.api.get("/readyz")["degraded"],
        "outages": list(desk.api.pages("/outages/active")),
        "suspects": desk.api.get("/services/status/suspects", limit=str(SUSPECTS_SHOWN)),
        "maintenance": desk.api.get("/maintenance/active")["items"],
    }


def _keep_showing(desk: Desk, every: float) -> None:
    desk.api.complain = _unanswered
    screen = _Screen(desk)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    sys.stdout.write(_OTHER_SCREEN)
    try:
        while True:
            sys.stdout.write(_BEGIN + "".join(line + _END_OF_LINE for line in screen.lines()) + _REST)
            sys.stdout.flush()
            time.sleep(every)
    except KeyboardInterrupt:
        pass  # the way to end it
    finally:
        sys.stdout.write(_OWN_SCREEN)
        sys.stdout.flush()


def _end(number: int, _frame: object) -> NoReturn:
    """Leave as whoever is killed does, but with the terminal as it was."""
    raise SystemExit(128 + number)


class _Screen:
    """What stands on the terminal, as wide and as high as that is at the moment."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._last: tuple[datetime, dict[str, Any]] | None = None

    def lines(self) -> list[str]:
        """The next look; where it fails, why, above what was seen last."""
        from shutil import get_terminal_size

        present = now()
        try:
            self._last = present, _look(self._desk)
            trouble = []
        except UnansweredError as error:
            trouble = [*_wrapped(str(error)), ""]
        room = max(1, get_terminal_size().lines - 2)
        found = [*trouble, *self._seen(present)]
        more = [f"… and {len(found) - room + 1} lines more"] if len(found) > room else []
        return [_clock(present), *found[: room - len(more)], *more]

    def _seen(self, present: datetime) -> Iterator[str]:
        if self._last is None:
            return
        at, found = self._last
        if at != present:
            yield from _wrapped(f"as of {_clock(at)}:")
        yield from _screen(found)


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}Z"


def _unanswered(sentence: str) -> NoReturn:
    raise UnansweredError(sentence)


def _screen(found: dict[str, Any]) -> Iterator[str]:
    yield from _wrapped(_counts(found["services"]))
    for sentence in found["degraded"]:
        yield from _wrapped(f"! {sentence}")
    yield ""
    if outages := found["outages"]:
        yield f"{len(outages)} open {'outage' if len(outages) == 1 else 'outages'}"
        yield from table(_AT_A_GLANCE, outages, width())
    else:
        yield "no outage is open"
    yield from _suspects(found["suspects"])
    if found["maintenance"]:
        yield ""
        yield "planned work now"
        yield from table(WINDOW_COLUMNS, found["maintenance"], width())


def _counts(services: dict[str, int]) -> str:
    """The counts in a sentence, without those that are nothing."""
    told = [f"{services[name]} {name}" for name in ("down", "degraded", "unknown", "up") if services[name]]
    endpoints = f"{services['total']} {'endpoint' if services['total'] == 1 else 'endpoints'}"
    covered = f"; {services['in_maintenance']} in a window" if services["in_maintenance"] else ""
    return (f"{endpoints}: {', '.join(told)}" if told else endpoints) + covered


def _wrapped(text: str) -> list[str]:
    """``text`` in lines that the terminal has room for."""
    from textwrap import wrap

    room = max(width(), 20)
    return [cut(part, room) for line in text.split("\n") for part in wrap(shown(line), room)]


def _suspects(found: dict[str, Any]) -> Iterator[str]:
    if not found["items"]:
        return
    yield ""
    yield f"{found['total']} failing, not yet an outage"
    yield from table(SUSPECT_COLUMNS, found["items"], width())
    if (more := found["total"] - len(found["items"])) > 0:
        yield f"… and {more} more: servmon services list --state suspected"


def _plain(found: dict[str, Any]) -> Iterator[str]:
    """Lines of a kind each, which their first word tells."""
    yield from (f"services\t{name}\t{number}" for name, number in found["services"].items())
    yield from (f"degraded\t{shown(sentence)}" for sentence in found["degraded"])
    yield from (f"outage\t{line}" for line in lines(OUTAGE_COLUMNS, found["outages"]))
    yield from (f"suspect\t{line}" for line in lines(SUSPECT_COLUMNS, found["suspects"]["items"]))
    yield from (f"maintenance\t{line}" for line in lines(WINDOW_COLUMNS, found["maintenance"]))
