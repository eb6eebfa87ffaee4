"""Who watches the monitor: a call out while all is well, so that its absence is noticed elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp
import structlog
from yarl import URL

from servmon.alerts.settings import AlertSection

_log = structlog.get_logger(__name__)

DEADLINE_SECONDS = 10.0
# While no address is configured, a reload may bring one.
IDLE_SECONDS = 5.0


async def beat(settings: Callable[[], AlertSection], unwell: Callable[[], str | None]) -> None:
    """Call ``heartbeat_url`` every ``heartbeat_interval`` seconds, for ever.

    Where ``unwell`` gives a reason, ``/fail`` is called in its place with the reason as the body, as
    healthchecks-style receivers understand it; where servmon is dead, nothing is.
    """
    reached = True
    while True:
        section = settings()
        if section.heartbeat_url is None:
            await asyncio.sleep(IDLE_SECONDS)
            continue
        problem = await _call(section.heartbeat_url.get_secret_value(), unwell())
        if problem and reached:
            _log.warning("heartbeat not delivered", problem=problem)
        reached = problem is None
        await asyncio.sleep(section.heartbeat_interval)


async def _call(url: str, trouble: str | None) -> str | None:
    """Why the call did not get through, if it did not. The URL is a secret and in no word of it."""
    timeout = aiohttp.ClientTimeout(total=DEADLINE_SECONDS)
    where = _fail_address(URL(url)) if trouble else URL(url)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.post(where, data=trouble or "") as answer:
            return None if answer.ok else f"the receiver answered {answer.status}"
    except TimeoutError:
        return f"no answer within {DEADLINE_SECONDS:.0f} s"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return type(error).__name__


def _fail_address(url: URL) -> URL:
    """``/fail`` goes to the path, in front of a query."""
    return (url / "fail").with_query(url.query)
