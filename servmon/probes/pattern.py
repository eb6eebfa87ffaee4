"""Searching answers for patterns, so that no pattern can bring checking to a halt.

Python's expressions cannot be interrupted and let no other thread run. So what is certainly quick is searched at
once, and the rest by a process of its own, which dies of a search that takes too long.
"""

from __future__ import annotations

import asyncio
import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from servmon.model import FailureKind
from servmon.probes.base import ProbeFailed
from servmon.probes.pattern_worker import HEAD

if TYPE_CHECKING:
    from servmon.probes.network import ProbeContext

# Processor seconds for one search in the worker, and the time on the wall after which something else is wrong.
SEARCH_SECONDS = 1.0
_WALL_SECONDS = 10.0
# What may be searched at once: some 20 ms at the very worst.
_STEPS_AT_ONCE = 1 << 21
_SLOW_REMEMBERED = 1000

_WORKER = Path(__file__).with_name("pattern_worker.py")
_TOKEN = re.compile(
    r"""\\(?P<reference>[1-9])|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]
      |(?P<nested>\)(?:[*+]|\{[0-9]*,?[0-9]*\})|\(\?(?:P=|<[=!]|[=!(]))
      |\(\?(?:P<\w+>|[a-zA-Z-]*[:)]|>)
      |(?P<repeat>[*+]|\{[0-9]*,?[0-9]*\})|(?P<branch>[?|])""",
    re.VERBOSE | re.DOTALL,
)


_HIDES = re.compile(r"\(\?(?:#|[a-zA-Z]*x)")


class SearchTooSlowError(Exception):
    """The search was given up."""


class _Shape(NamedTuple):
    """How much a pattern can make of a text: ``length ** (repeats + 1) * 2 ** branches`` steps, if not more."""

    repeats: int
    branches: int
    unbounded: bool


@lru_cache(maxsize=4096)
def compiled(pattern: str) -> re.Pattern[str]:
    """``pattern``, compiled once; ``re`` itself forgets after 512."""
    return re.compile(pattern)


async def search(pattern: re.Pattern[str], text: str, context: ProbeContext) -> bool:
    """Whether ``pattern`` is found in ``text``. Raises ``ProbeFailed`` (LOCAL) where that cannot be found out.

    The time it takes is not the target's.
    """
    if is_quick(pattern, len(text)):
        return pattern.search(text) is not None
    context.doing = "searching the answer for the pattern"
    try:
        with context.our_time():
            return await context.network.matcher.search(pattern, text)
    except SearchTooSlowError:
        message = f"the pattern {pattern.pattern!r} takes too long to search; make it simpler (no repeats in repeats)"
        raise ProbeFailed(FailureKind.LOCAL, message) from None


def is_quick(pattern: re.Pattern[str], length: int) -> bool:
    """Whether a search in ``length`` characters must end within milliseconds, whatever they are."""
    shape = _shape(pattern)
    if shape.unbounded or shape.repeats > 8 or shape.branches > 20:
        return False
    steps: int = (length + 1) ** (shape.repeats + 1) << shape.branches
    return steps <= _STEPS_AT_ONCE


@lru_cache(maxsize=4096)
def _shape(pattern: re.Pattern[str]) -> _Shape:
    """Counted by its signs alone: escapes, sets and the beginnings of groups are passed over.

    A repeated group, a look-around or a back-reference has no bound that could be told so, and spaces or comments
    (VERBOSE, also for a group alone) could hide them.
    """
    if pattern.flags & re.VERBOSE or _HIDES.search(pattern.pattern):
        return _Shape(0, 0, unbounded=True)
    repeats = branches = 0
    for token in _TOKEN.finditer(pattern.pattern):
        if token.group("reference") or token.group("nested"):
            return _Shape(0, 0, unbounded=True)
        repeats += token.group("repeat") is not None
        branches += token.group("branch") is not None
    return _Shape(repeats, branches, unbounded=False)


class Matcher:
    """Two worker processes, started when first needed: one for patterns of good repute, one for those once too slow.

    So that a bad pattern makes only its like wait.
    """

    def __init__(self) -> None:
        self._workers = (_Worker(), _Worker())
        self._slow: set[str] = set()

    async def search(self, pattern: re.Pattern[str], text: str) -> bool:
        """Whether ``pattern`` is found in ``text``. Raises ``SearchTooSlowError``."""
        worker = self._workers[pattern.pattern in self._slow]
        try:
            return await worker.search(pattern, text)
        except SearchTooSlowError:
            if len(self._slow) >= _SLOW_REMEMBERED:
                self._slow.clear()
            self._slow.add(pattern.pattern)
            raise

    async def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            await worker.stop()


class _Worker:
    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    async def search(self, pattern: re.Pattern[str], text: str) -> bool:
        asked, searched = pattern.pattern.encode(), text.encode(errors="replace")
        request = HEAD.pack(SEARCH_SECONDS, pattern.flags, len(asked), len(searched)) + asked + searched
        async with self._lock:
            answer = b""
            try:
                async with asyncio.timeout(_WALL_SECONDS):
                    answer = await self._ask(request)
            except TimeoutError:
                pass
            finally:
                # Without an answer it is dead, or busy with what nobody waits for any more.
                if not answer:
                    await self.stop()
        if not answer:
            raise SearchTooSlowError
        return answer == b"1"

    async def _ask(self, request: bytes) -> bytes:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-IS",
                str(_WORKER),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise AssertionError("the worker was started with pipes")
        stdin.write(request)
        return await stdout.read(1)

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        await process.wait()
