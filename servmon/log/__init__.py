"""What is written down while servmon runs: readable on a terminal, one JSON object a line elsewhere."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from servmon.clock import now, rfc3339
from servmon.log.cleaning import MASK, clean, escaped, hide, masked
from servmon.log.files import LogFile
from servmon.log.repeats import Repeats

__all__ = [
    "MASK",
    "check",
    "clean",
    "configure",
    "count_repeats",
    "escaped",
    "hide",
    "masked",
    "reopen",
    "shows_checks",
]

# How soon, at the latest, it is said how often something was repeated.
COUNT_SECONDS = 15.0
# They log every request or every socket, which our own events already say better.
_QUIET: Mapping[str, int] = {
    "aiohttp.access": logging.CRITICAL + 1,
    "asyncio": logging.WARNING,
    "asyncpg.pool": logging.ERROR,  # it reports every reconnection with a traceback
    "elastic_transport": logging.WARNING,
    "urllib3": logging.ERROR,  # below, it names addresses that may be secrets; Apprise speaks through it
}


class _Gate(logging.Handler):
    """Writes each record to everything there is, unless it only repeats what was said often enough."""

    def __init__(self, outlets: list[logging.Handler]) -> None:
        super().__init__()
        self.outlets = outlets
        self.repeats = Repeats()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, after what is left to be said of earlier ones."""
        self.say_repeats()
        ours = isinstance(record.msg, Mapping)  # judged already, by _hold_back
        if ours or self.repeats.admits(record.name, record.levelno, str(record.msg)):
            self._write(record)

    def say_repeats(self, *, all_of_them: bool = False) -> None:
        """Write how often what was held back was said."""
        for record in self.repeats.ended(all_of_them=all_of_them):
            self._write(record)

    def close(self) -> None:
        """Write what is left, and close everything."""
        self.say_repeats(all_of_them=True)
        for outlet in self.outlets:
            outlet.close()
        super().close()

    def _write(self, record: logging.LogRecord) -> None:
        for outlet in self.outlets:
            outlet.handle(record)


def configure(level: str, fmt: str, file: Path | None, *, stream: TextIO | None = None) -> None:
    """Send all logs, of the standard library too, to ``stream`` (standard error) and to ``file`` if given.

    ``level`` is ``debug``, ``info``, ``warning`` or ``error``; ``fmt`` is ``console``, ``json``, or ``auto``: console
    on a terminal, JSON elsewhere. May be called again. Raises ``StartError`` where the file cannot be written.
    """
    stream = sys.stderr if stream is None else stream
    number = logging.getLevelNamesMapping()[level.upper()]
    outlets: list[logging.Handler] = [LogFile(file)] if file is not None else []
    for outlet in outlets:
        outlet.setFormatter(_formatter(console=fmt == "console", colours=False))
    on_stream = logging.StreamHandler(stream)
    on_stream.setFormatter(_formatter(console=_readable(fmt, stream), colours=stream.isatty()))
    _install(_Gate([on_stream, *outlets]), number)
    structlog.configure(
        processors=[_hold_back, *_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(number),
        cache_logger_on_first_use=False,  # a reload may change the level
    )


def check(file: Path | None) -> None:
    """Raise ``StartError`` where ``configure`` would."""
    if file is not None:
        LogFile(file).close()


def reopen() -> None:
    """Open the log file anew, as logrotate asks for by SIGUSR1."""
    for gate in _gates():
        for outlet in gate.outlets:
            if isinstance(outlet, LogFile):
                outlet.reopen()


async def count_repeats() -> None:
    """Say how often things were repeated, also where nothing else is said any more; for ever."""
    while True:
        await asyncio.sleep(COUNT_SECONDS)
        for gate in _gates():
            gate.say_repeats()


def shows_checks() -> bool:
    """Whether every single check is logged, as at level debug."""
    return _shown_level <= logging.DEBUG


_shown_level = logging.WARNING  # logging's own, until it is configured


def _readable(fmt: str, stream: TextIO) -> bool:
    return stream.isatty() if fmt == "auto" else fmt == "console"


def _gates() -> Iterator[_Gate]:
    # Nobody else's handlers are touched.
    return (handler for handler in logging.getLogger().handlers[:] if isinstance(handler, _Gate))


def _install(gate: _Gate | None, level: int) -> None:
    global _shown_level  # noqa: PLW0603 - read for every check; the root logger's own way there is long
    root = logging.getLogger()
    for old in _gates():
        root.removeHandler(old)
        old.close()
    if gate is not None:
        root.addHandler(gate)
    root.setLevel(level)
    _shown_level = level
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


def _hold_back(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """End here what was said often enough: dressing it up is what costs."""
    level = logging.getLevelNamesMapping().get(method.upper(), logging.ERROR)
    if not all(gate.repeats.admits(logger.name, level, str(event.get("event"))) for gate in _gates()):
        raise structlog.DropEvent
    return event


def _stamp(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["timestamp"] = rfc3339(now())
    return event


_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    _stamp,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.StackInfoRenderer(),
    structlog.processors.format_exc_info,
    clean,
]
