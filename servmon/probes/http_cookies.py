"""Cookies of one check (RFC 6265): what a server on the way asks to be told again, where its redirects lead.

Without them a page that first sets a cookie and then looks for it would redirect for ever, and no browser sees that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from servmon.clock import SYSTEM_CLOCK
from servmon.probes.addresses import is_address
from servmon.probes.http_client import Place

_MOST, _LONGEST = 50, 4096
_VISIBLE = re.compile(rb"[\x20-\x7e]+")


class _Cookie(NamedTuple):
    name: str
    value: str
    # The host, and whether those below it are meant as well.
    domain: str
    below: bool
    path: str
    secure: bool

    def is_for(self, place: Place) -> bool:
        same = place.host == self.domain or (self.below and place.host.endswith(f".{self.domain}"))
        return same and _is_below(_path_of(place), self.path) and (place.secure or not self.secure)


class Cookies:
    """What was set so far, by those who may."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, str], _Cookie] = {}

    def hear(self, place: Place, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Take what the answer of ``place`` sets; ``headers`` have their names in small letters."""
        for name, value in headers:
            if name == b"set-cookie" and len(value) <= _LONGEST and _VISIBLE.fullmatch(value):
                self._set(place, value.decode("ascii"))

    def line(self, place: Place) -> str:
        """What ``place`` is told: ``a=1; b=2``, or nothing."""
        told = sorted((one for one in self._kept.values() if one.is_for(place)), key=lambda one: -len(one.path))
        return "; ".join(f"{one.name}={one.value}" for one in told)

    def _set(self, place: Place, text: str) -> None:
        pair, *rest = text.split(";")
        name, equals, value = (part.strip() for part in pair.partition("="))
        attributes = {key.strip().lower(): said.strip() for key, _, said in (part.partition("=") for part in rest)}
        domain = attributes.get("domain", "").lower().removeprefix(".")
        if not equals or not name or not _may_set(place.host, domain):
            return
        path = attributes.get("path", "")
        path = path if path.startswith("/") else _path_of(place).rpartition("/")[0] or "/"
        cookie = _Cookie(name, value, domain or place.host, bool(domain), path, "secure" in attributes)
        key = (cookie.name, cookie.domain, cookie.path)
        if _is_over(attributes):
            self._kept.pop(key, None)
        elif key in self._kept or len(self._kept) < _MOST:
            self._kept[key] = cookie


def _may_set(host: str, domain: str) -> bool:
    """Whether ``host`` may set cookies for ``domain``: itself, or what stands above it, though not a whole ``com``."""
    if domain in {"", host}:
        return True
    return "." in domain and host.endswith(f".{domain}") and not is_address(host)


def _path_of(place: Place) -> str:
    return place.path.partition("?")[0]


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder if folder.endswith("/") else f"{folder}/")


def _is_over(attributes: dict[str, str]) -> bool:
    """Whether a cookie is taken back."""
    if "max-age" in attributes:
        return attributes["max-age"].startswith("-") or attributes["max-age"] == "0"
    try:
        return parsedate_to_datetime(attributes["expires"]).timestamp() <= SYSTEM_CLOCK.wall()
    except (KeyError, ValueError, TypeError, OverflowError):
        return False
