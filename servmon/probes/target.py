"""Where an endpoint points: the grammar of the ``url`` field, and how hosts and ports are written."""

from __future__ import annotations

import re
from typing import NamedTuple

from yarl import URL

from servmon.errors import InvalidInputError
from servmon.probes import PROBES, find_probe
from servmon.probes.addresses import host_and_port, parse_host
from servmon.probes.base import Target

MAX_URL_LENGTH = 2048

_WEB = frozenset({"HTTP", "HTTPS"})
# For these a URL says where to go and nothing more.
_WITHOUT_PATH = frozenset({"TCP", "UDP", "ICMP", "EXEC"})
_WITHOUT_PORT = frozenset({"ICMP", "EXEC"})

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# Nothing to quote and nothing to resolve.
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_~/-]*(?:\?[A-Za-z0-9_~=&-]+)?")
_FORBIDDEN = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\\]")
_GRAMMAR = "a host, host:port, [IPv6 address]:port, or a URL such as https://host/path or tcp://host:port"


class _Place(NamedTuple):
    host: str
    port: int | None


def parse_target(url: str, protocol: str | None) -> tuple[str, Target]:
    """The protocol and the target that ``url`` names; a scheme may stand for ``protocol``, but not contradict it.

    Raises ``InvalidInputError`` on the field ``url`` or ``protocol``.
    """
    if not url or len(url) > MAX_URL_LENGTH or _FORBIDDEN.search(url):
        raise _wrong(f"must be 1 to {MAX_URL_LENGTH} characters without spaces or backslashes: {_GRAMMAR}")
    scheme = _SCHEME.match(url)
    asked = _checked_protocol(protocol, scheme.group(1) if scheme else None)
    authority, path = _split(url[scheme.end() :] if scheme else url)
    host, port = _parse_place(authority)
    port = _checked_port(asked, host, port)
    if asked in _WEB:
        path = _requested(path)
        return asked, Target(f"{asked.lower()}://{authority_of(host, port, asked)}{path}", host, port, path)
    if asked in _WITHOUT_PATH and path not in {"", "/"}:
        raise _wrong(f"{path!r} means nothing to {asked}; {authority} alone would be right")
    return asked, Target(url, host, port, "" if asked in _WITHOUT_PATH else path)


def _requested(path: str) -> str:
    """A path and query as they are sent: quoted, without dots that lead up."""
    if _PLAIN_PATH.fullmatch(path):
        return path
    try:
        return URL("http://h" + (path if path.startswith("/") else f"/{path}")).raw_path_qs
    except ValueError as error:
        raise _wrong(str(error)) from error


def authority_of(host: str, port: int | None, protocol: str) -> str:
    """Host and port as they stand in a URL of ``protocol``, which leaves out its default port."""
    probe = find_probe(protocol)
    if port is None or (probe is not None and port == probe.default_port):
        return f"[{host}]" if ":" in host else host
    return host_and_port(host, port)


def _wrong(sentence: str) -> InvalidInputError:
    return InvalidInputError.of("url", sentence)


def _checked_protocol(protocol: str | None, scheme: str | None) -> str:
    known = ", ".join(probe.protocol for probe in PROBES)
    told = find_probe(scheme) if scheme else None
    if scheme and told is None:
        raise _wrong(f"{scheme}:// is not known here; one of {known}, in small letters, would be")
    if protocol is None:
        if told is None:
            raise InvalidInputError.of("protocol", f"is missing, and the url does not tell it: one of {known}")
        return told.protocol
    asked = find_probe(protocol)
    if asked is None:
        raise InvalidInputError.of("protocol", f"{protocol!r} is not known; one of {known} would be right")
    if told is not None and told is not asked:
        raise InvalidInputError.of("protocol", f"{asked.protocol} contradicts the url, which says {scheme}://")
    return asked.protocol


def _split(rest: str) -> tuple[str, str]:
    """The authority and what follows it, without a fragment, which is never sent to anybody."""
    end = min((at for mark in "/?#" if (at := rest.find(mark)) >= 0), default=len(rest))
    return rest[:end], rest[end:].partition("#")[0]


def _parse_place(authority: str) -> _Place:
    if "@" in authority:
        raise _wrong("must not hold a user name or password, since urls are shown to many; leave out what is before @")
    host, port = _divided(authority)
    if not host:
        raise _wrong(f"names no host; right would be {_GRAMMAR}")
    try:
        return _Place(parse_host(host), _port(port))
    except ValueError as error:
        raise _wrong(str(error)) from error


def _divided(authority: str) -> tuple[str, str | None]:
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or ":" not in host:
            raise _wrong(f"{authority!r} is not an IPv6 address in brackets; [2001:db8::1]:443 would be")
        return host, rest[1:] if rest else None
    if authority.count(":") > 1:
        return authority, None
    host, colon, port = authority.partition(":")
    return host, port if colon else None


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise ValueError(f"{text!r} is not a port; a number from 1 to 65535 would be")
    return int(text)


def _checked_port(protocol: str, host: str, port: int | None) -> int | None:
    if protocol in _WITHOUT_PORT:
        if port is not None:
            raise _wrong(f"{protocol} knows no ports; {host} alone would be right")
        return None
    probe = find_probe(protocol)
    default = probe.default_port if probe else None
    if port is None and default is None:
        raise _wrong(f"{protocol} needs a port, as in {protocol.lower()}://{authority_of(host, None, protocol)}:7")
    return port or default
