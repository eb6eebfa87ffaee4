"""One HTTP exchange over a new connection to a given address: connect, perhaps TLS, ask, hear the answer."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, NamedTuple

from servmon.clock import SYSTEM_CLOCK
from servmon.model import FailureKind
from servmon.probes.addresses import host_and_port
from servmon.probes.base import ProbeFailed
from servmon.probes.connection import connect
from servmon.probes.http_answer import HttpAnswer, Wanted
from servmon.probes.stream import Stream, TlsStream
from servmon.probes.tls import tls_failure

if TYPE_CHECKING:
    from servmon.probes.network import ProbeContext

_DEFAULT_PORT = {False: 80, True: 443}


class Place(NamedTuple):
    """Where a request goes: over TLS or not, a host's name or address, and what is asked for, ready to be sent."""

    secure: bool
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host and port as they stand in a URL and in the header Host; a zone means nothing to others (RFC 6874)."""
        host = self.host.partition("%")[0]
        if self.port == _DEFAULT_PORT[self.secure]:
            return f"[{host}]" if ":" in host else host
        return host_and_port(host, self.port)

    @property
    def url(self) -> str:
        """The whole URL."""
        return f"{'https' if self.secure else 'http'}://{self.authority}{self.path}"


class Request(NamedTuple):
    """What is asked; ``fields`` are whole header lines. Without ``has_host`` the header Host is the place's."""

    method: str
    fields: str
    body: bytes | None = None
    has_host: bool = False

    def to(self, place: Place) -> bytes:
        """The bytes to send."""
        host = "" if self.has_host else f"Host: {place.authority}\r\n"
        length = ""
        if self.body is not None or self.method in {"POST", "PUT", "PATCH"}:
            length = f"Content-Length: {len(self.body or b'')}\r\n"
        head = f"{self.method} {place.path} HTTP/1.1\r\n{host}{self.fields}{length}\r\n".encode()
        return head if self.body is None else head + self.body


class Encryption(NamedTuple):
    """How TLS is spoken, where it is, and the name that the certificate must be for."""

    context: ssl.SSLContext
    name: str


class Exchange:
    """A request on its way, and where its time went, in milliseconds."""

    __slots__ = ("address", "certificate", "connect_ms", "first_byte_ms", "place", "request", "tls_ms", "transfer_ms")

    def __init__(self, place: Place, request: Request) -> None:
        self.place = place
        self.request = request
        self.address = ""
        self.connect_ms = 0.0
        self.tls_ms: float | None = None
        self.first_byte_ms: float | None = None
        self.transfer_ms: float | None = None
        self.certificate: bytes | None = None

    async def make(self, wanted: Wanted, encryption: Encryption | None, context: ProbeContext) -> HttpAnswer:
        """Connect, ask, and give the answer as far as it is wanted. Raises ``ProbeFailed``."""
        connected = await connect(context, self.address, self.place.port)
        self.connect_ms = connected.connect_ms
        place = host_and_port(self.address, self.place.port)
        answer = HttpAnswer(place, wanted)
        stream = (
            Stream(connected.sock, answer.hear, answer.end)
            if encryption is None
            else TlsStream(connected.sock, answer.hear, answer.end, *encryption)
        )
        try:
            if isinstance(stream, TlsStream):
                context.doing = f"the TLS handshake with {place}"
                await self._shake_hands(stream, place)
            else:
                stream.listen()
            context.doing = f"waiting for an answer from {place}"
            sent_at = SYSTEM_CLOCK.monotonic()
            stream.write(self.request.to(self.place))
            failure = await answer.complete
        finally:
            stream.close()
        self._take_times(answer, sent_at)
        if failure is not None:
            raise failure
        return answer

    async def _shake_hands(self, stream: TlsStream, place: str) -> None:
        began_at = SYSTEM_CLOCK.monotonic()
        try:
            await stream.shake_hands()
        except ssl.SSLError as error:
            raise tls_failure(error, place, stream.name) from None
        except ConnectionError:
            message = f"{place} broke off the connection during the TLS handshake"
            raise ProbeFailed(FailureKind.RESET, message) from None
        self.certificate = stream.tls.getpeercert(binary_form=True)
        self.tls_ms = (SYSTEM_CLOCK.monotonic() - began_at) * 1000

    def _take_times(self, answer: HttpAnswer, sent_at: float) -> None:
        if answer.first_byte_at is not None and answer.ended_at is not None:
            # A server may speak before it is asked.
            self.first_byte_ms = max(answer.first_byte_at - sent_at, 0.0) * 1000
            self.transfer_ms = (answer.ended_at - answer.first_byte_at) * 1000
