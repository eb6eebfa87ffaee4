"""Many sockets under one watch: each is told when it is ready, and none is taken for another."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest
import uvloop

from servmon.probes.readiness import EpollReadiness, LoopReadiness, Readiness
from tests.fix_servers import patience


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    """Runs a coroutine function on each of the two loops."""

    def in_loop(main):
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(main())

    return in_loop


KINDS = pytest.mark.parametrize("kind", [EpollReadiness, LoopReadiness])


class Pair:
    """Two connected sockets, of which the near one is watched."""

    def __init__(self, readiness: Readiness) -> None:
        self.readiness = readiness
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.number = self.near.fileno()
        self.calls = 0
        self.called = asyncio.Event()

    def call(self) -> None:
        self.calls += 1
        self.called.set()

    def close(self) -> None:
        self.readiness.forget(self.number)
        self.near.close()
        self.far.close()


async def some_turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@KINDS
def test_each_is_told_of_its_own_readiness(kind, run):
    async def main():
        readiness = kind()
        pairs = [Pair(readiness) for _ in range(600)]  # more than are looked at in one turn
        for pair in pairs:
            readiness.watch(pair.number, pair.call, read=True)
        for pair in pairs[::2]:
            pair.far.send(b"x")
        async with patience():
            for pair in pairs[::2]:
                await pair.called.wait()
        assert not any(pair.calls for pair in pairs[1::2])
        for pair in pairs:
            pair.close()
        readiness.close()

    run(main)


@KINDS
def test_what_is_watched_for_can_be_changed_and_ended(kind, run):
    async def main():
        readiness = kind()
        pair = Pair(readiness)
        readiness.watch(pair.number, pair.call, write=True)
        await pair.called.wait()
        readiness.watch(pair.number, pair.call, read=True)
        await some_turns()
        seen = pair.calls
        await some_turns()
        assert pair.calls == seen  # there is room, but nothing to read
        pair.far.send(b"x")
        pair.called.clear()
        await pair.called.wait()
        readiness.forget(pair.number)
        readiness.forget(pair.number)
        seen = pair.calls
        await some_turns()
        assert pair.calls == seen
        pair.close()
        readiness.close()
        readiness.close()

    run(main)


@KINDS
def test_both_directions_at_once(kind, run):
    async def main():
        readiness = kind()
        pair = Pair(readiness)
        readiness.watch(pair.number, pair.call, read=True, write=True)
        await pair.called.wait()
        pair.close()
        readiness.close()

    run(main)


def test_a_number_that_passed_to_another_socket_in_the_same_turn_is_not_mixed_up(run):
    async def main():
        readiness = EpollReadiness()
        first, second = Pair(readiness), Pair(readiness)
        heirs: list[Pair] = []

        def replace(other: Pair) -> None:
            """Both are ready now; the first to be called closes the other, whose number a new socket takes."""
            if heirs:
                return
            for pair in (first, second):
                readiness.forget(pair.number)
            heirs.append(Pair(readiness))
            os.dup2(heirs[0].near.fileno(), other.number)
            readiness.watch(other.number, heirs[0].call, read=True)

        readiness.watch(first.number, lambda: replace(second), read=True)
        readiness.watch(second.number, lambda: replace(first), read=True)
        first.far.send(b"x")
        second.far.send(b"x")
        await some_turns()
        assert len(heirs) == 1
        assert heirs[0].calls == 0
        readiness.close()
        for pair in (first, second, *heirs):
            pair.close()

    run(main)


def test_one_that_fails_is_called_no_more_and_holds_up_no_other(run):
    async def main():
        readiness, told = EpollReadiness(), []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["exception"]))
        pairs = [Pair(readiness) for _ in range(5)]

        def fail() -> None:
            raise RuntimeError("no")

        for pair in pairs[:-1]:
            readiness.watch(pair.number, fail, read=True)
        readiness.watch(pairs[-1].number, pairs[-1].call, read=True)
        for pair in pairs:
            pair.far.send(b"x")
        async with patience():
            await pairs[-1].called.wait()
        await some_turns()
        assert [str(error) for error in told] == ["no"] * 4
        for pair in pairs:
            pair.close()
        readiness.close()

    run(main)
