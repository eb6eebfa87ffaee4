"""What is written down while servmon runs: readable on a terminal, one JSON object a line elsewhere."""

from __future__ import annotations

import logging
import math
import re
import sys
from collections.abc import Mapping
from datetime import datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any, TextIO

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from servmon.clock import now, rfc3339
from servmon.errors import StartError

MASK = "***"

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
# They log every request or every socket, which our own events already say better.
_QUIET: Mapping[str, int] = {
    "aiohttp.access": logging.CRITICAL + 1,
    "asyncio": logging.WARNING,
    "asyncpg.pool": logging.ERROR,  # it reports every reconnection with a traceback
    "elastic_transport": logging.WARNING,
    # Each failure of a node once more; the follower says what there is to say.
    "elastic_transport.node_pool": logging.ERROR,
}


class _Ours:
    """Marks the handlers of ``configure``, so that a second call replaces them and nobody else's."""


class _StreamHandler(_Ours, logging.StreamHandler[TextIO]):
    pass


class _FileHandler(_Ours, WatchedFileHandler):
    """Notices that logrotate has moved the file away."""


def configure(level: str, fmt: str, file: Path | None, *, stream: TextIO | None = None) -> None:
    """Send all logs, of the standard library too, to ``stream`` (standard error) and to ``file`` if given.

    ``level`` is ``debug``, ``info``, ``warning`` or ``error``; ``fmt`` is ``console``, ``json``, or ``auto``: console
    on a terminal, JSON elsewhere. May be called again. Raises ``StartError`` where the file cannot be written.
    """
    stream = sys.stderr if stream is None else stream
    number = logging.getLevelNamesMapping()[level.upper()]
    handlers: list[logging.Handler] = [_FileHandler(*_checked(file))] if file is not None else []
    for handler in handlers:
        handler.setFormatter(_formatter(console=fmt == "console", colours=False))
    on_stream = _StreamHandler(stream)
    on_stream.setFormatter(_formatter(console=_readable(fmt, stream), colours=stream.isatty()))
    _install([on_stream, *handlers], number)
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(number),
        cache_logger_on_first_use=False,  # a reload may change the level
    )


def _readable(fmt: str, stream: TextIO) -> bool:
    return stream.isatty() if fmt == "auto" else fmt == "console"


def _checked(file: Path) -> tuple[str, str]:
    try:
        with file.open("a", encoding="utf-8"):
            return str(file), "a"
    except OSError as error:
        raise StartError(f"log.file: {file} cannot be written: {error.strerror or error}") from None


def _install(handlers: list[logging.Handler], level: int) -> None:
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, _Ours)]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(capture=True)
    for name, lowest in _QUIET.items():
        logging.getLogger(name).setLevel(max(lowest, level))


def _formatter(*, console: bool, colours: bool) -> logging.Formatter:
    renderer: Processor
    if console:
        renderer = structlog.dev.ConsoleRenderer(
            colors=colours, sort_keys=False, exception_formatter=structlog.dev.plain_traceback
        )
    else:
        renderer = structlog.processors.JSONRenderer()
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )


def _stamp(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["timestamp"] = rfc3339(now())
    return event


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
    """``text`` without the passwords of its URLs, bearer tokens and ``password=…`` pairs."""
    for pattern, replacement in _SECRET_TEXT:
        text = pattern.sub(replacement, text)
    return text


def escaped(text: str) -> str:
    """``text`` on one line, its control characters written as escapes."""
    return _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def _lines(text: str) -> str:
    # The indent keeps a line feed inside an exception's message from starting what looks like a line of its own.
    return "\n".join(f"  {escaped(line)}" for line in masked(text).split("\n"))


_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    _stamp,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.StackInfoRenderer(),
    structlog.processors.format_exc_info,
    clean,
]
