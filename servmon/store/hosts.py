"""Several servers in one URL: the hosts it names, each of which is asked in turn."""

from __future__ import annotations

from itertools import cycle
from urllib.parse import parse_qs, unquote, urlsplit

DEFAULT_PORT = 5432


def hosts_of(dsn: str) -> list[tuple[str, int]]:
    """The hosts and ports of a URL that names several; nothing where it names one or none. Raises ``ValueError``."""
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    named = parts.netloc.rpartition("@")[2]
    if "," in named:
        return [_host_and_port(one) for one in named.split(",")]
    listed = ",".join(query.get("host", [])).split(",")
    if len(listed) < 2:
        return []
    ports = ",".join(query.get("port", [str(DEFAULT_PORT)])).split(",")
    return [(host, int(port)) for host, port in zip(listed, cycle(ports), strict=False)]


def says_which(dsn: str) -> bool:
    """Whether the URL itself says which of its servers will do."""
    return "target_session_attrs" in parse_qs(urlsplit(dsn).query)


def _host_and_port(named: str) -> tuple[str, int]:
    host, _, port = named.rpartition(":") if not named.endswith("]") and ":" in named else (named, "", "")
    return unquote(host).strip("[]"), int(port or DEFAULT_PORT)
