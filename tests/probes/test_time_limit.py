"""The time limit of an attempt, beside ``asyncio.timeout``, which it stands in for."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from servmon.probes.deadlines import Deadlines
from servmon.probes.time_limit import TimeLimit
from tests.virtual import VirtualClock, run_virtual


def test_it_ends_what_takes_too_long_and_nothing_else():
    async def main():
        loop = asyncio.get_running_loop()
        with TimeLimit(2, Deadlines(VirtualClock())) as limit:
            await asyncio.sleep(1)
        assert not limit.expired()
        started = loop.time()
        with pytest.raises(TimeoutError), TimeLimit(2, Deadlines(VirtualClock())) as limit:
            await asyncio.sleep(9)
        assert limit.expired()
        assert loop.time() - started == 2
        await asyncio.sleep(5)
        assert asyncio.current_task().cancelling() == 0

    run_virtual(main)


def test_it_can_be_put_off_and_called_off():
    async def main():
        with TimeLimit(2, Deadlines(VirtualClock())) as limit:
            left = limit.when() - asyncio.get_running_loop().time()
            limit.reschedule(None)
            await asyncio.sleep(100)
            limit.reschedule(asyncio.get_running_loop().time() + left)
            await asyncio.sleep(1.9)
        with pytest.raises(TimeoutError), TimeLimit(5, Deadlines(VirtualClock())) as limit:
            await _sleep_longer_than(limit)

    run_virtual(main)


async def _sleep_longer_than(limit: TimeLimit) -> None:
    limit.reschedule(asyncio.get_running_loop().time() - 1)
    await asyncio.sleep(1)


def test_other_exceptions_and_cancellations_pass():
    async def main():
        with pytest.raises(ZeroDivisionError), TimeLimit(2, Deadlines(VirtualClock())):
            1 / 0  # noqa: B018 - it raises
        seen = []

        async def limited():
            try:
                with TimeLimit(2, Deadlines(VirtualClock())):
                    await asyncio.sleep(9)
            except BaseException as error:
                seen.append(type(error))
                raise

        for after in (1, 2):
            task = asyncio.get_running_loop().create_task(limited())
            asyncio.get_running_loop().call_later(after, task.cancel)
            with suppress(asyncio.CancelledError):
                await task
            assert task.cancelled()
        assert seen == [asyncio.CancelledError] * 2

    run_virtual(main)


@pytest.mark.parametrize("outer_first", [True, False])
def test_limits_in_limits_each_end_their_own(outer_first):
    async def main():
        outer, inner = (1, 2) if outer_first else (2, 1)
        found = []
        try:
            with TimeLimit(outer, Deadlines(VirtualClock())):
                try:
                    with TimeLimit(inner, Deadlines(VirtualClock())):
                        await asyncio.sleep(9)
                except TimeoutError:
                    found.append("inner")
                await asyncio.sleep(0)
        except TimeoutError:
            found.append("outer")
        assert found == (["outer"] if outer_first else ["inner"])

    run_virtual(main)
