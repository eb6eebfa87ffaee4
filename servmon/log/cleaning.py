"""What is secret is masked, and what could move a terminal's cursor or forge a line is escaped."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from structlog.types import EventDict, WrappedLogger

from servmon.clock import rfc3339

MASK = "***"
# Shorter ones would mask parts of ordinary words.
SHORTEST_SECRET = 6

_SECRET_KEY = re.compile(r"token|passw|authorization|api[_-]?key|secret|credential|cookie", re.IGNORECASE)
# Where a secret stands is no secret, and the person who looks for it needs it.
_POINTER_KEY = re.compile(r"_(file|path|env|id|name)$", re.IGNORECASE)
_SECRET_TEXT = (
    (re.compile(r"(?i)\b(postgres(?:ql)?://[^\s:/@]*):\S+@"), rf"\1:{MASK}@"),
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://[^\s:/@]*):[^\s/?#]+@"), rf"\1:{MASK}@"),
    (re.compile(r"(?i)\b(bearer|apikey)\s+[\w.~+/-]+=*"), rf"\1 {MASK}"),
    (re.compile(r"(?i)\b(password|passwd|token|api_key|secret)=('[^']*'|[^\s&,;]+)"), rf"\1={MASK}"),
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_MULTI_LINE = frozenset({"exception", "stack"})
_DEEPEST = 6
_hidden: dict[str, re.Pattern[str]] = {}


def hide(whose: str, secrets: Iterable[str]) -> None:
    """Mask these very texts wherever they appear from now on, in place of those that ``whose`` had hidden before.

    Whatever a library puts into a message, a secret that is known here does not get out with it.
    """
    known = {form for secret in secrets for form in _forms(secret) if len(form) >= SHORTEST_SECRET}
    _hidden.pop(whose, None)
    if known:
        # The longest first: one may be part of another.
        _hidden[whose] = re.compile("|".join(re.escape(form) for form in sorted(known, key=len, reverse=True)))


def _forms(secret: str) -> Iterable[str]:
    """A secret as it is, and as ``repr`` and JSON write it."""
    return secret, repr(secret)[1:-1], secret.replace("\\", "\\\\").replace('"', '\\"')


def clean(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask what is secret and escape what could move a terminal's cursor or forge a line."""
    return {
        key: value
        if key.startswith("_")
        else _lines(str(value))
        if key in _MULTI_LINE
        else _cleaned(key, value, _DEEPEST)
        for key, value in event.items()
    }


def _cleaned(key: str, value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if _SECRET_KEY.search(key) and not _POINTER_KEY.search(key):
        return MASK
    if depth and isinstance(value, Mapping):
        return {escaped(str(name)): _cleaned(str(name), inner, depth - 1) for name, inner in value.items()}
    if depth and isinstance(value, (list, tuple, set, frozenset)):
        return [_cleaned(key, inner, depth - 1) for inner in value]
    return _cleaned_scalar(value)


def _cleaned_scalar(value: Any) -> int | float | str:
    # JSON has neither infinity nor NaN.
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, datetime) and value.tzinfo is not None:
        return rfc3339(value)
    return escaped(masked(str(value)))


def masked(text: str) -> str:
    """``text`` without hidden secrets, the passwords of its URLs, bearer tokens and ``password=…`` pairs."""
    for hidden in _hidden.values():
        text = hidden.sub(MASK, text)
    for pattern, replacement in _SECRET_TEXT:
        text = pattern.sub(replacement, text)
    return text


def escaped(text: str) -> str:
    """``text`` on one line, its control characters written as escapes."""
    return _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def _lines(text: str) -> str:
    # The indent keeps a line feed inside an exception's message from starting what looks like a line of its own.
    return "\n".join(f"  {escaped(line)}" for line in masked(text).split("\n"))
