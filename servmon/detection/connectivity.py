"""Are we connected? Judged by witnesses: addresses that answered before, the nearest hop among them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any


@dataclass(frozen=True, slots=True)
class Reach:
    """What the witnesses of one address family say.

    ``known`` are those that have answered at least once; the others prove nothing. ``heard_at`` is the start of the
    last round in which any of them answered.
    """

    known: frozenset[str] = frozenset()
    heard_at: datetime | None = None
    silent_since: datetime | None = None

    @property
    def isolated(self) -> bool:
        """Whether all witnesses fell silent, so that a failure may be ours."""
        return self.silent_since is not None


NOBODY_HEARD = Reach()


def after_round(before: Reach, answered: Collection[str], began_at: datetime) -> Reach:
    """What is known after all witnesses of a family were asked once."""
    if answered:
        return Reach(before.known.union(answered), began_at, None)
    if not before.known:
        return before
    return replace(before, silent_since=before.silent_since or began_at)


def void_from(reach: Reach, period: timedelta) -> datetime | None:
    """From when on failures are ours: a witness period before the last moment at which anybody answered."""
    return reach.heard_at - period if reach.silent_since and reach.heard_at else None


def gateways(route: str, ipv6_route: str) -> list[str]:
    """The default gateways in the text of Linux's ``/proc/net/route`` and ``/proc/net/ipv6_route``."""
    found: dict[str, None] = {}
    for line in route.splitlines()[1:]:
        _interface, destination, gateway, *_ = line.split()
        if destination == "00000000" and gateway != "00000000":
            found[".".join(str(byte) for byte in reversed(bytes.fromhex(gateway)))] = None
    for line in ipv6_route.splitlines():
        destination, length, _source, _, gateway, *rest = line.split()
        if length == "00" and destination == "0" * 32 and gateway != "0" * 32:
            address = ":".join(gateway[at : at + 4] for at in range(0, 32, 4))
            found[f"{address}%{rest[-1]}" if gateway.startswith("fe80") else address] = None
    return list(found)


def family_of(host: str) -> int | None:
    """4 or 6 for an address, ``None`` for a name, which may have either."""
    if ":" in host:
        return 6
    return 4 if host.rpartition(".")[2].isdecimal() else None


def shown(reach: Reach) -> dict[str, Any]:
    """The witnesses and since when they are silent, in plain JSON types."""
    return {
        "witnesses": sorted(reach.known),
        "silent_since": reach.silent_since.isoformat() if reach.silent_since else None,
        "last_heard_at": reach.heard_at.isoformat() if reach.heard_at else None,
    }
