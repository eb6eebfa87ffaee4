"""How fast we may ask one destination network, so that a router which limits ICMP is not mistaken for dead hosts.

Routers answer, or pass on, only so many pings a second (often 10), and drop the rest without a word. Fifty hosts
behind one would lose whole checks to each other. So packets to one network keep a distance, as far as the time of
the check they belong to allows: pacing may make a check longer, never late.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_left, bisect_right

# Eight a second: below the ten that limiters usually grant.
GAP_SECONDS = 0.12
# Of an attempt's time; the rest is for the last packet to be answered in.
_SHARE_FOR_SENDING = 0.5
_NETWORKS_KEPT = 65_536


def network_of(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """The network whose pace an address shares (/24, /64); empty for this machine itself, which limits nothing."""
    if address.is_loopback:
        return ""
    return address.packed[: 3 if address.version == 4 else 8].hex()


class NetworkPace:
    """When packets may go to each network; times are monotonic seconds."""

    def __init__(self) -> None:
        self._reserved: dict[str, list[float]] = {}

    def due_times(self, network: str, now: float, *, packets: int, interval: float, patience: float) -> list[float]:
        """When to send each packet of one series that starts now, ``interval`` apart unless others are in the way.

        Who asks for more than the usual pace to a single host (a short ``interval``) knows the way there.
        """
        wished = [now + n * interval for n in range(packets)]
        if not network or (packets > 1 and interval < GAP_SECONDS):
            return wished
        reserved = self._upcoming(network, now)
        room = patience * _SHARE_FOR_SENDING / packets
        return [_reserve(reserved, wish, max(wish, now + (n + 1) * room)) for n, wish in enumerate(wished)]

    def _upcoming(self, network: str, now: float) -> list[float]:
        reserved = self._reserved.get(network)
        if reserved is None:
            if len(self._reserved) >= _NETWORKS_KEPT:
                self._reserved = {known: times for known, times in self._reserved.items() if times[-1] > now}
            reserved = self._reserved[network] = []
        del reserved[: bisect_left(reserved, now - GAP_SECONDS)]
        return reserved


def _reserve(reserved: list[float], wish: float, latest: float) -> float:
    """The first time from ``wish`` on that is far enough from all others, now taken; else ``latest``, taken or not."""
    at = bisect_right(reserved, wish - GAP_SECONDS)
    due = wish
    while at < len(reserved) and reserved[at] - due < GAP_SECONDS:
        due = reserved[at] + GAP_SECONDS
        at += 1
    if due > latest:
        return latest
    reserved.insert(at, due)
    return due
