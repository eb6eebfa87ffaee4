"""Calendar entries that any program can read, whatever strangers wrote into their words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from servmon.alerts.calendar import event_of, ics

START, END = datetime(2026, 11, 29, 1, tzinfo=UTC), datetime(2026, 11, 29, 3, tzinfo=UTC)


def entry(summary: str = "Maintenance: New firmware", *, cancelled: bool = False) -> bytes:
    event = event_of("w@servmon", 2, START, END, summary, "Line one\nLine two; three, four", cancelled=cancelled)
    return ics(event, "servmon@isp.example", START)


def unfolded(data: bytes) -> list[str]:
    return data.decode().replace("\r\n ", "").split("\r\n")


def test_an_entry_has_what_rfc_5546_asks_for():
    lines = unfolded(entry())
    assert lines[0] == "BEGIN:VCALENDAR"
    assert lines[-1] == ""
    for line in (
        "METHOD:PUBLISH",
        "UID:w@servmon",
        "SEQUENCE:2",
        "DTSTART:20261129T010000Z",
        "DTEND:20261129T030000Z",
        "ORGANIZER:mailto:servmon@isp.example",
        "STATUS:CONFIRMED",
        r"DESCRIPTION:Line one\nLine two\; three\, four",
    ):
        assert line in lines


def test_a_cancelled_entry_takes_itself_out():
    lines = unfolded(entry(cancelled=True))
    assert "METHOD:CANCEL" in lines
    assert "STATUS:CANCELLED" in lines


@pytest.mark.parametrize(
    "summary", ["x\r\nATTENDEE:evil", "x\nEND:VEVENT", "\x00\x1b[31m", "ü" * 300, "🎉" * 100, "\\n;,"]
)
def test_words_neither_end_their_line_nor_break_a_character(summary):
    data = entry(summary)
    assert all(len(line) <= 75 for line in data.split(b"\r\n"))
    data.decode()
    lines = unfolded(data)
    assert len(lines) == 18
    assert sum(line.startswith(("ATTENDEE", "END:VEVENT")) for line in lines) == 1
    assert b"\n" not in data.replace(b"\r\n", b"")
