"""One TCP connection that is talked over, plain or TLS, or first the one and then the other."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import cast

from servmon.clock import SYSTEM_CLOCK
from servmon.model import FailureKind
from servmon.probes.base import ProbeFailed, safe_text
from servmon.probes.dialogue import Step, expression
from servmon.probes.network import ProbeContext
from servmon.probes.pattern import search
from servmon.probes.tls_words import shown_by, tls_failure

# What may come without being what is expected.
TEXT_LIMIT = 65_536
_SHOWN = 80


class Conversation(asyncio.Protocol):
    """Talks over ``sock``, which is now its own; ``name`` is whom the certificate must be for.

    ``first_byte_ms`` and ``tls_ms`` count from the beginning and over the handshake; ``banner`` is the first line.
    """

    def __init__(
        self, sock: socket.socket, place: str, name: str, context: ProbeContext, limit: int = TEXT_LIMIT
    ) -> None:
        self._sock = sock
        self._limit = limit
        self._place = place
        self._name = name
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._heard = bytearray()
        self._news: asyncio.Future[None] | None = None
        self._ended = False
        self._error: Exception | None = None
        self._began_at = SYSTEM_CLOCK.monotonic()
        self.first_byte_ms: float | None = None
        self.tls_ms: float | None = None
        self.tls_version: str | None = None
        self.certificate: bytes | None = None
        self.banner: str | None = None

    async def begin(self, tls: ssl.SSLContext | None) -> None:
        """Take the connection over, with TLS at once where ``tls`` is given. Raises ``ProbeFailed`` (TLS)."""
        if tls is None:
            await self._loop.create_connection(lambda: self, sock=self._sock)
            return
        with self._handshake():
            await self._loop.create_connection(lambda: self, sock=self._sock, ssl=tls, server_hostname=self._name)

    async def follow(self, step: Step, tls: ssl.SSLContext) -> None:
        """Take one step. Raises ``ProbeFailed``: PATTERN, PROTOCOL, RESET or TLS."""
        if step.send is not None:
            self._stream.write(step.send.encode())
        elif step.expect is not None:
            await self._expect(step.expect, step.fail)
        else:
            await self._start_tls(tls)

    def close(self) -> None:
        """Drop the connection, whatever state it is in."""
        if self._transport is not None:
            self._transport.abort()
        self._sock.close()

    async def _expect(self, wanted: str, refused: str | None) -> None:
        while True:
            self._context.doing = self._waiting_for(wanted)
            text = self._heard.decode("utf-8", "replace").replace("\r\n", "\n")
            if text and await search(expression(wanted), text, self._context):
                self._heard.clear()
                return
            if text and refused is not None and await search(expression(refused), text, self._context):
                raise ProbeFailed(FailureKind.PROTOCOL, f"{self._place} says {self._said}, expected {wanted!r}")
            if len(self._heard) >= self._limit:
                message = f"{self._place} sent {self._limit} bytes in which {wanted!r} is not found: {self._said}"
                raise ProbeFailed(FailureKind.PATTERN, message)
            await self._more(wanted)

    async def _more(self, wanted: str) -> None:
        if self._ended:
            said = f"; it said {self._said}" if self._heard else " without a word"
            if isinstance(self._error, ConnectionError):
                message = f"{self._place} reset the connection while {wanted!r} was expected{said}"
                raise ProbeFailed(FailureKind.RESET, message)
            message = f"{self._place} closed the connection while {wanted!r} was expected{said}"
            raise ProbeFailed(FailureKind.PROTOCOL, message)
        seen = len(self._heard)
        self._stream.resume_reading()
        while len(self._heard) == seen and not self._ended:
            self._news = self._loop.create_future()
            await self._news

    async def _start_tls(self, tls: ssl.SSLContext) -> None:
        # What somebody in between has slipped in before must not count as said over TLS.
        self._heard.clear()
        self._stream.resume_reading()
        with self._handshake():
            started = await self._loop.start_tls(self._stream, self, tls, server_hostname=self._name)
        self.connection_made(cast("asyncio.Transport", started))

    def _handshake(self) -> _Handshake:
        self._context.doing = f"agreeing on TLS with {self._place}"
        return _Handshake(self, self._place, self._name)

    def _waiting_for(self, wanted: str) -> str:
        said = f", which said {self._said}" if self._heard else ""
        return safe_text(f"waiting for {wanted!r} from {self._place}{said}", 300)

    @property
    def _said(self) -> str:
        return repr(self._heard[:_SHOWN].decode("utf-8", "replace").rstrip())

    @property
    def _stream(self) -> asyncio.Transport:
        if self._transport is None:
            raise AssertionError("a conversation begins with begin()")
        return self._transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)
        encrypted = transport.get_extra_info("ssl_object")
        if encrypted is not None:
            self.tls_version, self.certificate = encrypted.version(), encrypted.getpeercert(binary_form=True)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self.first_byte_ms is None:
            self.first_byte_ms = (SYSTEM_CLOCK.monotonic() - self._began_at) * 1000
            self.banner = safe_text(data[:TEXT_LIMIT].partition(b"\n")[0].decode("utf-8", "replace").strip(), 200)
        self._heard += data
        if len(self._heard) >= self._limit:
            self._stream.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """Called by the loop."""
        self._ended = True
        self._wake()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the loop."""
        self._ended, self._error = True, error
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


class _Handshake:
    """Times a handshake, and puts into words how it failed."""

    def __init__(self, conversation: Conversation, place: str, name: str) -> None:
        self._conversation = conversation
        self._place = place
        self._name = name
        self._began_at = SYSTEM_CLOCK.monotonic()

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if error is None:
            self._conversation.tls_ms = (SYSTEM_CLOCK.monotonic() - self._began_at) * 1000
        elif isinstance(error, ConnectionError | ssl.SSLEOFError):
            message = f"{self._place} broke off the connection during the TLS handshake"
            raise ProbeFailed(FailureKind.RESET, message) from None
        elif isinstance(error, ssl.SSLError):
            self._conversation.certificate = next(iter(shown_by(error)), None)
            raise tls_failure(error, self._place, self._name) from None
