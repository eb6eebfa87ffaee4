"""A connected socket in the hands of callbacks, plain or over TLS: what comes is heard piece by piece, at once.

No task, no transport and no buffer stand between the system's calls and who listens, since a check is a few of them.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

Hear = Callable[[bytes], None]
End = Callable[[OSError | None], None]

_READ_SIZE = 65_536


class Stream:
    """Calls ``hear`` with each piece that comes, and ``end`` once when no more will, with the error if it was one.

    The socket is now the stream's to close. Both callables may be called once more after ``close`` was decided upon,
    but not after it was called.
    """

    def __init__(self, sock: socket.socket, hear: Hear, end: End) -> None:
        self._socket = sock
        self._number = sock.fileno()
        self._hear = hear
        self._end = end
        self._loop = asyncio.get_running_loop()
        self._unsent = b""

    def listen(self) -> None:
        """Begin to hear."""
        self._loop.add_reader(self._number, self._on_readable)

    def write(self, octets: bytes) -> None:
        """Send; what the system has no room for goes as soon as it has."""
        self._send(octets)

    def close(self) -> None:
        """Drop the connection, whatever state it is in."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._number)
        if self._unsent:
            self._loop.remove_writer(self._number)
        self._socket.close()

    def _send(self, octets: bytes) -> None:
        if self._unsent:
            self._unsent += octets
            return
        try:
            sent = self._socket.send(octets)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            return  # it may have answered before it stopped listening: reading tells
        if sent < len(octets):
            self._unsent = octets[sent:]
            self._loop.add_writer(self._number, self._on_writable)

    def _on_writable(self) -> None:
        self._loop.remove_writer(self._number)
        octets, self._unsent = self._unsent, b""
        self._send(octets)

    def _on_readable(self) -> None:
        try:
            octets = self._socket.recv(_READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._loop.remove_reader(self._number)
            self._ended(error)
            return
        if octets:
            self._received(octets)
        else:
            self._loop.remove_reader(self._number)
            self._ended(None)

    def _received(self, octets: bytes) -> None:
        self._hear(octets)

    def _ended(self, error: OSError | None) -> None:
        self._end(error)


class TlsStream(Stream):
    """The same over TLS; nothing is heard before ``shake_hands`` is done. ``tls`` tells about certificate and version.

    An end without TLS's own good-bye is an end like any other: whether an answer is whole, its own framing tells.
    """

    def __init__(self, sock: socket.socket, hear: Hear, end: End, context: ssl.SSLContext, name: str) -> None:
        super().__init__(sock, hear, end)
        self.name = name
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._shaken: asyncio.Future[None] = self._loop.create_future()
        self._agreed = False

    async def shake_hands(self) -> None:
        """Agree on TLS. Raises ``ssl.SSLError``, and ``ConnectionError`` where the connection is broken off."""
        self._shake()
        self.listen()
        await self._shaken

    def write(self, octets: bytes) -> None:
        """Send; the last of the handshake goes along with it."""
        self.tls.write(octets)
        self._flush()

    def _flush(self) -> None:
        octets = self._outgoing.read()
        if octets:
            self._send(octets)

    def _shake(self) -> None:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._flush()  # the alert that tells the server why
            self._shaken.set_exception(error)
        else:
            self._agreed = True
            self._shaken.set_result(None)

    def _received(self, octets: bytes) -> None:
        self._incoming.write(octets)
        if not self._shaken.done():
            self._shake()
        if self._agreed:
            self._decrypt()

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
        if self._agreed:
            self._end(error)
        elif not self._shaken.done():
            self._shaken.set_exception(error or ConnectionResetError("closed in the middle of the handshake"))
