"""DNS messages: questions as they are asked, answers as they are understood. Nothing here knows a socket."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

import dns.edns
import dns.exception
import dns.flags
import dns.inet
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset
from dns.rdtypes.ANY.SOA import SOA

from servmon.errors import InvalidInputError, Problem
from servmon.probes.addresses import in_ascii
from servmon.probes.base import safe_text

# What fits unfragmented through every network (DNS flag day 2020).
_EDNS_SIZE = 1232
_CACHED_QUESTIONS = 65536
_REMEMBERED_ANSWERS, _LARGEST_REMEMBERED = 8192, 512
_SERIAL_SPACE = 1 << 32


_NOT_IN_NAMES = re.compile(r"[\s\x00-\x1f\x7f]")


class Wishes(NamedTuple):
    """What is asked for beside the records: signatures (DO), the server's judgement of them (AD), its name (NSID).

    Without ``edns`` nothing is, in the way of servers that know no EDNS (RFC 6891).
    """

    dnssec: bool = False
    authentic: bool = False
    nsid: bool = False
    edns: bool = True


NO_WISHES = Wishes()


class Question(NamedTuple):
    """What is asked: the name as text, the record type's number, and the message with an id of 0."""

    name: str
    kind: dns.rdatatype.RdataType
    wire: bytes


class Parsed(NamedTuple):
    """What an answer says: its records of the asked type with their texts in order, and the last alias on the way.

    Only records of the name that was asked for count, or of what it is an alias of; ``stranger`` is another name that
    the answer has records of. ``authoritative`` and ``authentic`` are its AA and AD flags, ``nsid`` the server's name
    for itself.
    """

    rcode: str
    records: tuple[dns.rdata.Rdata, ...]
    texts: list[str]
    alias: str | None
    stranger: str | None
    authoritative: bool
    authentic: bool
    nsid: str | None

    @property
    def serials(self) -> list[int]:
        """The serials of its SOA records."""
        return [record.serial for record in self.records if isinstance(record, SOA)]


def checked_type(value: str) -> str:
    """A record type in its usual spelling. Raises ``ValueError`` with a sentence."""
    try:
        kind = dns.rdatatype.from_text(value.strip())
    except (dns.rdatatype.UnknownRdatatype, ValueError) as error:
        raise ValueError(f"{value!r} is not a DNS record type; A, AAAA, MX or TXT would be one") from error
    if dns.rdatatype.is_metatype(kind) and kind != dns.rdatatype.ANY:
        raise ValueError(f"{value!r} is not a type of records that can be asked for; A, AAAA, MX or TXT would be one")
    return dns.rdatatype.to_text(kind)


def checked_name(value: str) -> str:
    """A name that DNS could know. Raises ``ValueError`` with a sentence."""
    if not value or _NOT_IN_NAMES.search(value):
        raise ValueError(f"{value!r} is not a DNS name: it is empty, or holds spaces")
    try:
        dns.name.from_text(in_ascii(value))
    except (dns.exception.DNSException, UnicodeError) as error:
        raise ValueError(f"{value!r} is not a DNS name: {error}") from error
    return value


def serial_reached(serial: int, wanted: int) -> bool:
    """Whether ``serial`` is ``wanted`` or later, in the circle that serial numbers go round (RFC 1982)."""
    return (serial - wanted) % _SERIAL_SPACE < _SERIAL_SPACE // 2


def says_nothing_of_edns(answer: bytes) -> bool:
    """Whether a server refuses the question in the way of those that know no EDNS (RFC 6891, 7)."""
    return answer[3] & 0x0F in {dns.rcode.FORMERR, dns.rcode.NOTIMP} and answer[10:12] == b"\0\0"


def parse_answer(wire: bytes, kind: dns.rdatatype.RdataType) -> Parsed:
    """Read an answer, given without its id. Raises ``DNSException`` or ``ValueError`` where it is malformed.

    A small one is remembered by its bytes: a healthy server says the same each time, and reading it costs more than
    asking. A stranger who says something else each time, and much of it, is not to fill the memory.
    """
    return _remembered(wire, kind) if len(wire) <= _LARGEST_REMEMBERED else _parsed(wire, kind)


def _parsed(wire: bytes, kind: dns.rdatatype.RdataType) -> Parsed:
    message = dns.message.from_wire(b"\0\0" + wire, ignore_trailing=True)
    path = _path(message)
    asked = [rrset for rrset in message.answer if kind in (rrset.rdtype, dns.rdatatype.ANY)]
    wanted = [rrset for rrset in asked if rrset.name in path and rrset.rdclass == dns.rdataclass.IN]
    records = tuple(rdata for rrset in wanted for rdata in rrset)
    # Sorted, since servers rotate their records: what did not change should not look changed.
    texts = sorted(rdata.to_text() for rdata in records)
    return Parsed(
        dns.rcode.to_text(message.rcode()),
        records,
        texts,
        path[-1].to_text() if len(path) > 1 else None,
        next((rrset.name.to_text() for rrset in asked if rrset.name not in path), None),
        authoritative=bool(message.flags & dns.flags.AA),
        authentic=bool(message.flags & dns.flags.AD),
        nsid=_nsid(message),
    )


_remembered = lru_cache(maxsize=_REMEMBERED_ANSWERS)(_parsed)


def _path(message: dns.message.Message) -> list[dns.name.Name]:
    """The name that was asked for, and those that it is an alias of in turn."""
    aliases = {rrset.name: rrset[0].target for rrset in message.answer if rrset.rdtype == dns.rdatatype.CNAME}
    path = [message.question[0].name] if message.question else []
    while path and path[-1] in aliases:
        following = aliases.pop(path[-1])
        if following in path:
            raise ValueError(f"its aliases lead in a circle: {following}")
        path.append(following)
    return path


def _nsid(message: dns.message.Message) -> str | None:
    for option in message.options:
        if isinstance(option, dns.edns.NSIDOption) and option.nsid:
            name: bytes = option.nsid
            return safe_text(name.decode(), 128) if name.isascii() else name.hex()[:128]
    return None


@lru_cache(maxsize=_CACHED_QUESTIONS)
def question_of(path: str, query_name: str | None, query_type: str | None, wishes: Wishes = NO_WISHES) -> Question:
    """The question of an endpoint: its options, else what its URL says (``/name?type=A``); type A by default.

    Raises ``InvalidInputError`` where no name is given or something in the URL is not understood.
    """
    url_name, url_type = _from_path(path)
    name, kind_text = query_name or url_name, query_type or url_type or "A"
    if not name:
        raise InvalidInputError.of(
            "query_name", "a DNS check needs a name to ask for: set query_name, or write dns://server/name?type=A"
        )
    kind = dns.rdatatype.from_text(kind_text)
    if kind == dns.rdatatype.PTR and dns.inet.is_address(name):
        name = dns.reversename.from_address(name).to_text(omit_final_dot=True)
    nsid: list[dns.edns.Option] = [dns.edns.NSIDOption(b"")] if wishes.nsid else []
    message = dns.message.make_query(
        in_ascii(name), kind, use_edns=0, payload=_EDNS_SIZE, want_dnssec=wishes.dnssec, options=nsid, id=0
    )
    if not wishes.edns:
        message.use_edns(False)
    if wishes.authentic:
        # So a server that has verified the answer says so, even where signatures are not asked for (RFC 6840, 5.7).
        message.flags |= dns.flags.AD
    return Question(name, kind, message.to_wire())


def _from_path(path: str) -> tuple[str, str | None]:
    path, _, query = path.partition("?")
    name, kind = unquote(path).strip("/"), None
    try:
        checked_name(name or ".")
        for key, value in parse_qsl(query, keep_blank_values=True):
            if key != "type":
                raise InvalidInputError.of(
                    "url", f"{key!r} means nothing here; dns://server/name?type=A would be right"
                )
            kind = checked_type(value)
    except ValueError as error:
        raise InvalidInputError.of("url", str(error)) from error
    return name, kind


@lru_cache(maxsize=_CACHED_QUESTIONS)
def wanted_records(kind: dns.rdatatype.RdataType, texts: tuple[str, ...]) -> frozenset[dns.rdata.Rdata]:
    """The expected answers as records, so that ``::1`` and ``0:0:0:0:0:0:0:1`` or the case of a name make no odds."""
    records, problems = [], []
    for number, text in enumerate(texts):
        try:
            records.append(dns.rdata.from_text(dns.rdataclass.IN, kind, text, origin=dns.name.root, relativize=False))
        except (dns.exception.DNSException, ValueError, NotImplementedError) as error:
            words = f"{text!r} cannot be an answer of type {dns.rdatatype.to_text(kind)}: {error}"
            problems.append(Problem(f"expected_answer.{number}", words))
    if problems:
        raise InvalidInputError(problems)
    return frozenset(records)
