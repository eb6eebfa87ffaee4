"""``/ui/acknowledge/{link}``: where the links in messages lead. Looking changes nothing; the one button acknowledges.

Open to everybody: what a visitor may do stands in the link, and the link is signed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web
from pydantic import ConfigDict

from servmon.alerts.links import PATH, BadLinkError, Claim, Links
from servmon.api.problems import STORE_RETRY_SECONDS
from servmon.api.proxies import ADDRESS
from servmon.api.routing import ALERTS, Route
from servmon.api.typed import Query
from servmon.clock import now
from servmon.errors import StoreUnavailableError
from servmon.store.pool import AWAY
from servmon.web.page import page

LINKS: web.AppKey[Links | None] = web.AppKey("links")
SHOWN = 50
_PAGE = "acknowledge.html"
Outages = Sequence[Mapping[str, Any]]


class WhateverQuery(Query):
    """Mail programs append parameters of their own to links: they mean nothing here."""

    model_config = ConfigDict(extra="ignore")


async def look_at_link(request: web.Request, query: WhateverQuery) -> web.Response:
    """Show what a link is about, with the button."""
    del query
    return await _answer(request, act=False)


async def follow_link(request: web.Request, query: WhateverQuery) -> web.Response:
    """Acknowledge what a link is about; what is over, or somebody sees to already, stays as it is."""
    del query
    return await _answer(request, act=True)


async def _answer(request: web.Request, *, act: bool) -> web.Response:
    links = request.app.get(LINKS)
    if links is None:
        return _said(404, "There are no links here", "This servmon has no [servmon] public_url, so it makes no links.")
    try:
        claim = links.read(request.match_info["link"])
        alerts = request.app[ALERTS]
        if act:
            await alerts.acknowledge_by_link(claim.outage_id, claim.alert_id, _who(claim), request[ADDRESS])
        found = await alerts.outages_of_link(claim.outage_id, claim.alert_id)
    except BadLinkError as error:
        return _bad(error)
    except (StoreUnavailableError, *AWAY):
        answer = _said(
            503,
            "servmon cannot reach its database just now",
            "Nothing was changed. Checks and alerts go on; try again in a minute, or tell your colleagues by hand.",
        )
        answer.headers["Retry-After"] = str(STORE_RETRY_SECONDS)
        return answer
    return _page(claim, found)


def _page(claim: Claim, found: Outages) -> web.Response:
    """What stands there by now."""
    down = [one for one in found if one["resolved_at"] is None]
    owed = [one for one in down if one["acknowledged_by"] is None]
    given: dict[str, Any] = {
        "outages": found[:SHOWN],
        "more": max(len(found) - SHOWN, 0),
        "now": now(),
        "who": _who(claim),
        "lines": [],
        "button": None,
    }
    if not found:
        return _said(404, "This outage is not known any more", "It was too long ago, or somebody deleted it.")
    if not down:
        over = "It is over" if len(found) == 1 else "All of it is over"
        return page(_PAGE, heading=over, tone="good", **given)
    if not owed:
        return page(_PAGE, heading="Somebody sees to it", tone="good", **given)
    what = owed[0]["name"] if len(owed) == 1 else f"{len(owed)} outages"
    given["button"] = "I see to it" if len(owed) == 1 else f"I see to all {len(owed)}"
    return page(_PAGE, heading=f"{what}: does somebody see to it?", tone="", **given)


def _who(claim: Claim) -> str:
    return f"{claim.channel} (by a link)"


def _bad(error: BadLinkError) -> web.Response:
    if error.expired:
        return _said(410, "This link has expired", "Links are good for three days. A newer message has a newer one.")
    return _said(
        403,
        "This link is not valid",
        "It was not made by this servmon, or was cut or changed on its way. Copy it whole from the message.",
    )


def _said(status: int, heading: str, line: str) -> web.Response:
    return page(_PAGE, status, heading=heading, tone="bad", lines=[line], outages=(), more=0, button=None)


ROUTES = (
    Route("GET", f"{PATH}/{{link}}", look_at_link, open_to_all=True, prefixed=False),
    # Noted in the audit by itself, since it has no token whose name could stand there.
    Route("POST", f"{PATH}/{{link}}", follow_link, open_to_all=True, prefixed=False, is_change=False),
)
