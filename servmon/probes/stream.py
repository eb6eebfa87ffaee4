"""A TCP connection in the hands of callbacks, plain or over TLS: what comes is heard piece by piece, at once.

No task, no transport and no buffer stand between the system's calls and who listens, since a check is a few of them.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable

from servmon.clock import SYSTEM_CLOCK
from servmon.probes.connection import begin_to_connect, connecting_error
from servmon.probes.readiness import Readiness
from servmon.probes.route import ANY_ROUTE, Route

Ready = Callable[[], None]
Hear = Callable[[bytes], None]
End = Callable[[OSError | None], None]

_READ_SIZE = 65_536


def _nobody(*_news: object) -> None:
    """Takes the place of who does not listen any more."""


class Stream:
    """Calls ``ready`` when it may be written to, ``hear`` with each piece that comes, ``end`` when no more will.

    ``end`` gets the error, if it was one; until ``connected_at`` (monotonic, as ``opened_at``) is set, that of
    connecting. Who has heard enough calls ``close``; until then a callable may be called once more.
    """

    def __init__(self, readiness: Readiness, ready: Ready, hear: Hear, end: End) -> None:
        self._readiness = readiness
        self._ready = self._connected = ready
        self._hear = hear
        self._end = end
        self._socket: socket.socket | None = None
        self._number = -1
        self._unsent = b""
        self.opened_at = 0.0
        self.connected_at: float | None = None

    def open(self, address: str, port: int, route: Route = ANY_ROUTE) -> None:
        """Begin to connect. Raises ``OSError`` where that fails at once."""
        self._socket, self.opened_at = begin_to_connect(address, port, route)
        self._number = self._socket.fileno()
        self._readiness.watch(self._number, self._on_connected, write=True)

    def write(self, octets: bytes) -> None:
        """Send; what the system has no room for goes as soon as it has."""
        self._send(octets)

    def close(self) -> None:
        """Drop the connection, whatever state it is in."""
        if self._socket is not None:
            self._readiness.forget(self._number)
            self._socket.close()
            self._socket = None
        # Who listens holds us as well: without this both would wait for the collector of garbage.
        self._ready = self._connected = self._hear = self._end = _nobody

    def _on_connected(self) -> None:
        now, sock = SYSTEM_CLOCK.monotonic(), self._socket
        if sock is None:
            return
        error = connecting_error(sock)
        if error is None:
            self.connected_at = now
            self._established()
            if self._socket is not None and not self._unsent:  # who only wanted to connect has closed it
                self._readiness.watch(self._number, self._on_readable, read=True)
        else:
            self._readiness.forget(self._number)
            self._end(error)

    def _established(self) -> None:
        self._ready()

    def _send(self, octets: bytes) -> None:
        if self._unsent:
            self._unsent += octets
            return
        try:
            sent = self._socket.send(octets) if self._socket is not None else len(octets)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            return  # it may have answered before it stopped listening: reading tells
        if sent < len(octets):
            self._unsent = octets[sent:]
            self._readiness.watch(self._number, self._on_either, read=True, write=True)

    def _on_either(self) -> None:
        octets, self._unsent = self._unsent, b""
        self._send(octets)
        if not self._unsent:
            self._readiness.watch(self._number, self._on_readable, read=True)
        self._on_readable()

    def _on_readable(self) -> None:
        if self._socket is None:
            return
        try:
            octets = self._socket.recv(_READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._readiness.forget(self._number)
            self._ended(error)
            return
        if octets:
            self._received(octets)
        else:
            self._readiness.forget(self._number)
            self._ended(None)

    def _received(self, octets: bytes) -> None:
        self._hear(octets)

    def _ended(self, error: OSError | None) -> None:
        self._end(error)


class TlsStream(Stream):
    """The same over TLS: ``ready`` is called when both have agreed on it, at the monotonic time ``agreed_at``.

    ``connected`` is called before, when the handshake begins.

    An end without TLS's own good-bye is an end like any other: whether an answer is whole, its own framing tells.
    """

    def __init__(
        self,
        readiness: Readiness,
        ready: Ready,
        hear: Hear,
        end: End,
        context: ssl.SSLContext,
        name: str,
        *,
        connected: Ready = _nobody,
    ) -> None:
        super().__init__(readiness, ready, hear, end)
        self._connected = connected
        self.name = name
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self.agreed_at: float | None = None

    def write(self, octets: bytes) -> None:
        """Send; the last of the handshake goes along with it."""
        self.tls.write(octets)
        self._flush()

    def _established(self) -> None:
        self._connected()
        self._shake_hands()

    def _flush(self) -> None:
        octets = self._outgoing.read()
        if octets:
            self._send(octets)

    def _shake_hands(self) -> None:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._flush()  # the alert that tells the server why
            self._end(error)
        else:
            self.agreed_at = SYSTEM_CLOCK.monotonic()
            self._ready()

    def _received(self, octets: bytes) -> None:
        self._incoming.write(octets)
        if self.agreed_at is None:
            self._shake_hands()
        if self.agreed_at is not None:
            self._decrypt()
            self._flush()  # a server may begin the handshake anew, and wait for what we say to that

    def _decrypt(self) -> None:
        while True:
            try:
                octets = self.tls.read(_READ_SIZE)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLZeroReturnError:
                self._end(None)
                return
            except ssl.SSLError as error:
                self._end(error)
                return
            if not octets:
                self._end(None)
                return
            self._hear(octets)

    def _ended(self, error: OSError | None) -> None:
        if self.agreed_at is None and error is None:
            error = ConnectionResetError("closed in the middle of the handshake")
        self._end(error)
