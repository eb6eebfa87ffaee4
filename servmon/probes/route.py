"""Which way a question goes: IP version, our own address, network interface and traffic class, for all that connect."""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from functools import cached_property
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field

from servmon.errors import InvalidInputError
from servmon.probes.addresses import is_address, parse_host
from servmon.probes.base import Options, Target

# Linux numbers that Python's socket module does not name everywhere (socket(7), ip(7), ipv6(7)).
# Other systems refuse them, which is told as our own failure.
_SO_BINDTODEVICE = 25
_IP_PKTINFO, _IP_TOS = 8, 1
_IPV6_PKTINFO, _IPV6_TCLASS = 50, 67
_INT = struct.Struct("@i")
_PKTINFO = {4: struct.Struct("@i4s4s"), 6: struct.Struct("@16si")}

Ancillary = tuple[tuple[int, int, bytes], ...]


class Route(NamedTuple):
    """The way to an address; ``ip_version`` 0 and ``None`` leave it to the system."""

    ip_version: int = 0
    source_address: str | None = None
    interface: str | None = None
    dscp: int | None = None

    def prepare(self, sock: socket.socket) -> None:
        """Have ``sock``, which is not connected yet, go this way. Raises ``OSError``, which is our fault alone."""
        if self.interface is not None:
            sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, self.interface.encode() + b"\0")
        if self.dscp is not None:
            option = (
                (socket.IPPROTO_IP, _IP_TOS) if sock.family == socket.AF_INET else (socket.IPPROTO_IPV6, _IPV6_TCLASS)
            )
            sock.setsockopt(*option, self.dscp << 2)
        if self.source_address is not None:
            sock.bind((self.source_address, 0))

    def ancillary(self, version: int) -> Ancillary:
        """The same for one datagram of a socket that others use too. Raises ``OSError`` for an unknown interface."""
        told = []
        if self.source_address is not None or self.interface is not None:
            index = 0 if self.interface is None else socket.if_nametoindex(self.interface)
            source = ipaddress.ip_address(self.source_address).packed if self.source_address else None
            if version == 4:
                told.append((socket.IPPROTO_IP, _IP_PKTINFO, _PKTINFO[4].pack(index, source or b"", b"")))
            else:
                told.append((socket.IPPROTO_IPV6, _IPV6_PKTINFO, _PKTINFO[6].pack(source or b"", index)))
        if self.dscp is not None:
            option = (socket.IPPROTO_IP, _IP_TOS) if version == 4 else (socket.IPPROTO_IPV6, _IPV6_TCLASS)
            told.append((*option, _INT.pack(self.dscp << 2)))
        return tuple(told)


ANY_ROUTE = Route()


def why_not_sent(error: OSError, source: str | None) -> OSError:
    """``error``, or that this machine cannot send from ``source``, if that is why.

    A socket that all share is told of it only with each packet, and then says no more than "unreachable".
    """
    if source is None:
        return error
    with socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((source, 0))
        except OSError as reason:
            return reason.with_traceback(None)  # it leads to who asks, and who asks holds the reason
    return error


def _checked_source(value: str) -> str:
    address = parse_host(value)
    if not is_address(address) or "%" in address:
        raise ValueError(f"{value!r} is not an IP address of this machine; 192.0.2.7 would be one")
    return address


# As Linux takes them, which counts bytes.
_INTERFACE = re.compile(r"(?!\.{1,2}$)[!-.0-9;-~]{1,15}")


def _checked_interface(value: str) -> str:
    if not _INTERFACE.fullmatch(value):
        raise ValueError(f"{value[:40]!r} cannot be the name of a network interface; eth0 would be one")
    return value


class ConnectingOptions(Options):
    """What every probe that goes over the network can be told.

    ``addresses`` says whether one address of a name is asked, or all of them and each has to answer.
    """

    ip_version: Literal[4, 6, "any"] = "any"
    addresses: Literal["one", "all"] = "one"
    source_address: Annotated[str, AfterValidator(_checked_source)] | None = None
    interface: Annotated[str, AfterValidator(_checked_interface)] | None = None
    dscp: int | None = Field(None, ge=0, le=63)

    @cached_property
    def route(self) -> Route:
        """The same as a way to go."""
        version: int = 0 if self.ip_version == "any" else self.ip_version
        if self.source_address is not None:
            version = _version_of(self.source_address)
        found = Route(version, self.source_address, self.interface, self.dscp)
        # The same object, so that who connects sees at a glance that there is nothing to do.
        return ANY_ROUTE if found == ANY_ROUTE else found


def check_route(target: Target, options: ConnectingOptions) -> None:
    """Refuse ways that can never lead to ``target``. Raises ``InvalidInputError``."""
    if options.source_address is not None and options.ip_version not in {"any", _version_of(options.source_address)}:
        raise InvalidInputError.of("source_address", f"is no IPv{options.ip_version} address, as ip_version wants")
    if not is_address(target.host):
        return
    _check_address(target.host, options.interface)
    version = _version_of(target.host)
    if options.ip_version not in {"any", version}:
        raise InvalidInputError.of("ip_version", f"is {options.ip_version}, but {target.host} is IPv{version}")
    if options.source_address is not None and _version_of(options.source_address) != version:
        raise InvalidInputError.of("source_address", f"cannot reach {target.host}, which is IPv{version}")
    if options.addresses == "all":
        raise InvalidInputError.of("addresses", f"means nothing to {target.host}, which is one; names have several")


def _check_address(host: str, interface: str | None) -> None:
    address = ipaddress.ip_address(host)
    if address.is_multicast or host == "255.255.255.255":
        raise InvalidInputError.of("url", f"{host} is the address of a group, and one host alone can be asked")
    if address.version == 6 and address.is_link_local and "%" not in host and interface is None:
        sentence = f'{host} says not on which link; {host}%eth0 would, or interface = "eth0"'
        raise InvalidInputError.of("url", sentence)


def _version_of(address: str) -> int:
    return 6 if ":" in address else 4
