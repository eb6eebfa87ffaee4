"""The way of one HTTP attempt: from the endpoint's URL over its redirects to an answer, and whether that is good."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from servmon.model import FailureKind, Phases
from servmon.probes.base import Answer, GiveUp, ProbeFailed, Target, failure_from, safe_text, until_told
from servmon.probes.http_answer import HttpAnswer, Wanted, is_in
from servmon.probes.http_client import Encryption, Exchange, Place, Request
from servmon.probes.http_cookies import Cookies
from servmon.probes.http_options import HttpOptions, ranges_of
from servmon.probes.http_redirect import REDIRECTS, check_way, followed, locations_of, redirected, shown
from servmon.probes.json_path import NotThereError, is_same, parse_json, value_at
from servmon.probes.network import ProbeContext
from servmon.probes.pattern import compiled, search
from servmon.probes.tls import certificate_facts, server_name, tls_context

_SUCCESS = "200-299"


class Journey:
    """One attempt, from the endpoint's URL over its redirects to an answer."""

    __slots__ = ("_accepted", "_cookies", "context", "details", "options", "target", "travelled", "wanted")

    def __init__(self, target: Target, options: HttpOptions, context: ProbeContext) -> None:
        self.target = target
        self.options = options
        self.context = context
        self.details: dict[str, Any] = {}
        self.travelled: list[Exchange] = []
        self._cookies: Cookies | None = None
        code = target.expected_status_code
        self._accepted = options.expected_status or _SUCCESS if code is None else str(code)
        self.wanted = Wanted(
            ranges_of(self._accepted),
            target.pattern is not None or options.reads_text,
            options.answer_limit,
            options.method == "HEAD",
        )

    def first(self) -> Exchange:
        """The exchange that the endpoint itself names. Raises ``ProbeFailed`` (LOCAL)."""
        target, options = self.target, self.options
        self.context.so_far = self._phases
        try:
            fields = options.fields
        except OSError as error:
            raise failure_from(error, "reading the secret of its options") from None
        except ValueError as error:
            raise ProbeFailed(FailureKind.LOCAL, f"its secret cannot be used: {error}") from None
        place = Place(target.url.startswith("https:"), target.host, target.port or 0, target.path)
        return Exchange(place, Request(options.method, fields, options.encoded_body, options.has_host))

    async def follow(self, exchange: Exchange | None) -> Answer:
        """Make this exchange and those it leads to; ``None`` is the way's end."""
        while exchange is not None:
            exchange.address = await self.context.resolve(exchange.place.host)
            if self.travelled:
                self._check_way(exchange)
            async with self.context.slot(exchange.address):
                failure = await until_told(partial(self.begin, exchange))
            self.note(exchange, failure)
            exchange = await self.judge(exchange)
        return self.settle()

    def begin(self, exchange: Exchange, told: Callable[[ProbeFailed | None], None]) -> GiveUp:
        """Begin one exchange. Raises ``ProbeFailed``."""
        self.travelled.append(exchange)
        self.details["address"] = exchange.address
        encryption = None
        if exchange.place.secure:
            name = exchange.place.host.rstrip(".").partition("%")[0]
            if len(self.travelled) == 1:
                name = server_name(self.options, self.target.host)
            settings = self.options.tls_settings
            if exchange.request.is_for_others:
                settings = settings._replace(certificate_file=None, key_file=None)
            encryption = Encryption(tls_context(settings), name)
        try:
            return exchange.begin(self.wanted, encryption, self.context, told)
        except ProbeFailed as failed:
            self.note(exchange, failed)
            raise

    def note(self, exchange: Exchange, failure: ProbeFailed | None) -> None:
        """Note whom with and how an exchange went that is over. Raises its ``failure``."""
        if exchange.certificate is not None:
            self.details |= certificate_facts(exchange.certificate)
        if failure is not None:
            if exchange.connect_ms is not None:
                failure.phases = self._phases()
            failure.details = self.details
            raise failure
        self.details["status_code"] = exchange.answer.status

    def takes_more(self, answer: HttpAnswer) -> bool:
        """Whether this answer is to be judged by more than its status, or leads on."""
        if self._is_expected(answer):
            return self.wanted.keep or bool(self.options.expected_headers)
        return self._leads_on(answer)

    async def judge(self, exchange: Exchange) -> Exchange | None:
        """The next exchange, where the answer leads on. Raises ``ProbeFailed`` where its head or text is wrong."""
        answer = exchange.answer
        if self._is_expected(answer):
            if self.options.expected_headers:
                await self._judge_head(answer)
            if self.wanted.keep:
                await self._judge_text(answer)
        elif self._leads_on(answer):
            return self._redirected(answer, locations_of(answer), exchange)
        return None

    def _is_expected(self, answer: HttpAnswer) -> bool:
        return is_in(answer.status, self.wanted.statuses)

    def _leads_on(self, answer: HttpAnswer) -> bool:
        return answer.status in REDIRECTS and bool(self.options.follow_redirects) and bool(locations_of(answer))

    def settle(self) -> Answer:
        """What the whole way showed, at its end. Raises ``ProbeFailed`` (STATUS)."""
        answer = self.travelled[-1].answer
        if not self._is_expected(answer):
            reason = safe_text(answer.reason.decode("utf-8", "replace"), 60)
            message = f"expected {self._accepted}, got {answer.status}{f' {reason}' if reason else ''}"
            raise self._failed(FailureKind.STATUS, message)
        self.context.so_far = None  # it holds us, as we hold it
        return Answer(self._response_ms(), self._phases(), self.details)

    async def _judge_head(self, answer: HttpAnswer) -> None:
        for name, wanted in self.options.expected_headers.items():
            value = answer.header(name.lower().encode())
            if value is None:
                raise self._failed(FailureKind.CONTENT, f"the answer has no header {name}, expected {wanted!r}")
            if not await search(compiled(wanted), value, self.context):
                shown = safe_text(repr(value), 100)
                raise self._failed(FailureKind.CONTENT, f"the header {name} is {shown}, expected {wanted!r}")

    async def _judge_text(self, answer: HttpAnswer) -> None:
        text = answer.body.text(answer.header(b"content-type")) if answer.body is not None else ""
        pattern, forbidden = self.target.pattern, self.options.forbidden_response_pattern
        if pattern is not None and not await search(pattern, text, self.context):
            raise self._failed(FailureKind.PATTERN, f"the answer does not match {pattern.pattern!r}")
        if forbidden is not None and await search(compiled(forbidden), text, self.context):
            raise self._failed(FailureKind.PATTERN, f"the answer matches {forbidden!r}, which it must not")
        if self.options.expected_json:
            self._judge_json(text)

    def _judge_json(self, text: str) -> None:
        try:
            document = parse_json(text)
            for path, expected in self.options.expected_json.items():
                found = value_at(document, self.options.json_paths[path], path)
                if not is_same(found, expected):
                    shown = safe_text(repr(found), 100)
                    raise self._failed(FailureKind.CONTENT, f"{path} is {shown}, expected {expected!r}")
        except NotThereError as error:
            raise self._failed(FailureKind.CONTENT, f"the answer {error}") from None

    def _redirected(self, answer: HttpAnswer, locations: list[str], exchange: Exchange) -> Exchange:
        location = shown(locations[0])
        if len(locations) > 1:
            message = f"redirected to several places at once: {location} and {shown(locations[1])}"
            raise self._failed(FailureKind.PROTOCOL, message)
        if len(self.travelled) > self.options.follow_redirects:
            message = f"gave up after {self.options.follow_redirects} redirects, the next one to {location}"
            raise self._failed(FailureKind.PROTOCOL, message)
        try:
            place = followed(exchange.place, locations[0])
        except ValueError as error:
            raise self._failed(FailureKind.PROTOCOL, f"redirected to {location!r}: {error}") from None
        self.details.setdefault("redirects", []).append(safe_text(place.url, 200))
        self._cookies = self._cookies or Cookies()
        self._cookies.hear(exchange.place, answer.headers)
        told = self._cookies.line(place)
        return Exchange(place, redirected(exchange.request, answer.status, exchange.place, place, told))

    def _check_way(self, exchange: Exchange) -> None:
        try:
            check_way(self.travelled[0].address, exchange.address)
        except ValueError as error:
            message = f"redirected to {shown(exchange.place.url)}: {error}"
            raise self._failed(FailureKind.PROTOCOL, message) from None

    def _failed(self, kind: FailureKind, message: str) -> ProbeFailed:
        return ProbeFailed(kind, message, response_ms=self._response_ms(), phases=self._phases(), details=self.details)

    def _phases(self) -> Phases:
        if len(self.travelled) == 1:
            (one,) = self.travelled
            return Phases(self.context.dns_ms, one.connect_ms, one.tls_ms, one.first_byte_ms, one.transfer_ms)
        return Phases(
            self.context.dns_ms,
            self._sum("connect_ms"),
            self._sum("tls_ms"),
            self._sum("first_byte_ms"),
            self._sum("transfer_ms"),
        )

    def _sum(self, phase: str) -> float | None:
        taken = [ms for exchange in self.travelled if (ms := getattr(exchange, phase)) is not None]
        return sum(taken) if taken else None

    def _response_ms(self) -> float:
        taken = 0.0
        for one in self.travelled:
            taken += (
                (one.connect_ms or 0.0) + (one.tls_ms or 0.0) + (one.first_byte_ms or 0.0) + (one.transfer_ms or 0.0)
            )
        return taken
