"""TLS: contexts, which are costly and so shared, and what can be wrong with a certificate, in words."""

from __future__ import annotations

import ssl
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from servmon.clock import SYSTEM_CLOCK
from servmon.errors import InvalidInputError
from servmon.model import FailureKind
from servmon.probes.base import ProbeFailed
from servmon.probes.certificate import read_certificate
from servmon.probes.route import ConnectingOptions

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
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_HANDSHAKE_WORDS = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS on this port",
    "HTTP_REQUEST": "it does not speak TLS on this port",
    "RECORD_LAYER_FAILURE": "it does not speak TLS on this port",
    "UNSUPPORTED_PROTOCOL": "it offers only TLS versions that are too old",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it does not accept our TLS versions",
    "DH_KEY_TOO_SMALL": "its key exchange is too weak",
    "TLSV1_UNRECOGNIZED_NAME": "it does not know this name",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a client certificate (tls_certificate_file)",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept our client certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust our client certificate",
}


class TlsSettings(NamedTuple):
    """How TLS is spoken: whom to trust, how old it may be, and who we are; files are PEM."""

    verify: bool = True
    ca_file: str | None = None
    min_version: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None


PLAIN_TLS = TlsSettings()


class TlsOptions(ConnectingOptions):
    """What every probe that can speak TLS can be told of it.

    ``tls_ca_file`` stands in the place of what the system trusts; ``tls_certificate_file`` and ``tls_key_file`` (the
    same file where there is only one) say who we are.
    """

    tls_verify: bool = True
    tls_server_name: str | None = Field(None, min_length=1, max_length=253)
    tls_ca_file: str | None = Field(None, min_length=1, max_length=1000)
    tls_min_version: Literal["1.2", "1.3"] | None = None
    tls_certificate_file: str | None = Field(None, min_length=1, max_length=1000)
    tls_key_file: str | None = Field(None, min_length=1, max_length=1000)

    @cached_property
    def tls_settings(self) -> TlsSettings:
        """The same in one."""
        found = TlsSettings(
            self.tls_verify, self.tls_ca_file, self.tls_min_version, self.tls_certificate_file, self.tls_key_file
        )
        return PLAIN_TLS if found == PLAIN_TLS else found


TLS_OPTIONS = tuple(name for name in TlsOptions.model_fields if name.startswith("tls_"))


def check_tls(options: TlsOptions) -> None:
    """Refuse settings that can never work, files that cannot be read included. Raises ``InvalidInputError``."""
    if options.tls_key_file is not None and options.tls_certificate_file is None:
        raise InvalidInputError.of("tls_key_file", "means nothing without tls_certificate_file")
    if options.tls_ca_file is not None and not options.tls_verify:
        raise InvalidInputError.of("tls_ca_file", "means nothing with tls_verify = false, which trusts everybody")
    if options.tls_ca_file is not None:
        _check_files("tls_ca_file", options.tls_settings._replace(certificate_file=None, key_file=None))
    if options.tls_certificate_file is not None:
        _check_files("tls_certificate_file", options.tls_settings._replace(ca_file=None))


def _check_files(name: str, settings: TlsSettings) -> None:
    try:
        _load(settings, None)
    except ssl.SSLError as error:
        raise InvalidInputError.of(name, f"holds nothing that could be used: {error.reason or error}") from None
    except (OSError, ValueError) as error:
        what = f"{error.filename} cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise InvalidInputError.of(name, what) from None


def tls_context(settings: TlsSettings = PLAIN_TLS, alpn: str | None = "http/1.1") -> ssl.SSLContext:
    """The context for outgoing connections; making one takes some 20 ms, so there is one per kind.

    ``alpn`` is the protocol that is offered inside (RFC 7301), ``None`` where servers expect no offer.

    Trusted is what the system trusts (or what the variables of OpenSSL, SSL_CERT_FILE and SSL_CERT_DIR, name), unless
    a file is named. A file that was changed is read again. Raises ``ProbeFailed`` (LOCAL).
    """
    try:
        return _load(settings, alpn)
    except (OSError, ValueError) as error:
        raise ProbeFailed(FailureKind.LOCAL, f"the files for TLS cannot be used: {error}") from None


def _load(settings: TlsSettings, alpn: str | None) -> ssl.SSLContext:
    files = (settings.ca_file, settings.certificate_file, settings.key_file)
    stamps = () if settings is PLAIN_TLS else tuple(Path(file).stat().st_mtime_ns for file in files if file)
    return _context(settings, alpn, ssl.get_default_verify_paths(), stamps)


@lru_cache(maxsize=256)
def _context(
    settings: TlsSettings, alpn: str | None, _trusted: ssl.DefaultVerifyPaths, _stamps: tuple[int, ...]
) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.ca_file)
    if alpn is not None:
        context.set_alpn_protocols([alpn])
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.min_version is not None:
        context.minimum_version = _VERSIONS[settings.min_version]
    if settings.certificate_file is not None:
        context.load_cert_chain(settings.certificate_file, settings.key_file, password=_no_password)
    return context


def _no_password() -> str:
    """Asked for a key's password, OpenSSL would wait at the terminal for one."""
    raise ValueError("the key is protected by a password, which nobody could type in")


def server_name(options: TlsOptions, host: str) -> str:
    """The name that is asked for and that the certificate must be for."""
    return options.tls_server_name or host.rstrip(".").partition("%")[0]


def certificate_facts(der: bytes | None) -> dict[str, Any]:
    """``{"certificate": {…}}`` for a result's details; empty where there is none that can be read."""
    certificate = read_certificate(der) if der else None
    return {} if certificate is None else {"certificate": certificate.facts(SYSTEM_CLOCK.wall())}


def tls_failure(error: ssl.SSLError, place: str, name: str) -> ProbeFailed:
    """The finding when TLS with ``place`` (asked as ``name``) failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        words = _CERTIFICATE_WORDS.get(error.verify_code, f"its certificate is not accepted: {error.verify_message}")
        other = f" than {name}" if error.verify_code in {62, 64} else ""
        return ProbeFailed(FailureKind.TLS, f"{place}: {words}{other}")
    words = _HANDSHAKE_WORDS.get(error.reason or "", (error.reason or str(error)).replace("_", " ").lower())
    return ProbeFailed(FailureKind.TLS, f"{place}: no TLS connection: {words}")
