"""The echo requests of one check: what is asked of one address, and what became of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from servmon.model import FailureKind
from servmon.probes.base import ProbeFailed
from servmon.probes.deadlines import Waiting
from servmon.probes.route import ANY_ROUTE, Ancillary, Route
from servmon.probes.shared_socket import Destination

if TYPE_CHECKING:
    from servmon.probes.icmp_socket import IcmpSocket


class Packet(NamedTuple):
    """What kind of echo requests to send; ``payload_size`` is in bytes, without any header."""

    payload_size: int = 56
    ttl: int | None = None
    dont_fragment: bool = False
    route: Route = ANY_ROUTE


PLAIN_PACKET = Packet()


class Series:
    """The echo requests of one check to one address, and what became of each.

    ``told`` is called once, with the series, when nothing more is waited for. ``rtts_ms`` holds the round trips in
    order of arrival, ``failure`` the last request that failed for a known reason. Requests in neither are lost, or were
    never sent: see ``sent``. ``rushed`` means that time ran out while this machine had yet to send, or had hardly sent,
    the last of them: their loss proves nothing.
    """

    __slots__ = (
        "_settled",
        "_told",
        "dont_fragment",
        "failure",
        "last_sent_at",
        "open",
        "packets",
        "patience",
        "payload_size",
        "rtts_ms",
        "rushed",
        "sent",
        "source",
        "to",
        "ttl",
        "ttl_heard",
        "waiting",
        "way",
    )

    def __init__(
        self, to: Destination, packets: int, kind: Packet, told: Callable[[Series], None] | None = None
    ) -> None:
        self.to = to
        self.packets = packets
        self.payload_size = kind.payload_size
        self.ttl = kind.ttl
        self.dont_fragment = kind.dont_fragment
        self.source = kind.route.source_address
        self.way: Ancillary = () if kind.route is ANY_ROUTE else kind.route.ancillary(to.version)
        self.sent = 0
        self.last_sent_at = -math.inf
        self.rushed = False
        self.rtts_ms: list[float] = []
        self.ttl_heard: int | None = None
        self.failure: ProbeFailed | None = None
        self.open: list[Echo] = []
        # Seconds that it waits, and who else's time is up when its is.
        self.patience = math.inf
        self.waiting: Waiting | None = None
        self._told = told
        self._settled = 0

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody still waits to be told."""
        return self._told is not None

    def asked(self) -> Series:
        """The series itself, at its end; raises ``ProbeFailed`` (LOCAL) where this machine could not ask at all."""
        if self.failure is not None and self.failure.kind is FailureKind.LOCAL:
            raise self.failure
        return self

    def answer(self, rtt_ms: float, ttl: int | None) -> None:
        """One request was answered."""
        self.rtts_ms.append(rtt_ms)
        self.ttl_heard = ttl
        self._settle()

    def refuse(self, failure: ProbeFailed) -> None:
        """One request failed for a known reason; one of our own ends the series, since asking on would not help."""
        self.failure = failure
        if failure.kind is FailureKind.LOCAL:
            self.finish()
        else:
            self._settle()

    def finish(self) -> None:
        """Wait for nothing more, and tell: once."""
        told = self._told
        self.give_up()
        if told is not None:
            told(self)

    def give_up(self) -> None:
        """Wait for nothing more, and tell nobody: what is in line is not sent, and what comes finds nobody waiting."""
        self._told = None
        if self.waiting is not None:
            self.waiting.pop(self, None)
            self.waiting = None
        for echo in tuple(self.open):
            echo.socket.forget(echo)

    def _settle(self) -> None:
        self._settled += 1
        if self._settled == self.packets:
            self.finish()


class Echo:
    """One request that is waited for."""

    __slots__ = ("cookie", "sent_monotonic", "sent_wall", "sequence", "series", "socket")

    def __init__(self, series: Series, sock: IcmpSocket, sequence: int, cookie: bytes) -> None:
        self.series = series
        self.socket = sock
        self.sequence = sequence
        self.cookie = cookie
        self.sent_wall = 0.0
        self.sent_monotonic = 0.0
