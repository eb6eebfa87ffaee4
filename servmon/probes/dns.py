"""DNS: does this server answer this question, and rightly? Every check reaches the server, nothing is cached."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote

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
from pydantic import AfterValidator, BeforeValidator

from servmon.errors import InvalidInputError, Problem
from servmon.model import NO_PHASES, FailureKind, Phases
from servmon.probes.base import Answer, Options, ProbeFailed, Target
from servmon.probes.dns_transport import Query, Reply
from servmon.probes.network import ProbeContext
from servmon.probes.pattern import search

# What fits unfragmented through every network (DNS flag day 2020).
_EDNS_SIZE = 1232
_ANSWERS_KEPT = 20
_CACHED_QUESTIONS = 65536
_REMEMBERED_ANSWERS = 8192

_RCODE_WORDS = {
    "NXDOMAIN": "the name does not exist",
    "SERVFAIL": "the server could not find out",
    "REFUSED": "the server does not answer this question for us",
    "FORMERR": "the server could not read the question",
    "NOTIMP": "the server does not know this kind of question",
}


def _checked_type(value: str) -> str:
    try:
        kind = dns.rdatatype.from_text(value.strip())
    except (dns.rdatatype.UnknownRdatatype, ValueError) as error:
        raise ValueError(f"{value!r} is not a DNS record type; A, AAAA, MX or TXT would be one") from error
    if dns.rdatatype.is_metatype(kind) and kind != dns.rdatatype.ANY:
        raise ValueError(f"{value!r} is not a type of records that can be asked for; A, AAAA, MX or TXT would be one")
    return dns.rdatatype.to_text(kind)


def _checked_rcode(value: str) -> str:
    try:
        return dns.rcode.to_text(dns.rcode.from_text(value.strip()))
    except (dns.rcode.UnknownRcode, ValueError) as error:
        raise ValueError(f"{value!r} is not a DNS response code; NOERROR or NXDOMAIN would be one") from error


def _checked_name(value: str) -> str:
    try:
        dns.name.from_text(value)
    except (dns.exception.DNSException, UnicodeError) as error:
        raise ValueError(f"{value!r} is not a DNS name: {error}") from error
    return value


def _as_tuple(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


class DnsOptions(Options):
    """The question, and what its answer has to be."""

    query_name: Annotated[str, AfterValidator(_checked_name)] | None = None
    query_type: Annotated[str, AfterValidator(_checked_type)] | None = None
    expected_rcode: Annotated[str, AfterValidator(_checked_rcode)] = "NOERROR"
    expected_answer: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    transport: Literal["udp", "tcp"] = "udp"


class Question(NamedTuple):
    """What is asked: the name as text, the record type's number, and the message with an id of 0."""

    name: str
    kind: dns.rdatatype.RdataType
    wire: bytes


class Parsed(NamedTuple):
    """What an answer says: its records of the asked type with their texts in order, and the last alias on the way."""

    rcode: str
    records: tuple[dns.rdata.Rdata, ...]
    texts: list[str]
    alias: str | None


class DnsProbe:
    """Ask one server one question, over UDP, and over TCP where the answer was truncated."""

    protocol: ClassVar[str] = "DNS"
    default_port: ClassVar[int | None] = 53
    options: ClassVar[type[Options]] = DnsOptions
    takes_socket: ClassVar[bool] = False

    def validate(self, target: Target, options: DnsOptions) -> None:
        """Refuse, when the endpoint is loaded, what can never be asked. Raises ``InvalidInputError``."""
        question = question_of(target.path, options.query_name, options.query_type)
        if options.expected_answer and options.expected_rcode != "NOERROR":
            raise InvalidInputError.of(
                "expected_answer", f"an answer with expected_rcode {options.expected_rcode} holds no records to compare"
            )
        wanted_records(question.kind, options.expected_answer)

    async def check(self, target: Target, options: DnsOptions, context: ProbeContext) -> Answer:
        """Ask once. Raises ``ProbeFailed``: STATUS for another rcode, CONTENT or PATTERN for other answers."""
        question = question_of(target.path, options.query_name, options.query_type)
        address = await context.resolve(target.host)
        query = Query(address, target.port or 53, question.wire)
        reply = await _carry(query, options, context)
        phases = NO_PHASES if context.dns_ms is None else Phases(dns_ms=context.dns_ms)
        return await _Verdict(target, options, question, query.server, reply, phases).reach(context)


async def _carry(query: Query, options: DnsOptions, context: ProbeContext) -> Reply:
    elapsed_ms = 0.0
    if options.transport == "udp":
        context.doing = f"waiting for an answer from {query.server}"
        try:
            reply = await context.network.dns.ask(query)
        except asyncio.CancelledError:
            if not query.sent and context.attempt is not None and context.attempt.expired():
                message = f"this machine was too busy to send its question to {query.server} in time"
                raise ProbeFailed(FailureKind.LOCAL, message) from None
            if query.ignored:
                reasons = "; ".join(f"{reason}, {count} times" for reason, count in query.ignored.items())
                context.doing = f"{context.doing} (ignored: {reasons})"
            raise
        if not reply.truncated:
            return reply
        elapsed_ms = reply.elapsed_ms
    context.doing = f"asking {query.server} over TCP"
    async with context.slot(query.host):
        reply = await context.network.dns.ask_over_tcp(query)
    return reply._replace(elapsed_ms=reply.elapsed_ms + elapsed_ms)


class _Verdict:
    """One answer against what is expected of it."""

    def __init__(
        self, target: Target, options: DnsOptions, question: Question, server: str, reply: Reply, phases: Phases
    ) -> None:
        self.target = target
        self.options = options
        self.question = question
        self.server = server
        self.reply = reply
        self.phases = phases
        self.details: dict[str, Any] = {"server": server}

    async def reach(self, context: ProbeContext) -> Answer:
        """The answer, or ``ProbeFailed`` with the first expectation that is not met."""
        try:
            parsed = parse_answer(self.reply.wire[2:], self.question.kind)
        except (dns.exception.DNSException, ValueError) as error:
            raise self._failed(FailureKind.PROTOCOL, f"{self.server} sent a malformed answer: {error}") from error
        rcode = self.details["rcode"] = parsed.rcode
        if rcode != self.options.expected_rcode:
            words = _RCODE_WORDS.get(rcode)
            said = f"{rcode} ({words})" if words else rcode
            raise self._failed(
                FailureKind.STATUS,
                f"{self.server} says {said} to {self._asked}, expected {self.options.expected_rcode}",
            )
        if rcode == "NOERROR":
            self._judge_records(parsed)
        if self.target.pattern is not None:
            await self._judge_pattern(self.target.pattern, parsed.texts, context)
        return Answer(self.reply.elapsed_ms, self.phases, self.details)

    def _judge_records(self, parsed: Parsed) -> None:
        if not parsed.records:
            alias = f", only an alias to {parsed.alias}" if parsed.alias else ""
            kind = dns.rdatatype.to_text(self.question.kind)
            raise self._failed(FailureKind.CONTENT, f"NOERROR but no {kind} record for {self.question.name}{alias}")
        self.details["answers"] = parsed.texts[:_ANSWERS_KEPT]
        wanted = wanted_records(self.question.kind, self.options.expected_answer)
        if wanted and wanted.isdisjoint(parsed.records):
            expected = " or ".join(self.options.expected_answer)
            raise self._failed(FailureKind.CONTENT, f"{self._asked} is {_shown(parsed.texts)}, expected {expected}")

    async def _judge_pattern(self, pattern: re.Pattern[str], texts: Sequence[str], context: ProbeContext) -> None:
        if not await search(pattern, "\n".join(texts), context):
            shown = f"{self._asked} is {_shown(texts)}" if texts else "the answer is empty"
            raise self._failed(FailureKind.PATTERN, f"{shown}, which does not match {pattern.pattern!r}")

    @property
    def _asked(self) -> str:
        return f"{self.question.name} {dns.rdatatype.to_text(self.question.kind)}"

    def _failed(self, kind: FailureKind, message: str) -> ProbeFailed:
        return ProbeFailed(kind, message, response_ms=self.reply.elapsed_ms, phases=self.phases, details=self.details)


def _shown(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
    return ", ".join(texts[:3]) + more


@lru_cache(maxsize=_REMEMBERED_ANSWERS)
def parse_answer(wire: bytes, kind: dns.rdatatype.RdataType) -> Parsed:
    """Read an answer, given without its id. Raises ``DNSException`` or ``ValueError`` where it is malformed.

    Remembered by its bytes: a healthy server says the same each time, and reading it costs more than asking.
    """
    message = dns.message.from_wire(b"\0\0" + wire, ignore_trailing=True)
    wanted = [rrset for rrset in message.answer if kind in (rrset.rdtype, dns.rdatatype.ANY)]
    records = tuple(rdata for rrset in wanted for rdata in rrset)
    aliases = [rrset[0].to_text() for rrset in message.answer if rrset.rdtype == dns.rdatatype.CNAME]
    # Sorted, since servers rotate their records: what did not change should not look changed.
    texts = sorted(rdata.to_text() for rdata in records)
    return Parsed(dns.rcode.to_text(message.rcode()), records, texts, aliases[-1] if aliases else None)


@lru_cache(maxsize=_CACHED_QUESTIONS)
def question_of(path: str, query_name: str | None, query_type: str | None) -> Question:
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
    message = dns.message.make_query(name, kind, use_edns=0, payload=_EDNS_SIZE, id=0)
    return Question(name, kind, message.to_wire())


def _from_path(path: str) -> tuple[str, str | None]:
    path, _, query = path.partition("?")
    name, kind = unquote(path).strip("/"), None
    try:
        _checked_name(name or ".")
        for key, value in parse_qsl(query, keep_blank_values=True):
            if key != "type":
                raise InvalidInputError.of(
                    "url", f"{key!r} means nothing here; dns://server/name?type=A would be right"
                )
            kind = _checked_type(value)
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
