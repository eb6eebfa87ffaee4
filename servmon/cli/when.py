"""Times and spans as people type them: ``90s``, ``10m``, ``1h30m``, ``2d``; a time, or a day, as RFC 3339 has it."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import typer

from servmon.clock import now, rfc3339

_SPAN = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?")
_UNITS = ("days", "hours", "minutes", "seconds")


def span(text: str) -> timedelta:
    """How long ``text`` is, more than nothing; raises typer's error with a sentence."""
    found = _SPAN.fullmatch(text.strip())
    length = (
        timedelta(**{unit: int(given) for unit, given in zip(_UNITS, found.groups(), strict=True) if given})
        if found
        else None
    )
    if not length:
        raise typer.BadParameter(f"{text!r} is no span of time such as 90s, 10m, 1h30m or 2d")
    return length


def moment(text: str) -> datetime:
    """The time that ``text`` means: ``now``, a time with an offset, or a day in UTC."""
    from zoneinfo import ZoneInfo

    from servmon.services.moments import read_moment_or_day

    if text == "now":
        return now()
    try:
        return read_moment_or_day(text, ZoneInfo("UTC"))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} {error}") from None


def since(text: str) -> datetime:
    """When what ``text`` means began: a span ago, or at a time."""
    if not _SPAN.fullmatch(text.strip()):
        return moment(text)
    try:
        return now() - span(text)
    except OverflowError:
        raise typer.BadParameter(f"{text!r} reaches back before the year 1") from None


def begun(text: str | None) -> str | None:
    """``since`` as the API takes it; nothing for nothing."""
    return rfc3339(since(text)) if text else None


def later(moment_: datetime | None, length: timedelta | None) -> str:
    """``length`` after a moment, by default after now, as the API takes it."""
    try:
        return rfc3339((moment_ or now()) + (length or timedelta()))
    except OverflowError:
        raise typer.BadParameter("that is too far away: years go to 9999") from None


def readable(moment_: str | None) -> str:
    """A time of the API to the second."""
    return "" if moment_ is None else f"{moment_[:10]} {moment_[11:19]}Z"


def lasted(start: str, end: str | None) -> str:
    """How long something was, or has been until now, in its two greatest units."""
    over = datetime.fromisoformat(end) if end else now()
    seconds = max(0, int((over - datetime.fromisoformat(start)).total_seconds()))
    parts = (seconds // 86_400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "min"), (seconds % 60, "s")
    told = [f"{number} {unit}" for number, unit in parts if number]
    return " ".join(told[:2]) or "0 s"
