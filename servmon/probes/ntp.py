"""A question to a time server, and what its answer says of its clock (RFC 5905)."""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from servmon.probes.base import safe_text

# Leap and version and mode, stratum, poll, precision, root delay and dispersion, reference id, four timestamps.
_PACKET = struct.Struct("!BBbbII4sQQQQ")
_CLIENT = 0b00_100_011
_SERVER_MODE = 4
_UNSYNCHRONISED = 3
_LARGEST_STRATUM = 15
_ERA_SECONDS = 1 << 32
# Seconds from 1900, where NTP begins to count, to 1970.
_UNIX_EPOCH = 2_208_988_800


class TimeAnswer(NamedTuple):
    """A server's clock: ``offset_ms`` is by how much it is ahead of ours, ``stratum`` how far it is from a source.

    ``is_told`` is whether it says a time at all.
    """

    stratum: int
    leap: int
    offset_ms: float
    reference: str
    is_told: bool

    @property
    def complaint(self) -> str | None:
        """Why its time must not be trusted, in words; ``None`` where it may."""
        if self.stratum == 0:
            return f"it wants to be left alone (kiss code {self.reference or 'none'})"
        if self.stratum > _LARGEST_STRATUM or self.leap == _UNSYNCHRONISED:
            return "its clock is not synchronised"
        if not self.is_told:
            return "it does not tell the time: a timestamp of its answer is zero"
        return None


class TimeQuestion:
    """One request. Its transmit timestamp is random, and only an answer that repeats it answers it (RFC 9523)."""

    __slots__ = ("_cookie", "wire")

    def __init__(self) -> None:
        self._cookie = int.from_bytes(os.urandom(8), "big") | 1
        self.wire = _PACKET.pack(_CLIENT, 0, 0, 0, 0, 0, b"", 0, 0, 0, self._cookie)

    def is_answered_by(self, datagram: bytes) -> bool:
        """Whether ``datagram`` is a server's answer to this very question."""
        if len(datagram) < _PACKET.size or datagram[0] & 0b111 != _SERVER_MODE:
            return False
        return int.from_bytes(datagram[24:32], "big") == self._cookie

    def read(self, datagram: bytes, sent_wall: float, elapsed_ms: float) -> TimeAnswer:
        """What an answer says; ``sent_wall`` is our wall clock when asking, in seconds."""
        first, stratum, *_, reference, _, _, received, transmitted = _PACKET.unpack_from(datagram)
        arrived_wall = sent_wall + elapsed_ms / 1000
        ahead = (_seconds_apart(received, sent_wall) + _seconds_apart(transmitted, arrived_wall)) / 2
        is_told = bool(received and transmitted)
        return TimeAnswer(stratum, first >> 6, ahead * 1000, safe_text(_reference_text(reference, stratum)), is_told)


def _seconds_apart(timestamp: int, wall: float) -> float:
    """By how much an NTP timestamp is ahead of a wall time, whatever the era (the first one ends in 2036)."""
    apart = (timestamp / _ERA_SECONDS - _UNIX_EPOCH - wall) % _ERA_SECONDS
    return apart - _ERA_SECONDS if apart >= _ERA_SECONDS / 2 else apart


def _reference_text(reference: bytes, stratum: int) -> str:
    if stratum > 1:
        return ".".join(map(str, reference))
    return reference.rstrip(b"\0 ").decode("ascii", "backslashreplace")
