"""DNS: does this server answer this question, and rightly? Every check reaches the server, nothing is cached."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

import dns.exception
import dns.rcode
import dns.rdatatype
from pydantic import AfterValidator, BeforeValidator, Field

from servmon.errors import InvalidInputError
from servmon.model import NO_PHASES, FailureKind, Phases
from servmon.probes.addresses import host_and_port
from servmon.probes.base import Answer, Options, ProbeFailed, Target, safe_text
from servmon.probes.dns_message import (
    Parsed,
    Question,
    Wishes,
    checked_name,
    checked_type,
    parse_answer,
    question_of,
    says_nothing_of_edns,
    serial_reached,
    wanted_records,
)
from servmon.probes.dns_transport import Query, Reply
from servmon.probes.network import ProbeContext
from servmon.probes.pattern import search
from servmon.probes.route import check_route
from servmon.probes.tls import TLS_OPTIONS, TlsOptions, check_tls, server_name, tls_context

_ANSWERS_KEPT = 20
_READ_AT_ONCE = 4096
_PLAIN_PORT, _TLS_PORT = 53, 853

_RCODE_WORDS = {
    "NXDOMAIN": "the name does not exist",
    "SERVFAIL": "the server could not find out",
    "REFUSED": "the server does not answer this question for us",
    "FORMERR": "the server could not read the question",
    "NOTIMP": "the server does not know this kind of question",
}


def _checked_rcode(value: str) -> str:
    try:
        return dns.rcode.to_text(dns.rcode.from_text(value.strip()))
    except (dns.rcode.UnknownRcode, ValueError) as error:
        raise ValueError(f"{value!r} is not a DNS response code; NOERROR or NXDOMAIN would be one") from error


def _as_tuple(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


class DnsOptions(TlsOptions):
    """The question, and what its answer has to be.

    ``answer_match`` says how ``expected_answer`` is meant: any of them, all of them, or only them and all of them.
    """

    query_name: Annotated[str, AfterValidator(checked_name)] | None = None
    query_type: Annotated[str, AfterValidator(checked_type)] | None = None
    expected_rcode: Annotated[str, AfterValidator(_checked_rcode)] = "NOERROR"
    expected_answer: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    answer_match: Literal["any", "all", "exact"] = "any"
    min_answers: int = Field(1, ge=0, le=1000)
    max_answers: int | None = Field(None, ge=0, le=1000)
    min_serial: int | None = Field(None, ge=0, le=0xFFFFFFFF)
    authoritative: bool = False
    authenticated: bool = False
    dnssec: bool = False
    nsid: bool = False
    transport: Literal["udp", "tcp", "tls"] = "udp"


_OF_RECORDS = ("expected_answer", "min_answers", "max_answers", "min_serial")


class DnsProbe:
    """Ask one server one question, over UDP, and over TCP where the answer was truncated."""

    protocol: ClassVar[str] = "DNS"
    default_port: ClassVar[int | None] = 53
    options: ClassVar[type[Options]] = DnsOptions
    takes_socket: ClassVar[bool] = False

    def validate(self, target: Target, options: DnsOptions) -> None:
        """Refuse, when the endpoint is loaded, what can never be asked. Raises ``InvalidInputError``."""
        question = _question(target, options)
        given = options.model_fields_set
        if options.expected_rcode != "NOERROR" and (others := [name for name in _OF_RECORDS if name in given]):
            raise InvalidInputError.of(
                others[0], f"an answer with expected_rcode {options.expected_rcode} holds no records to compare"
            )
        if "answer_match" in given and not options.expected_answer:
            raise InvalidInputError.of("answer_match", "means nothing without expected_answer")
        if options.max_answers is not None and options.max_answers < options.min_answers:
            raise InvalidInputError.of("max_answers", f"is less than min_answers, which is {options.min_answers}")
        if options.min_serial is not None and question.kind != dns.rdatatype.SOA:
            raise InvalidInputError.of("min_serial", 'only SOA records have serials; add query_type = "SOA"')
        if options.transport != "tls" and (others := [name for name in TLS_OPTIONS if name in given]):
            raise InvalidInputError.of(others[0], 'means nothing without transport = "tls"')
        _check_counts(len(wanted_records(question.kind, options.expected_answer)), options)
        check_route(target, options)
        check_tls(options)

    async def check(self, target: Target, options: DnsOptions, context: ProbeContext) -> Answer:
        """Ask once. Raises ``ProbeFailed``: STATUS for another rcode, CONTENT or PATTERN for other answers."""
        question = _question(target, options)
        address = await context.resolve(target.host)
        query, reply = await _ask(question, address, target, options, context)
        if says_nothing_of_edns(reply.wire) and _may_do_without_edns(options):
            plain = _question(target, options, edns=False)
            query, second = await _ask(plain, address, target, options, context)
            reply = second._replace(elapsed_ms=reply.elapsed_ms + second.elapsed_ms)
        phases = _phases(reply, context)
        return await _Verdict(target, options, question, query.server, reply, phases).reach(context)


def _check_counts(wanted: int, options: DnsOptions) -> None:
    """Refuse numbers of answers that contradict the answers that are wanted. Raises ``InvalidInputError``."""
    least = 0 if not wanted else 1 if options.answer_match == "any" else wanted
    if options.max_answers is not None and options.max_answers < least:
        raise InvalidInputError.of("max_answers", f"is {options.max_answers}, but expected_answer needs {least}")
    if wanted and options.answer_match == "exact" and options.min_answers > wanted:
        raise InvalidInputError.of("min_answers", f"is {options.min_answers}, but expected_answer are all there may be")


async def _ask(
    question: Question, address: str, target: Target, options: DnsOptions, context: ProbeContext
) -> tuple[Query, Reply]:
    port = _port(target, options)
    context.doing = f"asking {host_and_port(address, port)}"
    query = Query(address, port, question.wire, context.route)
    if options.transport == "tls":
        return query, await _carry_over_tls(query, target, options, context)
    return query, await _carry(query, options, context)


def _may_do_without_edns(options: DnsOptions) -> bool:
    """Whether nothing is asked for that only EDNS can carry, nor a refusal of it what is wanted."""
    return not (options.dnssec or options.nsid or options.expected_rcode in {"FORMERR", "NOTIMP"})


def _question(target: Target, options: DnsOptions, *, edns: bool = True) -> Question:
    wishes = _wishes(dnssec=options.dnssec, authentic=options.authenticated, nsid=options.nsid, edns=edns)
    return question_of(target.path, options.query_name, options.query_type, wishes)


@lru_cache
def _wishes(*, dnssec: bool, authentic: bool, nsid: bool, edns: bool) -> Wishes:
    return Wishes(dnssec, authentic, nsid, edns)


def _phases(reply: Reply, context: ProbeContext) -> Phases:
    if context.dns_ms is None and reply.connect_ms is None:
        return NO_PHASES
    return Phases(dns_ms=context.dns_ms, connect_ms=reply.connect_ms, tls_ms=reply.tls_ms)


def _port(target: Target, options: DnsOptions) -> int:
    # Nobody serves TLS on port 53: where it is asked for and the url names no port, 853 is meant (RFC 7858).
    if options.transport == "tls" and target.port in {None, _PLAIN_PORT}:
        return _TLS_PORT
    return target.port or _PLAIN_PORT


async def _carry_over_tls(query: Query, target: Target, options: DnsOptions, context: ProbeContext) -> Reply:
    context.doing = f"asking {query.server} over TLS"
    tls, name = tls_context(options.tls_settings, "dot"), server_name(options, target.host)
    async with context.slot(query.host):
        return await context.network.dns.ask_over_tcp(query, context.route, tls=tls, name=name)


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
        context.doing = f"asking {query.server} over TCP, as its answer over UDP was cut short"
    else:
        context.doing = f"asking {query.server} over TCP"
    async with context.slot(query.host):
        reply = await context.network.dns.ask_over_tcp(query, context.route)
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
            parsed = await _parsed(self.reply.wire[2:], self.question.kind)
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
        if parsed.nsid is not None:
            self.details["nsid"] = parsed.nsid
        self._judge_flags(parsed)
        if rcode == "NOERROR":
            self._judge_records(parsed)
        if self.target.pattern is not None:
            await self._judge_pattern(self.target.pattern, parsed.texts, context)
        return Answer(self.reply.elapsed_ms, self.phases, self.details)

    def _judge_flags(self, parsed: Parsed) -> None:
        if self.options.authoritative and not parsed.authoritative:
            words = f"{self.server} answers {self._asked} without authority (AA is not set): it does not serve the zone"
            raise self._failed(FailureKind.CONTENT, words)
        if self.options.authenticated and not parsed.authentic:
            words = f"{self.server} does not vouch for {self._asked} (AD is not set): DNSSEC did not verify it"
            raise self._failed(FailureKind.CONTENT, words)

    def _judge_records(self, parsed: Parsed) -> None:
        if not parsed.records and self.options.min_answers > 0:
            but = f", only an alias to {parsed.alias}" if parsed.alias else ""
            but += f", only of {safe_text(parsed.stranger)}, for which nobody asked" if parsed.stranger else ""
            kind = dns.rdatatype.to_text(self.question.kind)
            raise self._failed(FailureKind.CONTENT, f"NOERROR but no {kind} record for {self.question.name}{but}")
        self.details["answers"] = parsed.texts[:_ANSWERS_KEPT]
        wrong = self._wrong_count(parsed) or self._wrong_serial(parsed) or self._wrong_records(parsed)
        if wrong is not None:
            raise self._failed(FailureKind.CONTENT, wrong)

    def _wrong_count(self, parsed: Parsed) -> str | None:
        count, least, most = len(parsed.records), self.options.min_answers, self.options.max_answers
        if count >= least and (most is None or count <= most):
            return None
        expected = f"at least {least}" if count < least else f"at most {most}"
        return f"{self._asked} has {count} record{'' if count == 1 else 's'}, expected {expected}"

    def _wrong_serial(self, parsed: Parsed) -> str | None:
        least = self.options.min_serial
        late = [serial for serial in parsed.serials if least is not None and not serial_reached(serial, least)]
        return f"{self.question.name} has the serial {late[0]}, expected {least} or later" if late else None

    def _wrong_records(self, parsed: Parsed) -> str | None:
        wanted = wanted_records(self.question.kind, self.options.expected_answer)
        if not wanted or _matches(wanted, frozenset(parsed.records), self.options.answer_match):
            return None
        between = " or " if self.options.answer_match == "any" else " and "
        only = "only " if self.options.answer_match == "exact" else ""
        expected = only + between.join(self.options.expected_answer)
        return f"{self._asked} is {_shown(parsed.texts)}, expected {expected}"

    async def _judge_pattern(self, pattern: re.Pattern[str], texts: Sequence[str], context: ProbeContext) -> None:
        if not await search(pattern, "\n".join(texts), context):
            shown = f"{self._asked} is {_shown(texts)}" if texts else "the answer is empty"
            raise self._failed(FailureKind.PATTERN, f"{shown}, which does not match {pattern.pattern!r}")

    @property
    def _asked(self) -> str:
        return f"{self.question.name} {dns.rdatatype.to_text(self.question.kind)}"

    def _failed(self, kind: FailureKind, message: str) -> ProbeFailed:
        return ProbeFailed(kind, message, response_ms=self.reply.elapsed_ms, phases=self.phases, details=self.details)


async def _parsed(wire: bytes, kind: dns.rdatatype.RdataType) -> Parsed:
    """What an answer says. Thousands of records take a tenth of a second, for which no other check is to wait."""
    if len(wire) <= _READ_AT_ONCE:
        return parse_answer(wire, kind)
    return await asyncio.to_thread(parse_answer, wire, kind)


def _matches(wanted: frozenset[Any], found: frozenset[Any], how: str) -> bool:
    if how == "any":
        return not wanted.isdisjoint(found)
    return wanted == found if how == "exact" else wanted <= found


def _shown(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
    return ", ".join(texts[:3]) + more
