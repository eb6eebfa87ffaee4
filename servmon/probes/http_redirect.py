"""Redirects: where one leads, and what goes along."""

from __future__ import annotations

import re
from ipaddress import ip_address

from yarl import URL

from servmon.probes.addresses import parse_host, unwrapped
from servmon.probes.base import safe_text
from servmon.probes.http_answer import HttpAnswer
from servmon.probes.http_client import Place, Request
from servmon.probes.http_options import DEFAULT_FIELDS

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SCHEMES = frozenset({"http", "https"})
_USER = re.compile(r"//[^/?#]*@")


def locations_of(answer: HttpAnswer) -> list[str]:
    """Where an answer says to go, each place once; none where it names none."""
    named = (value.strip() for name, value in answer.headers if name == b"location")
    return list(dict.fromkeys(value.decode("utf-8", "replace") for value in named if value))


def shown(location: str) -> str:
    """A place for a message: without a user's name and password, and cut."""
    return safe_text(_USER.sub("//", location), 200)


def followed(origin: Place, location: str) -> Place:
    """Where a redirect leads. Raises ``ValueError``; nothing but HTTP is followed, to no odd kind of host."""
    try:
        url = URL(origin.url, encoded=True).join(URL(location)).with_user(None).with_fragment(None)
    except UnicodeError:
        raise ValueError("its host is no name that DNS could know") from None
    if url.scheme not in _SCHEMES:
        raise ValueError(f"{url.scheme or 'no scheme'} is not followed, only http and https are")
    if not url.raw_host:
        raise ValueError("it names no host")
    if not url.port:
        raise ValueError("nobody listens on port 0")
    host = parse_host(url.raw_host)
    # A zone is ours alone, and no URL tells it.
    if host.partition("%")[0] == origin.host.partition("%")[0]:
        host = origin.host
    elif "%" in host:
        raise ValueError("it names an interface of this machine")
    return Place(url.scheme == "https", host, url.port, url.raw_path_qs)


def check_way(origin: str, address: str) -> None:
    """Refuse a way from elsewhere to what only this machine and its link have, its own API among it.

    Private addresses may be meant: names often lead to them from inside. Raises ``ValueError``.
    """
    if _is_ours_alone(address) and not _is_ours_alone(origin):
        raise ValueError(
            f"{address} is an address within this machine or its link, and no answer from outside leads there"
        )


def _is_ours_alone(address: str) -> bool:
    found = unwrapped(ip_address(address.partition("%")[0]))
    return found.is_loopback or found.is_link_local or found.is_unspecified or found.is_multicast


def redirected(request: Request, status: int, origin: Place, place: Place, cookies: str) -> Request:
    """The request for ``place`` after a redirect with this ``status``."""
    becomes_get = request.method != "HEAD" and (status == 303 or (status in {301, 302} and request.method == "POST"))
    if becomes_get:
        request = request._replace(method="GET", body=None)
    if not _may_know_secrets(origin, place):
        request = request._replace(fields=DEFAULT_FIELDS, has_host=False, is_for_others=True)
    return request._replace(cookies=cookies)


def _may_know_secrets(origin: Place, place: Place) -> bool:
    """An endpoint's headers may hold secrets: they go to the same server, or to its own TLS port, and nowhere else."""
    if origin.host != place.host:
        return False
    return (origin.secure, origin.port) == (place.secure, place.port) or (
        (origin.secure, origin.port, place.secure, place.port) == (False, 80, True, 443)
    )
