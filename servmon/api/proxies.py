"""Where a request really comes from: proxies that are trusted may say so, nobody else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import web

ADDRESS = web.RequestKey("address", str)
# What stands for whoever comes through the unix socket, in settings and in the audit.
UNIX = "unix"
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """Whose X-Forwarded-For and X-Forwarded-Proto are believed; of nobody, where there are none."""

    networks: tuple[Network, ...] = ()
    unix: bool = False

    @classmethod
    def of(cls, names: Iterable[str]) -> TrustedProxies:
        """Addresses, networks and ``unix``. Raises ``ValueError`` with a sentence."""
        listed = tuple(names)
        return cls(tuple(_network(name) for name in listed if name != UNIX), UNIX in listed)

    def trusts(self, address: str) -> bool:
        """Whether what comes from ``address`` may speak for others."""
        if address == UNIX:
            return self.unix
        try:
            known = ip_address(address)
        except ValueError:
            return False
        return any(known in network for network in self.networks)

    def address_of(self, request: web.Request) -> str:
        """The address of the client: the last one on its way that no trusted proxy has."""
        address = _unmapped(request.remote or UNIX)
        way = ",".join(request.headers.getall("X-Forwarded-For", ())).split(",")
        # From the right: what stands further left may be the client's own invention.
        while way and self.trusts(address):
            earlier = _read(way.pop())
            if earlier is None:
                break
            address = earlier
        return address


def is_secure(request: web.Request, proxies: TrustedProxies) -> bool:
    """Whether the client speaks https, to us or to a trusted proxy before us."""
    if proxies.trusts(_unmapped(request.remote or UNIX)):
        return request.headers.get("X-Forwarded-Proto", "").strip().lower() == "https"
    return request.secure


def _network(name: str) -> Network:
    try:
        network = ip_network(name)
    except ValueError:
        raise ValueError(f"{name!r} is no address, no network such as 10.0.0.0/8, and not {UNIX!r}") from None
    if network.prefixlen == 0:
        raise ValueError(f"{name} would let everybody say who they are; name the proxies themselves")
    return network


def _read(said: str) -> str | None:
    """The address in one entry of X-Forwarded-For, which may have a port."""
    text = said.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        ip_address(text)
    except ValueError:
        return None
    return _unmapped(text)


def _unmapped(address: str) -> str:
    """An IPv4 address as such where a socket for both families shows it as ::ffff:a.b.c.d."""
    try:
        known = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = known.ipv4_mapped if isinstance(known, IPv6Address) else None
    return str(mapped or known)
