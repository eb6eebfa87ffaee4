"""What can be wrong with TLS, in words: certificates that are not accepted, and handshakes that do not come about."""

from __future__ import annotations

import re
import ssl
from datetime import datetime
from typing import Any

from typing_extensions import override

from servmon.clock import SYSTEM_CLOCK, now
from servmon.model import FailureKind
from servmon.probes.base import ProbeFailed
from servmon.probes.certificate import Certificate, names_of, read_certificate

# OpenSSL's X509_V_ERR numbers (x509_vfy.h).
_NOT_YET, _EXPIRED, _OTHER_NAME, _OTHER_ADDRESS = 9, 10, 62, 64
_CERTIFICATE_WORDS = {
    _NOT_YET: "its certificate is not valid yet",
    _EXPIRED: "its certificate has expired",
    18: "its certificate is not trusted: it is self-signed",
    19: "its certificate is not trusted: the root of its chain is not known here",
    20: "its certificate is not trusted: the issuer is not known here, or an intermediate certificate is missing",
    21: "its certificate is not trusted: an intermediate certificate is missing",
    23: "its certificate was revoked",
    _OTHER_NAME: "its certificate is for another name",
    _OTHER_ADDRESS: "its certificate is for another address",
}
_CLOSED = "it closed the connection in the middle of the handshake"
_HANDSHAKE_WORDS = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS on this port",
    "HTTP_REQUEST": "it does not speak TLS on this port",
    "RECORD_LAYER_FAILURE": "it does not speak TLS on this port",
    "UNSUPPORTED_PROTOCOL": "it offers only TLS versions that are too old",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it does not accept our TLS versions",
    "DH_KEY_TOO_SMALL": "its key exchange is too weak",
    "EXCESSIVE_MESSAGE_SIZE": "its certificates are larger than anybody's (100 kB)",
    "TLSV1_UNRECOGNIZED_NAME": "it does not know this name",
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": "it speaks nothing that we offer inside TLS (alert no_application_protocol)",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": (
        "it refuses (alert handshake_failure): no cipher in common,"
        " or it wants a client certificate (tls_certificate_file)"
    ),
    "TLSV1_ALERT_INTERNAL_ERROR": "something failed inside it (alert internal_error)",
    "TLSV1_ALERT_ACCESS_DENIED": "it denies us access (alert access_denied)",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a client certificate (tls_certificate_file)",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept our client certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept our client certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our client certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "our client certificate was revoked",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust our client certificate",
    "UNEXPECTED_EOF_WHILE_READING": _CLOSED,
    "UNKNOWN_ERROR": _CLOSED,  # all that is said of a good-bye before there was anything to leave
}
# What Python makes of an error that it has no name for: "[SSL] some words (_ssl.c:1006)".
_NAMELESS = re.compile(r"(?:\[[^\]]*\] *)?(.*?)(?: *\(_ssl\.c:\d+\))?", re.DOTALL)
_NAMES_TOLD = 3
_DER = 2  # X509_FILETYPE_ASN1, as Python's own _ssl names it: ENCODING_DER


class Handshake(ssl.SSLObject):
    """Hands on with the error which certificates were not accepted; contexts make these (``sslobject_class``)."""

    @override
    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            error.shown = _chain(self)  # type: ignore[attr-defined]
            raise


def _chain(handshake: ssl.SSLObject) -> tuple[bytes, ...]:
    """What the server sent, as DER, its own first."""
    if hasattr(handshake, "get_unverified_chain"):  # from Python 3.13 on
        return tuple(handshake.get_unverified_chain())
    within: Any = getattr(handshake, "_sslobj", None)
    if not hasattr(within, "get_unverified_chain"):
        return ()
    return tuple(one.public_bytes(_DER) for one in within.get_unverified_chain() or ())


def shown_by(error: BaseException | None) -> tuple[bytes, ...]:
    """The certificates, as DER, that were not accepted; none where that was not the reason."""
    return getattr(error, "shown", ())


def tls_failure(error: ssl.SSLError, place: str, name: str) -> ProbeFailed:
    """The finding when TLS with ``place`` (asked as ``name``) failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return ProbeFailed(FailureKind.TLS, f"{place}: {_refusal(error, name)}")
    nameless = _NAMELESS.fullmatch(str(error))
    # Those that Python makes itself have no reason.
    said = getattr(error, "reason", None) or (nameless[1] if nameless else str(error))
    said = said.replace("_", " ").lower()
    words = _HANDSHAKE_WORDS.get(said.replace(" ", "_").upper(), said)
    return ProbeFailed(FailureKind.TLS, f"{place}: no TLS connection: {words}")


def _refusal(error: ssl.SSLCertVerificationError, name: str) -> str:
    words = _CERTIFICATE_WORDS.get(error.verify_code, f"its certificate is not accepted: {error.verify_message}")
    shown = shown_by(error)
    if error.verify_code in {_OTHER_NAME, _OTHER_ADDRESS}:
        return f"{words} than {name}{_for_whom(shown)}"
    if error.verify_code in {_EXPIRED, _NOT_YET}:
        chain = [one for one in map(read_certificate, shown) if one is not None]
        return _out_of_time(chain, now(SYSTEM_CLOCK)) or words
    return words


def _for_whom(shown: tuple[bytes, ...]) -> str:
    names = names_of(shown[0]) if shown else []
    more = f" and {len(names) - _NAMES_TOLD} more" if len(names) > _NAMES_TOLD else ""
    return f": it is for {', '.join(names[:_NAMES_TOLD])}{more}" if names else ""


def _out_of_time(chain: list[Certificate], present: datetime) -> str | None:
    """Which certificate is too old or too new, and since or until when."""
    for number, one in enumerate(chain):
        whose = "its certificate" if number == 0 else f"the certificate of {one.subject}, who vouches for it,"
        if present > one.not_after:
            return f"{whose} has expired on {one.not_after:%Y-%m-%d %H:%M} UTC"
        if present < one.not_before:
            return f"{whose} is not valid before {one.not_before:%Y-%m-%d %H:%M} UTC"
    if not chain:
        return None
    return f"the certificate of {chain[-1].issuer}, who vouches for its own, is out of date here"
