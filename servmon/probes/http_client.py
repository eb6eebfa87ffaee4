"""One HTTP exchange over a new connection to a given address: connect, perhaps TLS, ask, hear the answer."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from servmon.clock import SYSTEM_CLOCK
from servmon.model import FailureKind
from servmon.probes.addresses import host_and_port
from servmon.probes.base import GiveUp, ProbeFailed
from servmon.probes.connection import connect_failure
from servmon.probes.http_answer import HttpAnswer, Wanted
from servmon.probes.stream import Stream, TlsStream
from servmon.probes.tls_words import shown_by, tls_failure

if TYPE_CHECKING:
    from servmon.probes.network import ProbeContext

_COOKIE = re.compile(r"(?im)^(cookie: [^\r]*)")
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
    """What is asked; ``fields`` are whole header lines. Without ``has_host`` the header Host is the place's.

    ``cookies`` go along with those that ``fields`` may hold. ``is_for_others`` says that it leads to another server
    than the endpoint's, which is not to know its secrets.
    """

    method: str
    fields: str
    body: bytes | None = None
    has_host: bool = False
    cookies: str = ""
    is_for_others: bool = False

    def to(self, place: Place) -> bytes:
        """The bytes to send."""
        if self.cookies:
            return self._with_cookies().to(place)
        host = "" if self.has_host else f"Host: {place.authority}\r\n"
        length = ""
        if self.body is not None or self.method in {"POST", "PUT", "PATCH"}:
            length = f"Content-Length: {len(self.body or b'')}\r\n"
        head = f"{self.method} {place.path} HTTP/1.1\r\n{host}{self.fields}{length}\r\n".encode()
        return head if self.body is None else head + self.body

    def _with_cookies(self) -> Request:
        # More than one such header is not allowed (RFC 6265, 5.4).
        fields, found = _COOKIE.subn(lambda own: f"{own[1]}; {self.cookies}", self.fields, count=1)
        return self._replace(fields=fields if found else f"{fields}Cookie: {self.cookies}\r\n", cookies="")


class Encryption(NamedTuple):
    """How TLS is spoken, where it is, and the name that the certificate must be for."""

    context: ssl.SSLContext
    name: str


class Exchange:
    """A request on its way, and where its time went, in milliseconds; ``certificate`` is the server's, as DER."""

    __slots__ = (
        "_context",
        "_sent_at",
        "_stream",
        "_told",
        "address",
        "answer",
        "certificate",
        "connect_ms",
        "first_byte_ms",
        "place",
        "request",
        "tls_ms",
        "transfer_ms",
    )

    def __init__(self, place: Place, request: Request) -> None:
        self.place = place
        self.request = request
        self.address = ""
        self.certificate: bytes | None = None
        self.connect_ms: float | None = None
        self.tls_ms: float | None = None
        self.first_byte_ms: float | None = None
        self.transfer_ms: float | None = None
        self._sent_at = 0.0

    def begin(
        self,
        wanted: Wanted,
        encryption: Encryption | None,
        context: ProbeContext,
        told: Callable[[ProbeFailed | None], None],
    ) -> GiveUp:
        """Connect, ask, and hear the ``answer`` as far as it is wanted; ``told`` hears when that is over, and how.

        Everything happens in the stream's calls, next to what the system says. Raises ``ProbeFailed``.
        """
        place = host_and_port(self.address, self.place.port)
        answer = self.answer = HttpAnswer(place, wanted, self._complete)
        self._told = told
        readiness = context.network.readiness
        stream = self._stream = (
            Stream(readiness, self._ask, answer.hear, self._end)
            if encryption is None
            else TlsStream(readiness, self._ask, answer.hear, self._end, *encryption, connected=self._shake_hands)
        )
        self._context = context
        context.doing = f"connecting to {place}"
        try:
            stream.open(self.address, self.place.port, context.route)
        except BaseException as error:
            self.give_up()
            if isinstance(error, OSError):
                raise connect_failure(error, place, context.doing) from None
            raise
        return self.give_up

    def give_up(self) -> None:
        """Drop the connection, whatever state it is in; nobody is told."""
        if self.answer.told is not None:
            self.answer.told = None
            self._context.doing = self.answer.awaited or self._context.doing
            self._close()

    def _complete(self, failure: ProbeFailed | None) -> None:
        told = self._told
        self._close()
        told(failure)

    def _close(self) -> None:
        self._take_times()
        self._stream.close()
        self.answer.close()
        self._told = _tell_nobody  # who is told holds us, too

    def _shake_hands(self) -> None:
        self._context.doing = f"agreeing on TLS with {self.answer.place}"

    def _ask(self) -> None:
        self._context.doing = f"waiting for an answer from {self.answer.place}"
        if isinstance(self._stream, TlsStream):
            self.certificate = self._stream.tls.getpeercert(binary_form=True)
        self._sent_at = SYSTEM_CLOCK.monotonic()
        self._stream.write(self.request.to(self.place))

    def _end(self, error: OSError | None) -> None:
        stream, answer = self._stream, self.answer
        if error is None or (stream.connected_at is not None and not _is_shaking_hands(stream)):
            answer.end(error)
        elif stream.connected_at is None:
            answer.fail(connect_failure(error, answer.place, self._context.doing))
        elif isinstance(error, ssl.SSLError):
            self.certificate = next(iter(shown_by(error)), None)
            answer.fail(tls_failure(error, answer.place, stream.name if isinstance(stream, TlsStream) else ""))
        else:
            message = f"{answer.place} broke off the connection during the TLS handshake"
            answer.fail(ProbeFailed(FailureKind.RESET, message))

    def _take_times(self) -> None:
        stream, answer = self._stream, self.answer
        if stream.connected_at is None:
            return
        self.connect_ms = (stream.connected_at - stream.opened_at) * 1000
        if isinstance(stream, TlsStream) and stream.agreed_at is not None:
            self.tls_ms = (stream.agreed_at - stream.connected_at) * 1000
        if answer.first_byte_at is not None and answer.ended_at is not None:
            # A server may speak before it is asked.
            self.first_byte_ms = max(answer.first_byte_at - self._sent_at, 0.0) * 1000
            self.transfer_ms = (answer.ended_at - answer.first_byte_at) * 1000


def _tell_nobody(_failure: ProbeFailed | None) -> None:
    """Takes the place of who does not wait any more."""


def _is_shaking_hands(stream: Stream) -> bool:
    return isinstance(stream, TlsStream) and stream.agreed_at is None
