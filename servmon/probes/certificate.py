"""What a server's certificate says of itself, read from its DER bytes (X.509, RFC 5280), verified or not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from ipaddress import ip_address
from typing import Any, NamedTuple

from servmon.clock import rfc3339
from servmon.probes.base import safe_text

_SECONDS_A_DAY = 86_400
_NAMES = {b"\x55\x04\x03": "CN", b"\x55\x04\x0a": "O"}
_VERSION, _EXTENSIONS, _UTC_TIME, _BMP_STRING = 0xA0, 0xA3, 0x17, 0x1E
_SUBJECT_ALTERNATIVE_NAME, _DNS_NAME, _ADDRESS = b"\x55\x1d\x11", 0x82, 0x87
_MOST_REMEMBERED = 20_000

Part = tuple[int, int, int]


class Certificate(NamedTuple):
    """Whose a certificate is, who vouches for it, and from when until when."""

    subject: str
    issuer: str
    not_before: datetime
    not_after: datetime

    def facts(self, wall: float) -> dict[str, Any]:
        """The same for a result's details, with the whole days that were left at ``wall`` (negative: expired)."""
        left = self.not_after.timestamp() - wall
        return {
            "subject": self.subject,
            "issuer": self.issuer,
            "not_after": rfc3339(self.not_after),
            "days_left": int(left // _SECONDS_A_DAY),
        }


_read: dict[bytes, Certificate | None] = {}


def read_certificate(der: bytes) -> Certificate | None:
    """What ``der`` says, ``None`` where that cannot be made out."""
    # Remembered by its digest: a stranger who shows another large one each time is not to fill the memory.
    digest = sha256(der).digest()
    if digest not in _read:
        if len(_read) >= _MOST_REMEMBERED:
            _read.clear()
        _read[digest] = _parsed(der)
    return _read[digest]


def names_of(der: bytes) -> list[str]:
    """The names and addresses that a certificate is for (RFC 5280, 4.2.1.6); none where that cannot be made out."""
    try:
        for tag, start, end in _fields(der):
            if tag == _EXTENSIONS:
                return list(_alternative_names(der, start, end))
    except (IndexError, ValueError, StopIteration):
        pass
    return []


def _alternative_names(der: bytes, start: int, end: int) -> Iterator[str]:
    _, start, end = next(_parts(der, start, end))
    for _, *extension in _parts(der, start, end):
        kind, *_, value = _parts(der, *extension)
        if der[kind[1] : kind[2]] != _SUBJECT_ALTERNATIVE_NAME:
            continue
        _, *names = next(_parts(der, *value[1:]))
        for tag, first, last in _parts(der, *names):
            if tag == _DNS_NAME:
                yield safe_text(der[first:last].decode("ascii", "replace"), 100)
            elif tag == _ADDRESS:
                yield str(ip_address(der[first:last]))


def _parsed(der: bytes) -> Certificate | None:
    try:
        fields = _fields(der)
        first = 1 if fields[0][0] == _VERSION else 0
        _, _, issuer, validity, subject = fields[first : first + 5]
        begins, ends = _parts(der, *validity[1:])
        return Certificate(_name(der, subject), _name(der, issuer), _time(der, begins), _time(der, ends))
    except (IndexError, ValueError, StopIteration):
        return None


def _fields(der: bytes) -> list[Part]:
    _, start, end = next(_parts(der, 0, len(der)))
    _, start, end = next(_parts(der, start, end))
    return list(_parts(der, start, end))


def _parts(der: bytes, start: int, end: int) -> Iterator[Part]:
    """The values that stand between ``start`` and ``end``: tag, first and last offset of each."""
    while start < end:
        tag, length, start = der[start], der[start + 1], start + 2
        if length & 0x80:
            count = length & 0x7F
            length, start = int.from_bytes(der[start : start + count], "big"), start + count
        if start + length > end:
            raise ValueError("longer than what it stands in")
        yield tag, start, start + length
        start += length


def _name(der: bytes, part: Part) -> str:
    found = []
    for _, set_start, set_end in _parts(der, *part[1:]):
        for _, start, end in _parts(der, set_start, set_end):
            kind, value = _parts(der, start, end)
            if words := _NAMES.get(der[kind[1] : kind[2]]):
                encoding = "utf-16-be" if value[0] == _BMP_STRING else "utf-8"
                found.append(f"{words}={der[value[1] : value[2]].decode(encoding, 'replace')}")
    return safe_text(", ".join(found), 200)


def _time(der: bytes, part: Part) -> datetime:
    text = der[part[1] : part[2]].decode("ascii")
    if part[0] == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
