"""ICMP echo for the whole process: one socket per address family, however many hosts are asked."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from servmon.clock import SYSTEM_CLOCK
from servmon.model import FailureKind
from servmon.probes.base import GiveUp, ProbeFailed, until_told
from servmon.probes.deadlines import Deadlines
from servmon.probes.icmp_series import PLAIN_PACKET, Packet, Series
from servmon.probes.icmp_socket import IcmpSocket, Mode
from servmon.probes.network_pace import NetworkPace
from servmon.probes.shared_socket import Pacer, destination

RENEW_AFTER_SECONDS = 600.0

_LAST_READS = 16
# A packet sent with less than this share of the time left was not given a fair chance to be answered.
_FAIR_SHARE = 0.25

# Not for this user; or no such kind of socket on this system.
_MODE_REFUSED = frozenset({errno.EPERM, errno.EACCES, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT})

NOT_PERMITTED = (
    "this process may not send ICMP: allow it with "
    '`sysctl -w net.ipv4.ping_group_range="0 2147483647"`, or give it CAP_NET_RAW '
    "(AmbientCapabilities=CAP_NET_RAW in the service unit, or `setcap cap_net_raw+ep` on its Python)"
)


class Reply(NamedTuple):
    """An answered echo request; ``ttl`` is the reply's (IPv6: hop limit), ``None`` where the system does not say."""

    rtt_ms: float
    ttl: int | None


class IcmpEngine:
    """Sends echo requests for everybody in this process; sockets open at first use, with the first mode permitted.

    Sending is bounded to bursts, waiting is not. A socket is replaced every 10 minutes, and with it the identifier,
    since a firewall may hold on to a broken session for as long as the identifier stays; the old one drains.
    """

    def __init__(self, modes: Sequence[Mode] = tuple(Mode), *, deadlines: Deadlines | None = None) -> None:
        self._modes = modes
        self._deadlines = deadlines or Deadlines()
        self._sockets: dict[int, IcmpSocket] = {}
        self._draining: list[IcmpSocket] = []
        self._pacers = {version: Pacer(self._send) for version in (4, 6)}
        self._pace = NetworkPace()

    async def ping(self, address: str, kind: Packet = PLAIN_PACKET) -> Reply:
        """One echo request. Waits until it is answered, refused (``ProbeFailed``) or the caller gives up."""
        series = await self.ask(address, kind)
        if series.failure is not None:
            raise series.failure
        return Reply(series.rtts_ms[0], series.ttl_heard)

    async def ask(
        self,
        address: str,
        kind: Packet = PLAIN_PACKET,
        *,
        packets: int = 1,
        interval: float = 0.2,
        patience: float | None = None,
    ) -> Series:
        """As ``begin``, and wait for all of them. Raises ``ProbeFailed`` (LOCAL) where this machine cannot ask."""
        begin = partial(self.begin, address, kind, packets=packets, interval=interval, patience=patience)
        series: Series = await until_told(begin)
        return series.asked()

    def begin(
        self,
        address: str,
        kind: Packet,
        told: Callable[[Series], None],
        *,
        packets: int,
        interval: float,
        patience: float | None,
    ) -> GiveUp:
        """Send ``packets`` requests ``interval`` seconds apart; ``told`` hears when all are answered, or time is up.

        ``patience`` is that time in seconds. Where many ask the same network they may be sent later in its first half.
        Raises ``ProbeFailed`` (LOCAL) where this machine cannot send any; everything else stands in the series.
        """
        to = destination(address)
        if to.version not in self._sockets:
            self._socket(to.version)
        series = Series(to, packets, kind, told)
        if patience is not None:
            series.patience = patience
            series.waiting = self._deadlines.add(patience, series, self._time_is_up)
        pacer, now = self._pacers[to.version], SYSTEM_CLOCK.monotonic()
        for due in self._pace.due_times(to.network, now, packets=packets, interval=interval, patience=patience or 0.0):
            if due <= now:
                pacer.put(series)
            else:
                pacer.put_at(series, due)
        return series.give_up

    def _time_is_up(self, series: Series) -> None:
        # After a stall of the loop the answer may be in the buffer already: look before saying that there is none.
        for sock in {echo.socket for echo in series.open}:
            for _ in range(_LAST_READS):
                if not (series.open and sock.drain()):
                    break
        waited = SYSTEM_CLOCK.monotonic() - series.last_sent_at
        series.rushed = series.sent < series.packets or waited < _FAIR_SHARE * series.patience
        series.finish()

    def _send(self, series: Series) -> bool:
        if not series.is_waited_for:
            return True
        return self._socket(series.to.version).send(series)

    def _socket(self, version: int) -> IcmpSocket:
        current = self._sockets.get(version)
        if current is None:
            current = self._sockets[version] = self._open(version)
        elif SYSTEM_CLOCK.monotonic() - current.opened_at > RENEW_AFTER_SECONDS:
            # Where a new one cannot be opened just now, the old one goes on.
            with suppress(OSError, ProbeFailed):
                self._sockets[version] = self._open(version)
                current.retire()
                self._draining = [sock for sock in (*self._draining, current) if sock.outstanding]
                return self._sockets[version]
        return current

    def _open(self, version: int) -> IcmpSocket:
        for mode in self._modes:
            try:
                return IcmpSocket(version, mode)
            except OSError as error:
                if error.errno not in _MODE_REFUSED:
                    raise
        raise ProbeFailed(FailureKind.LOCAL, NOT_PERMITTED)

    async def close(self) -> None:
        """Close the sockets. Who still waits gets ``ProbeFailed`` (LOCAL)."""
        sockets = (*self._sockets.values(), *self._draining)
        unanswered = [echo.series for sock in sockets for echo in sock.outstanding.values()]
        unsent = [series for pacer in self._pacers.values() for series in pacer.close()]
        for series in (*unanswered, *unsent):
            if series.is_waited_for:
                series.refuse(ProbeFailed(FailureKind.LOCAL, "servmon is closing its ICMP socket"))
        for sock in sockets:
            sock.close()
        self._sockets.clear()
        self._draining.clear()
