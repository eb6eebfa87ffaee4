"""An HTTP answer as it comes in: its head, and as much of its body as is wanted, whatever a server may send."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from servmon.clock import SYSTEM_CLOCK
from servmon.model import FailureKind
from servmon.probes.base import ProbeFailed, failure_from
from servmon.probes.http_body import Body
from servmon.probes.tls_words import tls_failure

HEAD_LIMIT = 1 << 16
# Around a body of the limit's size there may be so much framing (chunks, trailers), and no more is read.
_WITH_FRAMING = 8

_BEGINNING = b"HTTP/"
_TLS_RECORD = (b"\x15\x03", b"\x16\x03")
_SHOWN = 60
SWITCHING_PROTOCOLS = 101

Ranges = tuple[tuple[int, int], ...]


class Wanted(NamedTuple):
    """What is wanted of an answer: a body only of one of these ``statuses``, and ``keep`` says whether to keep it.

    At most ``limit`` bytes of it are read, decoded or not. ``head_only`` is for the answer to HEAD.
    """

    statuses: Ranges
    keep: bool
    limit: int
    head_only: bool = False


class HttpAnswer:
    """Hears the bytes of one connection until nothing more is wanted; ``told`` hears of that once, and what is wrong.

    Names of ``headers`` are in small letters; ``first_byte_at`` and ``ended_at`` are monotonic.
    """

    __slots__ = (
        "_beginning",
        "_body_size",
        "_finished",
        "_parser",
        "_pieces",
        "_raw_size",
        "_wanted",
        "body",
        "ended_at",
        "first_byte_at",
        "head_is_complete",
        "headers",
        "place",
        "reason",
        "status",
        "told",
    )

    def __init__(self, place: str, wanted: Wanted, told: Callable[[ProbeFailed | None], None]) -> None:
        # Nobody is told twice, and who gives up takes himself out.
        self.told: Callable[[ProbeFailed | None], None] | None = told
        self.status = 0
        self.reason = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.head_is_complete = False
        self.body: Body | None = None
        self.first_byte_at: float | None = None
        self.ended_at: float | None = None
        self.place = place
        self._wanted = wanted
        self._beginning: bytes | None = b""
        self._raw_size = 0
        self._body_size = 0
        self._pieces: list[bytes] = []
        self._finished = False
        self._parser: Any = HttpResponseParser(self)
        # As browsers do: what is readable is read, though it be not quite as it should.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    def header(self, name: bytes) -> str | None:
        """The value of a header (its name in small letters), several of them joined by commas."""
        values = [value for other, value in self.headers if other == name]
        return b", ".join(values).decode("utf-8", "replace") if values else None

    @property
    def awaited(self) -> str | None:
        """In words what has not come, where the answer has begun; ``None`` where it has not."""
        if self.head_is_complete:
            return f"waiting for the end of the answer from {self.place}, which began with {self.status}"
        return None if self.first_byte_at is None else f"waiting for the end of the answer's head from {self.place}"

    def hear(self, octets: bytes) -> None:
        """Take the next bytes."""
        if self.told is None:
            return
        if self.first_byte_at is None:
            self.first_byte_at = SYSTEM_CLOCK.monotonic()
        if self._beginning is not None and not self._begins_well(octets):
            return
        self._raw_size += len(octets)
        try:
            self._parser.feed_data(octets)
        except HttpParserUpgrade:
            pass  # it begins to speak something else, which nobody asked for: its status is judged
        except HttpParserError as error:
            if not self._finished:
                self._fail(FailureKind.PROTOCOL, f"did not answer in HTTP: {str(error).lower()}")
                return
        self._see_how_far()

    def end(self, error: OSError | None) -> None:
        """No more will come."""
        if self.told is None:
            return
        if isinstance(error, ssl.SSLError):
            self._end_with(tls_failure(error, self.place, ""))
        elif self.head_is_complete:
            why = self._missing()
            if error is None and why is None:
                self._succeed()
            else:
                self._fail(FailureKind.PROTOCOL, f"broke off in the middle of its answer{why or ''}")
        elif error is not None:
            failure = failure_from(error, f"waiting for an answer from {self.place}")
            if failure.kind is FailureKind.RESET:
                self._fail(FailureKind.RESET, "reset the connection before it had answered")
            else:
                self._end_with(failure)
        elif self.first_byte_at is None:
            self._fail(FailureKind.PROTOCOL, "closed the connection without an answer")
        else:
            self._fail(FailureKind.PROTOCOL, "closed the connection in the middle of its answer's head")

    def fail(self, failure: ProbeFailed) -> None:
        """There will be no answer."""
        if self.told is not None:
            self._end_with(failure)

    def close(self) -> None:
        """Hear no more, whatever has come."""
        self._parser = None  # it holds us, and would keep both until the garbage is collected

    def _begins_well(self, octets: bytes) -> bool:
        """Whether this can become HTTP; the parser would take other protocols of its family too."""
        begun = ((self._beginning or b"") + octets[: _SHOWN * 2]).lstrip(b"\r\n")
        if not _BEGINNING.startswith(begun[: len(_BEGINNING)]):
            if begun.startswith(_TLS_RECORD):
                self._fail(FailureKind.PROTOCOL, "did not answer in HTTP: it speaks TLS on this port")
                return False
            said = begun[:_SHOWN].partition(b"\n")[0].decode("utf-8", "replace").rstrip()
            self._fail(FailureKind.PROTOCOL, f"did not answer in HTTP: it says {said!r}")
            return False
        self._beginning = begun if len(begun) < len(_BEGINNING) else None
        return True

    def _see_how_far(self) -> None:
        if self._pieces and not self._decode():
            return
        wanted = self._wanted
        if self._finished or self._body_size >= wanted.limit or (self.body is not None and self.body.is_full):
            self._succeed()
        elif not self.head_is_complete:
            if self._raw_size > HEAD_LIMIT:
                self._fail(FailureKind.PROTOCOL, f"did not answer in HTTP: its head has more than {HEAD_LIMIT} bytes")
        elif self._raw_size > HEAD_LIMIT + _WITH_FRAMING * wanted.limit:
            self._succeed()

    def _decode(self) -> bool:
        pieces, self._pieces = self._pieces, []
        if self.body is None:
            self.body = Body(self.header(b"content-encoding") or "", self._wanted.limit)
        try:
            for piece in pieces:
                self.body.add(piece, self.place)
        except ProbeFailed as failed:
            self._end_with(failed)
            return False
        return True

    def _missing(self) -> str | None:
        """What shows that the body is not whole, once the connection has ended; without a length none can be."""
        coding = self.header(b"transfer-encoding")
        if coding is not None:
            is_chunked = coding.rpartition(",")[2].strip().lower() == "chunked"
            return ": its last chunk did not come" if is_chunked else None
        return None if self.header(b"content-length") is None else ": less came than its head announced"

    def _succeed(self) -> None:
        if self.body is not None and self.body.is_cut_off and self._body_size < self._wanted.limit:
            self._fail(FailureKind.PROTOCOL, "broke off in the middle of its compressed body")
            return
        self._end_with(None)

    def _fail(self, kind: FailureKind, words: str) -> None:
        self._end_with(ProbeFailed(kind, f"{self.place} {words}"))

    def _end_with(self, failure: ProbeFailed | None) -> None:
        self.ended_at = SYSTEM_CLOCK.monotonic()
        self.close()
        told, self.told = self.told, None
        if told is not None:
            told(failure)

    # The parser's calls.

    def on_status(self, reason: bytes) -> None:
        """The words behind the status code, or some of them."""
        if not self.head_is_complete:
            self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; those behind a body (trailers) say nothing."""
        if not self.head_is_complete:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head of the answer, of one of the interim answers (1xx) before it, or of what nobody asked for behind."""
        if self.head_is_complete:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != SWITCHING_PROTOCOLS:
            self.reason = b""
            self.headers.clear()
            return
        self.status = status
        self.head_is_complete = True
        wanted = self._wanted
        self._finished = wanted.head_only or not is_in(status, wanted.statuses)

    def on_body(self, piece: bytes) -> None:
        """One piece of the body."""
        if not self._finished:
            self._body_size += len(piece)
            if self._wanted.keep:
                self._pieces.append(piece)

    def on_message_complete(self) -> None:
        """The end of the answer, or of an interim one."""
        self._finished = self.head_is_complete


def is_in(status: int, ranges: Ranges) -> bool:
    """Whether a status code is in one of these ranges."""
    for first, last in ranges:  # noqa: SIM110 - a third of what ``any`` takes, and asked three times a check
        if first <= status <= last:
            return True
    return False
