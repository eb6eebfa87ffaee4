"""A site that fails as a whole is told as one thing, without anybody having configured what depends on what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from servmon.alerts.alert import Alert, News
from servmon.alerts.routing import Facts

RULE = "site_down"
# Half of a site, and at least so many, is the site itself, where all of them failed within this time.
FEWEST = 5
WITHIN = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class SiteDown:
    """How many endpoints of a site fail, of how many; not all of them need be declared down yet."""

    site: str
    failing: int
    size: int


def site_down(news: Sequence[News], facts: Facts) -> SiteDown | None:
    """The site whose failure these outages are, if they are one."""
    sites = {one.endpoint.site for one in news if one.endpoint}
    site = sites.pop() if len(sites) == 1 else None
    began = [one.outage.start_time for one in news if one.outage]
    if site is None or not began or any(one.rule for one in news):
        return None
    first = min(began)
    failing = max(sum(start - first <= WITHIN for start in began), facts.failing_at(site, first, WITHIN))
    size = max(facts.site_size(site), failing)
    return SiteDown(site, failing, size) if failing >= FEWEST and 2 * failing >= size else None


def belongs_to(alert: Alert, news: News, facts: Facts) -> bool:
    """Whether an outage is part of a site's failure that was told before this one was declared."""
    if alert.rule != RULE or news.endpoint is None or news.outage is None or not alert.members:
        return False
    first = next(iter(alert.members.values()))
    told = facts.endpoint(first.endpoint_id)
    return (
        told is not None
        and told.site == news.endpoint.site
        and abs(news.outage.start_time - first.start_time) <= WITHIN
    )
