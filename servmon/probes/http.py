"""HTTP and HTTPS: does the server answer a request, and as expected? A new connection for every check."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

from aiohttp import ClientResponse
from pydantic import AfterValidator, BeforeValidator, Field
from yarl import URL

from servmon.errors import InvalidInputError
from servmon.model import FailureKind, Phases
from servmon.probes.addresses import parse_host
from servmon.probes.base import Answer, Options, ProbeFailed, Target, safe_text
from servmon.probes.http_client import Exchange, read_body
from servmon.probes.network import ProbeContext
from servmon.probes.pattern import search

_SUCCESS = "200-299"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SCHEMES = frozenset({"http", "https"})
_MAX_BODY = 65_536

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_FIELD_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]{0,4000}")
_RANGE = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?")
_OURS = frozenset({"content-length", "transfer-encoding", "connection", "upgrade", "expect"})


def _checked_headers(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of a header; X-Token would be right")
        if name.lower() in _OURS:
            raise ValueError(f"{name} is set by servmon itself; leave it out")
        if not _FIELD_VALUE.fullmatch(text):
            raise ValueError(f"the value of {name} must be one line of at most 4000 characters")
    return value


def _checked_body(value: str) -> str:
    if len(value.encode()) > _MAX_BODY:
        raise ValueError(f"is {len(value.encode())} bytes; at most {_MAX_BODY} are sent")
    return value


def _checked_ranges(value: str) -> str:
    ranges_of(value)
    return value


def _as_text(value: Any) -> Any:
    return str(value) if type(value) is int else value


def _in_capitals(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


class HttpOptions(Options):
    """The request, and what counts as a good answer."""

    method: Annotated[
        Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"], BeforeValidator(_in_capitals)
    ] = "GET"
    headers: Annotated[dict[str, str], Field(max_length=50), AfterValidator(_checked_headers)] = Field(
        default_factory=dict
    )
    body: Annotated[str, AfterValidator(_checked_body)] | None = None
    expected_status: Annotated[str, BeforeValidator(_as_text), AfterValidator(_checked_ranges)] | None = None
    tls_verify: bool = True
    follow_redirects: int = Field(default=5, ge=0, le=20)


class HttpProbe:
    """Send one request, follow redirects, and judge the answer's status and text."""

    protocol: ClassVar[str] = "HTTP"
    default_port: ClassVar[int | None] = 80
    options: ClassVar[type[Options]] = HttpOptions
    takes_socket: ClassVar[bool] = True

    def validate(self, target: Target, options: HttpOptions) -> None:
        """Refuse two expectations of one thing. Raises ``InvalidInputError``."""
        if target.expected_status_code is not None and options.expected_status is not None:
            raise InvalidInputError.of(
                "expected_status", "excludes expected_status_code: one of them says what is right"
            )
        if target.pattern is not None and options.method == "HEAD":
            raise InvalidInputError.of(
                "expected_response_pattern", "cannot be found in the answer to HEAD, which is empty"
            )
        _url(target.url)

    async def check(self, target: Target, options: HttpOptions, context: ProbeContext) -> Answer:
        """Ask once. Raises ``ProbeFailed``: STATUS, PATTERN, TLS, PROTOCOL and those of connecting.

        ``response_ms`` is everything but looking names up: redirects, connecting, TLS, waiting, reading.
        """
        return await _Journey(target, options, context).travel()


class HttpsProbe(HttpProbe):
    """The same over TLS."""

    protocol: ClassVar[str] = "HTTPS"
    default_port: ClassVar[int | None] = 443


@dataclass(slots=True)
class _Journey:
    """One attempt, from the endpoint's URL over its redirects to an answer."""

    target: Target
    options: HttpOptions
    context: ProbeContext
    details: dict[str, Any] = field(default_factory=dict)
    travelled: list[Exchange] = field(default_factory=list)

    async def travel(self) -> Answer:
        exchange = self._first()
        while True:
            exchange.address = await self.context.resolve(exchange.url.raw_host or "")
            async with self.context.slot(exchange.address):
                after = await self._visit(exchange)
            if after is None:
                return Answer(self._response_ms(), self._phases(), self.details)
            exchange = after

    def _first(self) -> Exchange:
        options = self.options
        return Exchange(
            _url(self.target.url),
            "",
            self.context,
            method=options.method,
            headers=options.headers or None,
            body=None if options.body is None else options.body.encode(),
            tls_verify=options.tls_verify,
        )

    async def _visit(self, exchange: Exchange) -> Exchange | None:
        """Make one exchange; the next one where this is a redirect, ``None`` where the answer is good."""
        self.travelled.append(exchange)
        async with self.context.network.http.send(exchange) as response:
            self.details["status_code"] = response.status
            self.details["address"] = exchange.address
            expected = self._expected()
            if _is_in(response.status, ranges_of(expected)):
                await self._judge_body(response, exchange)
                return None
            if response.status in _REDIRECTS and self.options.follow_redirects and "Location" in response.headers:
                return self._redirected(response, exchange)
            raise self._failed(FailureKind.STATUS, f"expected {expected}, got {response.status}{_reason(response)}")

    def _expected(self) -> str:
        code = self.target.expected_status_code
        return self.options.expected_status or _SUCCESS if code is None else str(code)

    async def _judge_body(self, response: ClientResponse, exchange: Exchange) -> None:
        pattern = self.target.pattern
        body = await read_body(response, exchange, keep=pattern is not None)
        if pattern is None:
            return
        if not await search(pattern, _text(body, response), self.context):
            raise self._failed(FailureKind.PATTERN, f"the answer does not match {pattern.pattern!r}")

    def _redirected(self, response: ClientResponse, exchange: Exchange) -> Exchange:
        location = response.headers["Location"]
        if len(self.travelled) > self.options.follow_redirects:
            message = f"gave up after {self.options.follow_redirects} redirects, the next one to {location}"
            raise self._failed(FailureKind.PROTOCOL, message)
        try:
            url = _followed(exchange.url, location)
        except ValueError as error:
            raise self._failed(FailureKind.PROTOCOL, f"redirected to {location!r}: {error}") from None
        self.details.setdefault("redirects", []).append(safe_text(str(url), 200))
        becomes_get = response.status == 303 or (response.status in {301, 302} and exchange.method == "POST")
        becomes_get = becomes_get and exchange.method != "HEAD"
        return Exchange(
            url,
            "",
            self.context,
            method="GET" if becomes_get else exchange.method,
            headers=exchange.headers if _may_know_secrets(exchange.url, url) else None,
            body=None if becomes_get else exchange.body,
            tls_verify=exchange.tls_verify,
        )

    def _failed(self, kind: FailureKind, message: str) -> ProbeFailed:
        return ProbeFailed(kind, message, response_ms=self._response_ms(), phases=self._phases(), details=self.details)

    def _phases(self) -> Phases:
        return Phases(
            dns_ms=self.context.dns_ms,
            connect_ms=self._sum("connect_ms"),
            tls_ms=self._sum("tls_ms"),
            first_byte_ms=self._sum("first_byte_ms"),
            transfer_ms=self._sum("transfer_ms"),
        )

    def _sum(self, phase: str) -> float | None:
        taken = [ms for exchange in self.travelled if (ms := getattr(exchange, phase)) is not None]
        return sum(taken) if taken else None

    def _response_ms(self) -> float:
        return sum(self._sum(phase) or 0.0 for phase in ("connect_ms", "tls_ms", "first_byte_ms", "transfer_ms"))


@lru_cache(maxsize=65536)
def _url(text: str) -> URL:
    return URL(text)


@lru_cache(maxsize=1024)
def ranges_of(text: str) -> tuple[tuple[int, int], ...]:
    """``"200-299,301"`` as pairs of first and last. Raises ``ValueError`` with a sentence."""
    ranges = []
    for part in text.split(","):
        found = _RANGE.fullmatch(part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if first > last:
            raise ValueError(f"{part.strip()!r} is no range of status codes; 200-299,301 would be right")
        ranges.append((first, last))
    return tuple(ranges)


def _is_in(status: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= status <= last for first, last in ranges)


def _reason(response: ClientResponse) -> str:
    return f" {safe_text(response.reason, 60)}" if response.reason else ""


def _text(body: bytes, response: ClientResponse) -> str:
    try:
        return body.decode(response.charset or "utf-8", errors="replace")
    except LookupError:
        return body.decode(errors="replace")


def _followed(origin: URL, location: str) -> URL:
    """Where a redirect leads. Raises ``ValueError``; nothing but HTTP is followed, to no odd kind of host."""
    url = origin.join(URL(location)).with_user(None).with_fragment(None)
    if url.scheme not in _SCHEMES:
        raise ValueError(f"{url.scheme or 'no scheme'} is not followed, only http and https are")
    if not url.raw_host or not url.port:
        raise ValueError("it names no host")
    parse_host(url.raw_host)
    return url


def _may_know_secrets(origin: URL, url: URL) -> bool:
    """An endpoint's headers may hold secrets: they go to the same server, or to its own TLS port, and nowhere else."""
    if origin.raw_host != url.raw_host:
        return False
    return (origin.scheme, origin.port) == (url.scheme, url.port) or (
        (origin.scheme, origin.port, url.scheme, url.port) == ("http", 80, "https", 443)
    )
