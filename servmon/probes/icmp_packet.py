"""ICMP echo packets, written and read without a socket (RFC 792, RFC 4443)."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from servmon.probes.shared_socket import icmp_words

HEADER = struct.Struct("!BBHHH")
COOKIE_SIZE = 8
MAX_PAYLOAD = 65507 - HEADER.size

ECHO_REPLY = {4: 0, 6: 129}
ERRORS = {4: frozenset({3, 11, 12}), 6: frozenset({1, 2, 3, 4})}
PROTOCOL = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_ECHO_REQUEST = {4: 8, 6: 128}
_QUOTED_SIZE = {4: 20, 6: 40}


class Heard(NamedTuple):
    """What one ICMP packet says about an echo request.

    ``complaint`` is ``None`` in a reply; in an error it is the reason in words, ``destination`` is where the quoted
    request went, and ``cookie`` holds as much of it as was quoted.
    """

    identifier: int
    sequence: int
    cookie: bytes
    ttl: int | None = None
    destination: str | None = None
    complaint: str | None = None


def parse_reply(packet: bytes, version: int) -> Heard | None:
    """Read an echo reply, or an ICMP error about an echo request; ``None`` for everything else, garbage included.

    ``version`` is 4 or 6. An IPv4 header may stand in front (raw sockets deliver it) or not.
    """
    start, ttl = 0, None
    if version == 4 and packet and packet[0] >> 4 == 4:
        if len(packet) < 20:
            return None
        start, ttl = (packet[0] & 0x0F) * 4, packet[8]
    if len(packet) < start + HEADER.size:
        return None
    kind, code, _, identifier, sequence = HEADER.unpack_from(packet, start)
    body = start + HEADER.size
    if kind == ECHO_REPLY[version]:
        return Heard(identifier, sequence, packet[body : body + COOKIE_SIZE], ttl)
    if kind in ERRORS[version]:
        return _parse_quoted(packet[body:], version, icmp_words(version, kind, code))
    return None


def _parse_quoted(quoted: bytes, version: int, complaint: str) -> Heard | None:
    if len(quoted) < _QUOTED_SIZE[version] + HEADER.size:
        return None
    if version == 4:
        start, protocol, host = (quoted[0] & 0x0F) * 4, quoted[9], socket.inet_ntoa(quoted[16:20])
    else:
        start, protocol, host = 40, quoted[6], socket.inet_ntop(socket.AF_INET6, quoted[24:40])
    if protocol != PROTOCOL[version] or len(quoted) < start + HEADER.size:
        return None
    kind, _, _, identifier, sequence = HEADER.unpack_from(quoted, start)
    if kind != _ECHO_REQUEST[version]:
        return None
    cookie = quoted[start + HEADER.size : start + HEADER.size + COOKIE_SIZE]
    return Heard(identifier, sequence, cookie, None, host, complaint)


def echo_request(version: int, identifier: int, sequence: int, payload: bytes) -> bytes:
    """An echo request with its checksum (for IPv6 the kernel fills it in, since it covers the addresses)."""
    kind = _ECHO_REQUEST[version]
    header = HEADER.pack(kind, 0, 0, identifier, sequence)
    checksum = 0 if version == 6 else _checksum(header + payload)
    return HEADER.pack(kind, 0, checksum, identifier, sequence) + payload


def _checksum(packet: bytes) -> int:
    # A ones' complement sum of 16-bit words is the whole number modulo 2^16 - 1 (RFC 1071).
    number = int.from_bytes(packet, "big") << (8 * (len(packet) % 2))
    return 0xFFFF - number % 0xFFFF
