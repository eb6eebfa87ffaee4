"""Single lines of messages: harmless whoever wrote what is in them, of a length people read, and time as they say it.

Names, banners and error texts come from strangers: every line is made harmless here, before any channel sees it.
"""

from __future__ import annotations

from datetime import timedelta

SUBJECT_LIMIT = 200
LINE_LIMIT = 600


def one_line(text: str, limit: int = LINE_LIMIT) -> str:
    """``text`` without line ends and control characters, cut with a mark where it is too long."""
    clean = "".join(char if char.isprintable() else " " for char in text)
    return clean if len(clean) <= limit else f"{clean[: limit - 1]}…"


def late_subject(subject: str, late: str, limit: int = SUBJECT_LIMIT) -> str:
    """The subject of a message that comes so ``late``."""
    return one_line(f"[delayed {late}] {subject}", limit)


def lasted(span: timedelta) -> str:
    """A time span as people say it: ``40 s``, ``12 min``, ``3 h 5 min``, ``2 d 4 h``."""
    seconds = max(int(span.total_seconds()), 0)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{seconds} s"
