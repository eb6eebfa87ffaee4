"""Where a message may go: to public addresses, and to the networks that the settings name.

A name may lead anywhere and change its mind; what counts is the address that is connected to.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Annotated

from pydantic import AfterValidator

from servmon.alerts.settings import ChannelSection
from servmon.probes.addresses import unwrapped

# Not public either, though older Pythons take them for it: NAT64 of one's own (RFC 8215), site-local ones, IANA's own.
_NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("64:ff9b:1::/48", "fec0::/10", "192.0.0.0/24")))


def _checked_network(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError:
        raise ValueError(f"must be a network such as 10.0.0.0/8, not {value!r}") from None
    return value


Networks = tuple[Annotated[str, AfterValidator(_checked_network)], ...]


class Reach:
    """The addresses that may be reached: public ones, and those in ``networks``."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._allowed = [ipaddress.ip_network(network) for network in networks]

    def allows(self, address: str) -> bool:
        """Whether a message may go to ``address``; to what is no address at all it may not."""
        try:
            found = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        inner = unwrapped(found)
        if any(one in network for network in self._allowed for one in (found, inner) if one.version == network.version):
            return True
        odd = any(one in network for network in _NOT_PUBLIC for one in (found, inner) if one.version == network.version)
        return inner.is_global and not inner.is_multicast and not odd

    def check(self, address: str) -> None:
        """Raises ``OSError`` that says what to do where a message may not go to ``address``."""
        if not self.allows(address):
            raise OSError(None, f"{address} is not a public address; name its network in allow_networks if meant")


def refused_servers(settings: ChannelSection) -> Iterator[str]:
    """What is wrong with each server of a channel that no message may go to, as far as its name alone tells."""
    networks: Iterable[str] | None = getattr(settings, "allow_networks", None)
    if networks is not None:
        for server in sorted(settings.servers):
            yield from refusal(server, _literally(server), Reach(networks))


def refusal(server: str, addresses: Iterable[str], reach: Reach) -> Iterator[str]:
    """That none of the ``addresses`` of a server may be reached, and what would allow it; nothing where one may."""
    found = [*dict.fromkeys(addresses)]
    if not found or any(map(reach.allows, found)):
        return
    meant = ", ".join(f'"{ipaddress.ip_network(address.partition("%")[0])}"' for address in found)
    leads = server if found == [server] else f"{server} ({', '.join(found)})"
    yield f"{leads} is not a public address, so every message is refused; allow_networks = [{meant}] allows it if meant"


def _literally(server: str) -> list[str]:
    """The addresses that a server's name says itself."""
    name = server.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return ["127.0.0.1", "::1"]
    with suppress(ValueError):
        ipaddress.ip_address(server.partition("%")[0])
        return [server]
    return []
