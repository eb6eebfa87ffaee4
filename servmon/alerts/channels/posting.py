"""What every way out over HTTP shares: one POST to an address that may be reached, and what its answer means."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import aiohttp
from yarl import URL

from servmon.alerts.channels.base import DEADLINE_SECONDS, Channel, ChannelError
from servmon.alerts.channels.reach import Networks, Reach
from servmon.alerts.settings import ChannelSection, Url

# What may pass: the receiver is busy, or somebody is changing what lets us in; beside trouble of its own.
_PASSING = frozenset({401, 403, 407, 408, 425, 429})
_SERVER_ERROR = 500
_LONGEST_RETRY_AFTER = 3600.0


class PostingSection(ChannelSection):
    """A receiver of JSON. Addresses that are not public are refused unless ``allow_networks`` names their network."""

    url: Url
    allow_networks: Networks = ()

    @property
    def servers(self) -> frozenset[str]:
        """The host of the URL."""
        return frozenset({URL(self.url.get_secret_value()).host or ""})


class PostingChannel(Channel):
    """Posts JSON to one URL; follows no redirect."""

    def __init__(self, settings: PostingSection) -> None:
        self._url = settings.url.get_secret_value()
        self._reach = Reach(settings.allow_networks)

    async def post(self, value: Any, headers: Mapping[str, str] | None = None) -> None:
        """Post ``value`` as JSON. Raises ``ChannelError``."""
        await self.post_body(json.dumps(value, ensure_ascii=False).encode(), headers or {})

    async def post_body(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Post JSON that is written already. Raises ``ChannelError``."""
        connector = aiohttp.TCPConnector(socket_factory=self._socket, limit=1)
        timeout = aiohttp.ClientTimeout(total=DEADLINE_SECONDS)
        host = URL(self._url).host
        headers = {**headers, "Content-Type": "application/json", "User-Agent": "servmon"}
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                _judge(answer, host)
        except TimeoutError:
            raise ChannelError(f"{host} did not answer within {DEADLINE_SECONDS:.0f} s") from None
        except (aiohttp.ClientError, OSError) as error:
            # The error may quote the URL, and the URL may be a secret.
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise ChannelError(f"{host}: {reason}") from None

    def _socket(self, found: Any) -> socket.socket:
        """A socket to an address that may be reached; the address connected to is what counts, not the name."""
        family, kind, protocol, _, address = found
        self._reach.check(address[0])
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made


def _judge(answer: aiohttp.ClientResponse, host: str | None) -> None:
    if answer.ok and answer.status < 300:
        return
    passing = answer.status in _PASSING or answer.status >= _SERVER_ERROR
    retry_after = None
    with suppress(ValueError):
        retry_after = min(float(answer.headers.get("Retry-After", "")), _LONGEST_RETRY_AFTER)
    raise ChannelError(f"{host} answered {answer.status}", permanent=not passing, retry_after=retry_after)
