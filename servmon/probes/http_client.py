"""One HTTP exchange over a new connection to a given address, through aiohttp's client."""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.http_exceptions import ContentLengthError, TransferEncodingError
from yarl import URL

from servmon.clock import SYSTEM_CLOCK
from servmon.model import FailureKind
from servmon.probes.addresses import host_and_port
from servmon.probes.base import ProbeFailed, failure_from
from servmon.probes.connection import connect
from servmon.probes.tls import tls_context, tls_failure

if TYPE_CHECKING:
    from servmon.probes.network import ProbeContext

BODY_LIMIT = 1 << 20
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=None, sock_read=None, sock_connect=None)
_NOT_ENCODED = frozenset({"", "identity"})
_ENCODINGS = frozenset({"gzip", "x-gzip", "deflate"})
_BROKEN_OFF: Mapping[type[Exception], str] = {
    ContentLengthError: ": less came than its head announced",
    TransferEncodingError: ": its last chunk did not come",
}


@dataclass(slots=True)
class Exchange:
    """A request on its way, and where its time went, in milliseconds. ``url`` holds the host's name or address."""

    url: URL
    address: str
    context: ProbeContext
    method: str = "GET"
    headers: Mapping[str, str] | None = None
    body: bytes | None = None
    tls_verify: bool = True
    connect_ms: float = 0.0
    tls_ms: float | None = None
    first_byte_ms: float | None = None
    transfer_ms: float | None = None
    ready_at: float = 0.0
    transport: asyncio.Transport | None = None

    @property
    def place(self) -> str:
        """The address and port as people write them."""
        return host_and_port(self.address, self.url.port or 0)


_exchange: ContextVar[Exchange] = ContextVar("exchange")


class _Connector(aiohttp.BaseConnector):
    """Connects where the exchange under way says; nothing is resolved, kept alive or counted in here."""

    def __init__(self) -> None:
        super().__init__(force_close=True, limit=0)

    async def _create_connection(self, *_request: Any) -> Any:
        exchange = _exchange.get()
        sock, exchange.connect_ms = await connect(exchange.context, exchange.address, exchange.url.port or 0)
        secure = exchange.url.scheme == "https"
        loop, started = asyncio.get_running_loop(), SYSTEM_CLOCK.monotonic()
        if secure:
            exchange.context.doing = f"the TLS handshake with {exchange.place}"
        try:
            transport, protocol = await loop.create_connection(
                self._factory,
                sock=sock,
                ssl=tls_context(verify=exchange.tls_verify) if secure else None,
                server_hostname=(exchange.url.raw_host or "").rstrip(".") if secure else None,
            )
        except ssl.SSLError as error:
            raise tls_failure(error, exchange.place, exchange.url.host or "") from None
        except ConnectionError:
            # asyncio closes the socket of a handshake that failed.
            message = f"{exchange.place} broke off the connection during the TLS handshake"
            raise ProbeFailed(FailureKind.RESET, message) from None
        exchange.transport = transport
        exchange.ready_at = SYSTEM_CLOCK.monotonic()
        exchange.tls_ms = (exchange.ready_at - started) * 1000 if secure else None
        exchange.context.doing = f"waiting for an answer from {exchange.place}"
        return protocol


@cache
def _user_agent() -> str:
    return f"servmon/{version('servmon')}"


class HttpClient:
    """Makes exchanges. One for the whole process; it holds no connections between them."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=_Connector(),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": _user_agent()},
            # Decoding costs time, and only a pattern needs it.
            skip_auto_headers=("Accept-Encoding",),
            auto_decompress=False,
            timeout=_NO_TIMEOUT,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the session."""
        await self._session.close()

    @asynccontextmanager
    async def send(self, exchange: Exchange) -> AsyncIterator[aiohttp.ClientResponse]:
        """Connect, send the request and give the head of the answer. The connection ends with the block.

        Raises ``ProbeFailed``, also for what goes wrong while the block reads the body.
        """
        token = _exchange.set(exchange)
        response = None
        try:
            response = await self._session.request(
                exchange.method,
                exchange.url,
                headers=exchange.headers,
                data=exchange.body,
                allow_redirects=False,
            )
            exchange.first_byte_ms = (SYSTEM_CLOCK.monotonic() - exchange.ready_at) * 1000
            yield response
        except (aiohttp.ClientError, OSError) as error:
            raise _failure(error, exchange) from None
        finally:
            _exchange.reset(token)
            # Not closed politely: TLS would wait for the server's good-bye, as long as the server likes.
            if exchange.transport is not None:
                exchange.transport.abort()
            if response is not None:
                response.close()


async def read_body(response: aiohttp.ClientResponse, exchange: Exchange, *, keep: bool) -> bytes:
    """The decoded body up to 1 MiB; beyond that nothing is read. Without ``keep`` it is read and forgotten.

    Raises ``ProbeFailed`` where it is to be kept and cannot be decoded.
    """
    exchange.context.doing = f"reading the body from {exchange.place}"
    started = SYSTEM_CLOCK.monotonic()
    body = Body(response.headers.get("Content-Encoding", "")) if keep else None
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if body is not None:
            body.add(chunk, exchange.place)
        if size >= BODY_LIMIT or (body is not None and body.is_full):
            break
    exchange.transfer_ms = (SYSTEM_CLOCK.monotonic() - started) * 1000
    return bytes(body.decoded) if body is not None else b""


class Body:
    """A body as it reads after decoding; what goes beyond 1 MiB is never decoded, whatever it would become."""

    def __init__(self, encoding: str) -> None:
        self.decoded = bytearray()
        self._encoding = encoding.strip().lower()
        self._decoder: Any = None

    @property
    def is_full(self) -> bool:
        """Whether no more is wanted."""
        return len(self.decoded) >= BODY_LIMIT

    def add(self, chunk: bytes, place: str) -> None:
        """Decode one more piece. Raises ``ProbeFailed`` (PROTOCOL)."""
        room = BODY_LIMIT - len(self.decoded)
        if self._encoding in _NOT_ENCODED:
            self.decoded += chunk[:room]
        elif room:
            self._decoder = self._decoder or _decoder(self._encoding, chunk, place)
            try:
                self.decoded += self._decoder.decompress(chunk, room)
            except zlib.error:
                message = f"{place} sent a body that is not {self._encoding}, as its head says"
                raise ProbeFailed(FailureKind.PROTOCOL, message) from None


def _decoder(encoding: str, first: bytes, place: str) -> Any:
    if encoding not in _ENCODINGS:
        message = f"{place} sent a body encoded as {encoding}, which nobody asked for and servmon cannot read"
        raise ProbeFailed(FailureKind.PROTOCOL, message)
    # What is called deflate should have zlib's head (RFC 9110, 8.4.1.2), but many servers leave it out.
    bare = encoding == "deflate" and first[:1] and first[0] & 0x0F != zlib.DEFLATED
    return zlib.decompressobj(-zlib.MAX_WBITS if bare else zlib.MAX_WBITS | 32)


def _failure(error: Exception, exchange: Exchange) -> ProbeFailed:
    place = exchange.place
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return ProbeFailed(FailureKind.PROTOCOL, f"{place} closed the connection without an answer")
    if isinstance(error, aiohttp.ClientPayloadError):
        why = next((words for kind, words in _BROKEN_OFF.items() if isinstance(error.__cause__, kind)), "")
        return ProbeFailed(FailureKind.PROTOCOL, f"{place} broke off in the middle of its answer{why}")
    if isinstance(error, aiohttp.ClientResponseError):
        return ProbeFailed(FailureKind.PROTOCOL, f"{place} did not answer in HTTP: {_first_line(error.message)}")
    if isinstance(error, OSError):
        failure = failure_from(error, exchange.context.doing)
        if failure.kind is FailureKind.RESET:
            return ProbeFailed(FailureKind.RESET, f"{place} reset the connection before it had answered")
        return failure
    return ProbeFailed(FailureKind.PROTOCOL, f"{place} did not answer in HTTP: {_first_line(str(error))}")


def _first_line(text: str) -> str:
    """The messages of aiohttp go on with the bytes that offended it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0].partition(": b'")[0].rstrip(":").lower() if lines else "nothing that could be read"
