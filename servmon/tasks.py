"""Background tasks that are named, referenced, and never die in silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

import structlog

from servmon.clock import SYSTEM_CLOCK, Clock

T = TypeVar("T")

# A check goes through several turns of the loop, and waits for all that others do in each of them.
TURN_SECONDS = 0.002

# asyncio keeps only weak references to running tasks; without this set one may vanish half-way.
_running: set[asyncio.Task[Any]] = set()
_log = structlog.get_logger(__name__)


def spawn(coroutine: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
    """Start ``coroutine`` in the background under ``name``; a failure nobody awaits is logged as an error."""
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    _running.add(task)
    task.add_done_callback(_ended)
    return task


def _ended(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("background task failed", task=task.get_name(), exc_info=error)


async def in_turns(items: Iterable[T], clock: Clock = SYSTEM_CLOCK) -> AsyncIterator[T]:
    """``items`` one by one, with a turn of the loop after 2 ms of work on them: work on thousands delays no check."""
    began = clock.monotonic()
    for item in items:
        yield item
        if clock.monotonic() - began > TURN_SECONDS:
            await asyncio.sleep(0)
            began = clock.monotonic()


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` gives. Raises ``TimeoutError`` after ``seconds``, also where it takes its time to be cancelled.

    A database driver does: it waits for a word of the silent server before it lets go.
    """
    task = asyncio.get_running_loop().create_task(work)
    _running.add(task)
    task.add_done_callback(_running.discard)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if task.done():
            return task.result()
        raise TimeoutError
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(_unheard)


def _unheard(task: asyncio.Task[Any]) -> None:
    """Nobody waits for it any more, so how it failed is of no interest."""
    if not task.cancelled():
        task.exception()


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel ``tasks`` and wait until each has ended, whatever it ends with."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


FIRST_RESTART_SECONDS = 1.0
LONGEST_RESTART_SECONDS = 60.0


async def supervise(name: str, follow: Callable[[], Awaitable[None]], troubles: dict[str, str]) -> None:
    """Run a follower for ever: what may fail without stopping checks is logged once and started again, later each time.

    While it is in trouble, ``troubles[name]`` says why.
    """
    wait = FIRST_RESTART_SECONDS
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        # What ran before for as long as this had failed by then: it is well again.
        well = loop.call_later(wait, troubles.pop, name, None)
        try:
            await follow()
            trouble = "ended by itself"
        except Exception as error:  # noqa: BLE001 - one of the five places that may
            trouble = f"{type(error).__name__}: {error}"
            if troubles.get(name) != trouble:
                _log.exception("follower failed, starting it again", follower=name)
        finally:
            well.cancel()
        if loop.time() - started > LONGEST_RESTART_SECONDS:
            wait = FIRST_RESTART_SECONDS
        troubles[name] = trouble
        await asyncio.sleep(wait)
        wait = min(2 * wait, LONGEST_RESTART_SECONDS)
