"""The time limit of one attempt: what ``asyncio.timeout`` does, for a third of its cost, since every check has one."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class TimeLimit:
    """Cancels the running task ``seconds`` after it was entered, and leaves as ``TimeoutError``.

    Somebody else's cancellation passes through, also where both come at once.
    """

    __slots__ = ("_cancelling", "_expired", "_loop", "_task", "_timer", "_when")

    def __init__(self, seconds: float) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._when: float | None = loop.time() + seconds
        self._timer: asyncio.TimerHandle | None = None
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
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._when = when
        if when is not None:
            self._timer = self._loop.call_at(when, self._expire)

    def __enter__(self) -> Self:
        if self._when is not None:
            self._timer = self._loop.call_at(self._when, self._expire)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _expire(self) -> None:
        self._expired = True
        self._timer = None
        self._task.cancel()
