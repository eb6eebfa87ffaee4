"""TLS: how it is spoken, and contexts, which are costly and so shared."""

from __future__ import annotations

import ssl
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field

from servmon.clock import SYSTEM_CLOCK
from servmon.errors import InvalidInputError
from servmon.model import FailureKind
from servmon.probes.addresses import parse_host
from servmon.probes.base import ProbeFailed
from servmon.probes.certificate import read_certificate
from servmon.probes.route import ConnectingOptions
from servmon.probes.tls_words import Handshake

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class TlsSettings(NamedTuple):
    """How TLS is spoken: whom to trust, how old it may be, and who we are; files are PEM."""

    verify: bool = True
    ca_file: str | None = None
    min_version: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None


PLAIN_TLS = TlsSettings()


def _checked_server_name(value: str) -> str:
    name = parse_host(value)
    if "%" in name:
        raise ValueError(f"{value!r} names an interface of this machine, which no certificate can be for")
    return name


class TlsOptions(ConnectingOptions):
    """What every probe that can speak TLS can be told of it.

    ``tls_ca_file`` stands in the place of what the system trusts; ``tls_certificate_file`` and ``tls_key_file`` (the
    same file where there is only one) say who we are.
    """

    tls_verify: bool = True
    tls_server_name: Annotated[str, AfterValidator(_checked_server_name)] | None = None
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
    context.sslobject_class = Handshake
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
    return (options.tls_server_name or host).rstrip(".").partition("%")[0]


def certificate_facts(der: bytes | None) -> dict[str, Any]:
    """``{"certificate": {…}}`` for a result's details; empty where there is none that can be read."""
    certificate = read_certificate(der) if der else None
    return {} if certificate is None else {"certificate": certificate.facts(SYSTEM_CLOCK.wall())}
