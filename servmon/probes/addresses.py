"""How hosts and ports are written: names in their ASCII form, addresses in their shortest one."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_network

from yarl import URL

_MAX_NAME_LENGTH = 253
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# Those that carry an IPv4 address at their end: NAT64, "compatible" and translated ones (RFC 6052, 4291, 7915).
_CARRIERS = tuple(map(ip_network, ("64:ff9b::/96", "::/96", "::ffff:0:0:0/96")))
_ZONE = re.compile(r"[A-Za-z0-9._-]{1,32}")


def parse_host(text: str) -> str:
    """A host name in its ASCII form, or an address in its shortest one. Raises ``ValueError`` with a sentence."""
    if ":" in text:
        return _parse_ipv6(text)
    name = in_ascii(text)
    labels = name.removesuffix(".").split(".")
    # Some resolvers read 127.1, 0x7f.1 and 010.0.0.1 as addresses, each in its own way: none of them is a name.
    if _NUMBER.fullmatch(labels[-1]):
        return _parse_ipv4(text)
    if len(name) > _MAX_NAME_LENGTH or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(f"{text!r} is not a host name: letters, digits, - and _ between dots, 63 at most, would be")
    return name


def is_address(host: str) -> bool:
    """Whether a host as ``parse_host`` returns it is an IP address, for which nobody need be asked."""
    return ":" in host or host.rpartition(".")[2].isdecimal()


def host_and_port(host: str, port: int) -> str:
    """A host and port as people write them, IPv6 addresses in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def in_ascii(text: str) -> str:
    """A name in small letters and ASCII, as browsers write it (UTS 46, which knows ß). Raises ``ValueError``."""
    name = text.lower()
    if name.isascii():
        return name
    try:
        return URL.build(scheme="http", host=name).raw_host or name
    except ValueError as error:
        raise ValueError(f"{text!r} is not a host name") from error


def _parse_ipv4(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except AddressValueError as error:
        raise ValueError(f"{text!r} is not an IPv4 address; four numbers up to 255, as 192.0.2.1, would be") from error


def _parse_ipv6(text: str) -> str:
    address, percent, zone = text.replace("%25", "%").partition("%")
    try:
        shortest = str(IPv6Address(address))
    except AddressValueError as error:
        raise ValueError(f"{text!r} is not an IPv6 address; 2001:db8::1 would be") from error
    if percent and not _ZONE.fullmatch(zone):
        raise ValueError(f"{zone!r} is not the name of a network interface, as eth0 would be")
    return shortest + percent + zone


def unwrapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 address carries on (mapped, 6to4, NAT64 …), else the address itself."""
    if not isinstance(address, IPv6Address):
        return address
    if any(address in network for network in _CARRIERS) and not address.is_loopback:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
