"""The body of an HTTP answer as it reads: decoded, as far as the limit, and as text in its own charset."""

from __future__ import annotations

import re
import zlib
from contextlib import suppress
from typing import Any

from servmon.model import FailureKind
from servmon.probes.base import ProbeFailed

BODY_LIMIT = 1 << 20

_NOT_ENCODED = frozenset({"", "identity"})
_ENCODINGS = frozenset({"gzip", "x-gzip", "deflate"})
# Codecs of Python's that no page is written in: a stranger could have us work for minutes (punycode takes the square of
# its length), or for nothing.
_NOT_FOR_PAGES = frozenset({"punycode", "idna", "unicode_escape", "raw_unicode_escape", "undefined"})
_CHARSET = re.compile(r"""charset\s*=\s*["']?([A-Za-z0-9._:-]{1,40})""", re.IGNORECASE)


class Body:
    """A body as it reads after decoding; what goes beyond ``limit`` is never decoded, whatever it would become."""

    __slots__ = ("_decoder", "_encoding", "_limit", "decoded")

    def __init__(self, encoding: str, limit: int) -> None:
        self.decoded = bytearray()
        self._limit = limit
        self._encoding = encoding.strip().lower()
        self._decoder: Any = None

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
        if self._encoding in _NOT_ENCODED:
            self.decoded += piece[: self._limit - len(self.decoded)]
            return
        while piece and not self.is_full:
            self._decoder = self._decoder or _decoder(self._encoding, piece, place)
            try:
                self.decoded += self._decoder.decompress(piece, self._limit - len(self.decoded))
            except zlib.error:
                message = f"{place} sent a body that is not {self._encoding}, as its head says"
                raise ProbeFailed(FailureKind.PROTOCOL, message) from None
            if not self._decoder.eof:
                return
            # gzip may come in several members, one behind the other.
            piece, self._decoder = self._decoder.unused_data, None

    def text(self, content_type: str | None) -> str:
        """The body as text in the charset that its head names, else in UTF-8."""
        charset = _CHARSET.search(content_type or "")
        if charset is not None and charset[1].lower().replace("-", "_") not in _NOT_FOR_PAGES:
            with suppress(LookupError, UnicodeError):
                return self.decoded.decode(charset[1], errors="replace")
        return self.decoded.decode(errors="replace")


def _decoder(encoding: str, first: bytes, place: str) -> Any:
    if encoding not in _ENCODINGS:
        message = f"{place} sent a body encoded as {encoding}, which nobody asked for and servmon cannot read"
        raise ProbeFailed(FailureKind.PROTOCOL, message)
    # What is called deflate should have zlib's head (RFC 9110, 8.4.1.2), but many servers leave it out.
    bare = encoding == "deflate" and first[:1] and first[0] & 0x0F != zlib.DEFLATED
    return zlib.decompressobj(-zlib.MAX_WBITS if bare else zlib.MAX_WBITS | 32)
