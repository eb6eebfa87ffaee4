"""Points in time as people and programs write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})?"
)
_DAY = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")
_EXAMPLE = "2026-11-23T15:43:49Z"


def read_moment(value: object) -> datetime:
    """The UTC time that ``value`` stands for; raises ``ValueError`` with a sentence.

    Text is RFC 3339 and has to carry an offset. A ``datetime`` without one counts as UTC, as ``utcnow()`` made them.
    """
    if isinstance(value, datetime):
        moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    elif isinstance(value, str):
        moment = _parse(value)
    else:
        raise ValueError(f"must be a time in RFC 3339, such as {_EXAMPLE}")  # noqa: TRY004 - it is the value of a field
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time between the years 1 and 9999") from None


def read_moment_or_day(value: object, zone: ZoneInfo) -> datetime:
    """The time that ``value`` stands for; a day, such as ``2026-11-23``, is its first moment in ``zone``."""
    if isinstance(value, str) and _DAY.fullmatch(value):
        try:
            return read_moment(datetime.fromisoformat(value).replace(tzinfo=zone))
        except ValueError:
            raise ValueError("there is no such day; a right one looks like 2026-11-23") from None
    return read_moment(value)


def read_zone(value: object) -> ZoneInfo:
    """The time zone of the IANA database that ``value`` names, UTC for ``None``; raises ``ValueError``."""
    if value is None:
        return ZoneInfo("UTC")
    try:
        return ZoneInfo(str(value))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("must be the name of a time zone, such as Asia/Kolkata or Europe/Berlin") from None


def _parse(text: str) -> datetime:
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"must be a time in RFC 3339, such as {_EXAMPLE}")
    if match[2] is None:
        raise ValueError(f"needs an offset, Z for UTC or one such as +02:00: {_EXAMPLE}")
    try:
        return datetime.fromisoformat(text.upper())
    except ValueError:
        raise ValueError(f"there is no such time; a right one looks like {_EXAMPLE}") from None
