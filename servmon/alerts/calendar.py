"""An occurrence of planned work as a calendar entry (RFC 5545), so that whoever gets the mail has it in the diary."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

_FOLD_AT = 75
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


def event_of(
    uid: str, sequence: int, start: datetime, end: datetime, summary: str, description: str, *, cancelled: bool
) -> dict[str, Any]:
    """What a message carries of an entry, in plain JSON types."""
    return {
        "uid": uid,
        "sequence": sequence,
        "start": _utc(start),
        "end": _utc(end),
        "summary": summary,
        "description": description,
        "cancelled": cancelled,
    }


def method_of(event: Mapping[str, Any]) -> str:
    """What a calendar is to do with the entry (RFC 5546)."""
    return "CANCEL" if event["cancelled"] else "PUBLISH"


def ics(event: Mapping[str, Any], organizer: str, stamp: datetime) -> bytes:
    """The entry as a file; a later ``sequence`` of the same ``uid`` takes the place of an earlier one."""
    lines = (
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//servmon//maintenance//EN",
        f"METHOD:{method_of(event)}",
        "BEGIN:VEVENT",
        f"UID:{_text(event['uid'])}",
        f"SEQUENCE:{int(event['sequence'])}",
        f"DTSTAMP:{_utc(stamp)}",
        f"DTSTART:{event['start']}",
        f"DTEND:{event['end']}",
        f"SUMMARY:{_text(event['summary'])}",
        f"DESCRIPTION:{_text(event['description'])}",
        f"ORGANIZER:mailto:{organizer}",
        f"STATUS:{'CANCELLED' if event['cancelled'] else 'CONFIRMED'}",
        "TRANSP:TRANSPARENT",
        "END:VEVENT",
        "END:VCALENDAR",
    )
    return "".join(f"{part}\r\n" for line in lines for part in _folded(line)).encode()


def _utc(at: datetime) -> str:
    return f"{at:%Y%m%dT%H%M%SZ}"


def _text(value: str) -> str:
    """A value that cannot end its line, whatever a stranger wrote into it (3.3.11)."""
    value = value.replace("\r\n", "\n").replace("\r", "\n")
    escaped = _CONTROL.sub(" ", value).replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,")
    return escaped.replace("\n", "\\n")


def _folded(line: str) -> Iterator[str]:
    """``line`` in pieces of at most 75 octets (3.1), none of which cuts a character in two."""
    piece, octets = "", 0
    for char in line:
        size = len(char.encode("utf-8", "replace"))
        if octets + size > _FOLD_AT:
            yield piece
            piece, octets = " ", 1
        piece, octets = piece + char, octets + size
    yield piece
