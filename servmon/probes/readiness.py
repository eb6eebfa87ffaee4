"""Which of the sockets of all checks are ready: one watch for all of them instead of one of the loop's for each.

A check's socket lives for a few system calls, and the loop's own watch over it costs as much as they do. Here the
loop watches one epoll descriptor, and that watches the sockets (epoll(7)). Other systems have no such thing; there
the loop watches each.
"""

from __future__ import annotations

import asyncio
import select
import sys
from collections.abc import Callable
from typing import Protocol

from typing_extensions import override

_AT_ONCE = 512

Call = Callable[[], None]


class Readiness(Protocol):
    """Calls back for sockets, by their file number, each time the loop turns and they are ready, or have failed."""

    def watch(self, number: int, call: Call, *, read: bool = False, write: bool = False) -> None:
        """Have ``call`` called whenever there is something to read or room to write; takes the place of what was."""
        ...

    def forget(self, number: int) -> None:
        """Call for it no more; to be said before a socket is closed. Twice is as good as once."""
        ...

    def close(self) -> None:
        """Watch nothing any more."""
        ...


class EpollReadiness(Readiness):
    """All sockets in one epoll set, which the loop watches."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._calls: dict[int, Call] = {}

    @override
    def watch(self, number: int, call: Call, *, read: bool = False, write: bool = False) -> None:
        epoll = self._epoll or self._open()
        events = (select.EPOLLIN if read else 0) | (select.EPOLLOUT if write else 0)
        if number in self._calls:
            epoll.modify(number, events)
        else:
            epoll.register(number, events)
        self._calls[number] = call

    @override
    def forget(self, number: int) -> None:
        # Closing alone would not do: where a program is being started it holds the socket too, for a moment.
        if self._calls.pop(number, None) is not None and self._epoll is not None:
            self._epoll.unregister(number)

    @override
    def close(self) -> None:
        self._calls.clear()
        if self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _open(self) -> select.epoll:
        self._epoll = epoll = select.epoll()
        asyncio.get_running_loop().add_reader(epoll.fileno(), self._call_ready)
        return epoll

    def _call_ready(self) -> None:
        if self._epoll is None:
            return
        calls = self._calls
        # A number may pass to another socket while this is worked off, so it is the callable that is looked for.
        ready = [(number, calls.get(number)) for number, _ in self._epoll.poll(0, _AT_ONCE)]
        for number, call in ready:
            if call is None or calls.get(number) is not call:
                continue
            try:
                call()
            except BaseException:
                self.forget(number)  # it would be called again and again, before all others
                raise


class LoopReadiness(Readiness):
    """Each socket watched by the loop itself."""

    def __init__(self) -> None:
        self._watched: set[int] = set()

    @override
    def watch(self, number: int, call: Call, *, read: bool = False, write: bool = False) -> None:
        loop = asyncio.get_running_loop()
        self._watched.add(number)
        # In this order the loop's watch over the descriptor is changed, not ended and begun anew.
        if read:
            loop.add_reader(number, call)
        if write:
            loop.add_writer(number, call)
        else:
            loop.remove_writer(number)
        if not read:
            loop.remove_reader(number)

    @override
    def forget(self, number: int) -> None:
        if number in self._watched:
            self._watched.discard(number)
            loop = asyncio.get_running_loop()
            loop.remove_reader(number)
            loop.remove_writer(number)

    @override
    def close(self) -> None:
        for number in tuple(self._watched):
            self.forget(number)


def readiness() -> Readiness:
    """The best there is on this system."""
    return EpollReadiness() if sys.platform == "linux" else LoopReadiness()
