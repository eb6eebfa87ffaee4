"""The time limit of one attempt: what ``asyncio.timeout`` does, for a third of its cost, since every check has one."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from servmon.probes.deadlines import Deadlines, Waiting


class TimeLimit:
    """Cancels the running task ``seconds`` after it was entered, and leaves as ``TimeoutError``.

    Somebody else's cancellation passes through, also where both come at once.
    """

    __slots__ = ("_cancelling", "_deadlines", "_expired", "_loop", "_task", "_waiting", "_when")

    def __init__(self, seconds: float, deadlines: Deadlines) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._deadlines = deadlines
        self._when: float | None = loop.time() + seconds
        self._waiting: Waiting | None = None
        self._expired = False
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a time limit needs a task to cancel")
        self._task = task
        self._cancelling = task.cancelling()

    def when(self) -> float | None:
        """The loop's time at which it expires, ``None`` for never."""
        return self._when

    def expired(self) -> bool:
        """Whether it has expired."""
        return self._expired

    def reschedule(self, when: float | None) -> None:
        """Let it expire at another time, or never."""
        if self._waiting is not None:
            self._waiting.pop(self, None)
            self._waiting = None
        self._when = when
        if when is not None:
            self._waiting = self._deadlines.add(when - self._loop.time(), self, TimeLimit._expire)

    def __enter__(self) -> Self:
        self.reschedule(self._when)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._waiting is not None:
            self._waiting.pop(self, None)
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _expire(self) -> None:
        self._expired = True
        self._waiting = None
        self._task.cancel()
