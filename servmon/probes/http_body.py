"""The body of an HTTP answer as it reads: decoded, as far as the limit, and as text in its own charset."""

from __future__ import annotations

import codecs
import re
import zlib
from contextlib import suppress
from typing import Any

from servmon.model import FailureKind
from servmon.probes.base import ProbeFailed

BODY_LIMIT = 1 << 20

_ENCODINGS = frozenset({"gzip", "x-gzip", "deflate"})
# What browsers could read and servmon cannot. Words that are no encoding at all (utf-8, none) mean nothing to either.
_NOT_READ_HERE = re.compile(r"br|zstd|compress|x-compress|dcb|dcz|.*,.*", re.DOTALL)
_GZIP = b"\x1f\x8b"
# What begins with one of these is in that encoding, whatever else says (WHATWG, Encoding, 6), and shows nothing of it.
_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
# Codecs of Python's that no page is written in: a stranger could have us work for minutes (punycode takes the square of
# its length), or for nothing.
_NOT_FOR_PAGES = frozenset({"punycode", "idna", "unicode-escape", "raw-unicode-escape", "undefined"})
_CHARSET = re.compile(r"""charset\s*=\s*["']?([A-Za-z0-9._:-]{1,40})""", re.IGNORECASE)


class Body:
    """A body as it reads after decoding; what goes beyond ``limit`` is never decoded, whatever it would become."""

    __slots__ = ("_decoder", "_encoding", "_has_ended", "_limit", "_rest", "decoded")

    def __init__(self, encoding: str, limit: int) -> None:
        self.decoded = bytearray()
        self._limit = limit
        self._encoding = encoding.strip().lower()
        self._decoder: Any = None
        self._has_ended = False
        self._rest = b""

    @property
    def is_full(self) -> bool:
        """Whether no more is wanted."""
        return len(self.decoded) >= self._limit

    @property
    def is_cut_off(self) -> bool:
        """Whether, if this was all, an end is missing that a compressed body has."""
        return self._decoder is not None and not self.is_full

    def add(self, piece: bytes, place: str) -> None:
        """Decode one more piece. Raises ``ProbeFailed`` (PROTOCOL)."""
        if self._encoding in _ENCODINGS:
            self._decode(piece, place)
        elif _NOT_READ_HERE.fullmatch(self._encoding):
            message = f"{place} sent a body encoded as {self._encoding}, which nobody asked for and servmon cannot read"
            raise ProbeFailed(FailureKind.PROTOCOL, message)
        else:
            self.decoded += piece[: self._limit - len(self.decoded)]

    def _decode(self, piece: bytes, place: str) -> None:
        while piece and not self.is_full:
            if self._decoder is None:
                piece = self._behind_the_end(piece) if self._has_ended else piece
                if not piece:
                    return
                self._decoder = _decoder(self._encoding, piece)
            try:
                self.decoded += self._decoder.decompress(piece, self._limit - len(self.decoded))
            except zlib.error:
                message = f"{place} sent a body that is not {self._encoding}, as its head says"
                raise ProbeFailed(FailureKind.PROTOCOL, message) from None
            if not self._decoder.eof:
                return
            piece, self._decoder, self._has_ended = self._decoder.unused_data, None, True

    def _behind_the_end(self, piece: bytes) -> bytes:
        """What of it is to be decoded: gzip may come in several members, all else is passed over, as browsers do."""
        found = self._rest + piece
        if found.startswith(_GZIP) and self._encoding != "deflate":
            self._rest = b""
            return found
        self._rest = found[: len(_GZIP)]
        return b""

    def text(self, content_type: str | None) -> str:
        """The body as text: in the encoding that its first bytes mark, in that which its head names, else in UTF-8."""
        for mark, encoding in _MARKS.items():
            if self.decoded.startswith(mark):
                return self.decoded[len(mark) :].decode(encoding, errors="replace")
        found = _CHARSET.search(content_type or "")
        with suppress(LookupError, UnicodeError):
            # By the codec's own name: Python knows each by many, -punycode and raw:unicode:escape among them.
            name = codecs.lookup(found[1]).name if found is not None else "utf-8"
            if name not in _NOT_FOR_PAGES:
                return self.decoded.decode(name, errors="replace")
        return self.decoded.decode(errors="replace")


def _decoder(encoding: str, first: bytes) -> Any:
    # What is called deflate should have zlib's head (RFC 9110, 8.4.1.2), but many servers leave it out.
    bare = encoding == "deflate" and first[:1] and first[0] & 0x0F != zlib.DEFLATED
    return zlib.decompressobj(-zlib.MAX_WBITS if bare else zlib.MAX_WBITS | 32)
