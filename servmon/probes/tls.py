"""TLS: contexts, which are costly and so shared, and what can be wrong with a certificate, in words."""

from __future__ import annotations

import ssl
from functools import lru_cache

from servmon.model import FailureKind
from servmon.probes.base import ProbeFailed

# OpenSSL's X509_V_ERR numbers (x509_vfy.h).
_CERTIFICATE_WORDS = {
    9: "its certificate is not valid yet",
    10: "its certificate has expired",
    18: "its certificate is not trusted: it is self-signed",
    19: "its certificate is not trusted: the root of its chain is not known here",
    20: "its certificate is not trusted: the issuer is not known here, or an intermediate certificate is missing",
    21: "its certificate is not trusted: an intermediate certificate is missing",
    23: "its certificate was revoked",
    62: "its certificate is for another name",
    64: "its certificate is for another address",
}
_HANDSHAKE_WORDS = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS on this port",
    "HTTP_REQUEST": "it does not speak TLS on this port",
    "RECORD_LAYER_FAILURE": "it does not speak TLS on this port",
    "UNSUPPORTED_PROTOCOL": "it offers only TLS versions that are too old",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it does not accept our TLS versions",
    "DH_KEY_TOO_SMALL": "its key exchange is too weak",
    "TLSV1_UNRECOGNIZED_NAME": "it does not know this name",
}


def tls_context(*, verify: bool, alpn: str | None = "http/1.1") -> ssl.SSLContext:
    """The context for outgoing connections; making one takes some 20 ms, so there is one per kind.

    ``alpn`` is the protocol that is offered inside (RFC 7301), ``None`` where servers expect no offer.

    Trusted is what the system trusts (or what the variables of OpenSSL, SSL_CERT_FILE and SSL_CERT_DIR, name).
    """
    return _context(verify, alpn, ssl.get_default_verify_paths())


@lru_cache(maxsize=16)
def _context(verify: bool, alpn: str | None, _trusted: ssl.DefaultVerifyPaths) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if alpn is not None:
        context.set_alpn_protocols([alpn])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def tls_failure(error: ssl.SSLError, place: str, name: str) -> ProbeFailed:
    """The finding when TLS with ``place`` (asked as ``name``) failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        words = _CERTIFICATE_WORDS.get(error.verify_code, f"its certificate is not accepted: {error.verify_message}")
        other = f" than {name}" if error.verify_code in {62, 64} else ""
        return ProbeFailed(FailureKind.TLS, f"{place}: {words}{other}")
    words = _HANDSHAKE_WORDS.get(error.reason or "", (error.reason or str(error)).replace("_", " ").lower())
    return ProbeFailed(FailureKind.TLS, f"{place}: no TLS connection: {words}")
