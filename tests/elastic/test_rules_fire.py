"""Every rule fires and recovers at the default sync interval, as Kibana runs it every minute, though one sync fails.

The story is played against both servers: what has arrived by each minute is in the cluster, in the documents that the
sync makes, and the rule's own query is asked as of that minute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from statistics import mean

import pytest

from servmon.elastic.kibana.rules import Pace, rules
from servmon.elastic.mapping import Document, outage_document, status_document
from servmon.model import AlertThresholds, CheckSource, Endpoint, Outage, ServiceStatus, Severity, Status
from tests.elastic.as_kibana_asks import fires, prepare, store

BEGIN = datetime(2026, 11, 20, 23, 40, tzinfo=UTC)  # over midnight: two indices
SYNC_MINUTES, FAILED_SYNC = 5, 15
LONG = 900
PACE = Pace(SYNC_MINUTES * 60, SYNC_MINUTES * 60, check_interval=60)
RULES = {rule.key: rule for rule in rules(AlertThresholds(long_outage_after=LONG), PACE)}
# The minutes in which each service is out, the last only because the first is; another is slow and not out.
OUT = {"a": (3, 40), "b": (8, 24), "c": (10, 22), "behind-a": (5, 38)}
CAUSED = {"behind-a": "a"}
SLOW = (4, 20)
END = 60


def at(minute: float) -> datetime:
    return BEGIN + timedelta(minutes=minute)


def endpoint(id_: str) -> Endpoint:
    return Endpoint(id_, f"Service {id_}", "tcp://192.0.2.1:1", "TCP")


@dataclass
class Story:
    """What servmon knows at each minute, and what of it has arrived."""

    def outage(self, id_: str, minute: int) -> Outage | None:
        start, end = OUT[id_]
        if minute < start:
            return None
        opened = Outage(
            f"outage-{id_}", id_, Severity.MAJOR, "refused", at(start), at(start), revision=1, caused_by=CAUSED.get(id_)
        )
        return opened if minute < end else replace(opened, resolved=True, resolved_at=at(end), revision=2)

    def changed(self, minute: int) -> Iterator[Document]:
        """What is sent within seconds of a change."""
        for id_, moments in OUT.items():
            if minute in moments and (outage := self.outage(id_, minute)):
                yield outage_document(outage, endpoint(id_), seen_at=at(minute))

    def synced(self, minute: int) -> Iterator[Document]:
        """What comes with the sync of this minute: open outages seen anew, and the checks since the last one."""
        if minute % SYNC_MINUTES or minute == FAILED_SYNC:
            return
        for id_ in OUT:
            if (outage := self.outage(id_, minute)) and not outage.resolved:
                yield outage_document(outage, endpoint(id_), seen_at=at(minute))
        yield from (status_document(one, endpoint("d")) for one in self.checks(minute))

    def checks(self, until: int) -> Iterable[ServiceStatus]:
        """The checks of the slow service before this minute; once a check by hand, which counts for nothing."""
        for minute in range(until):
            slow = SLOW[0] <= minute < SLOW[1]
            yield self._check(minute, 1900.0 if slow else 40.0, CheckSource.SCHEDULE)
        if until > 50:
            yield self._check(50, 900_000.0, CheckSource.MANUAL)

    def _check(self, minute: int, response_time: float, source: CheckSource) -> ServiceStatus:
        return ServiceStatus(
            f"{source}-{minute}", "d", Status.UP, at(minute), response_time, 1, None, None, source, "main"
        )

    def arrived_by(self, minute: int) -> int:
        """Before which minute all checks have arrived."""
        last = minute // SYNC_MINUTES * SYNC_MINUTES
        return last - SYNC_MINUTES if last == FAILED_SYNC else last


STORY = Story()


def out(minute: int) -> set[str]:
    return {id_ for id_, (start, end) in OUT.items() if start <= minute < end}


def expected(minute: int) -> dict[str, set[str]]:
    """What each rule has to fire for at this minute, worked out from the story alone."""
    since = at(minute) - timedelta(seconds=PACE.checks())
    seen = [
        one.response_time
        for one in STORY.checks(STORY.arrived_by(minute))
        if one.source is CheckSource.SCHEDULE and one.timestamp >= since
    ]
    return {
        "service-down": out(minute) - CAUSED.keys(),
        "multiple-services-down": {"all"} if len(out(minute)) >= 3 else set(),
        "active-outages": {"all"} if out(minute) else set(),
        "long-outage": {id_ for id_ in out(minute) - CAUSED.keys() if (minute - OUT[id_][0]) * 60 >= LONG},
        "response-time": {"d"} if seen and mean(seen) > 1000 else set(),
    }


async def test_every_rule_fires_and_recovers_when_it_has_to(cluster):
    await prepare(cluster)
    fired: dict[str, list[bool]] = {key: [] for key in RULES}
    for minute in range(END + 1):
        await store(cluster, [*STORY.changed(minute), *STORY.synced(minute)])
        for key, rule in RULES.items():
            found = await fires(cluster, rule, at(minute))
            assert found == expected(minute)[key], f"{key} at minute {minute}"
            fired[key].append(bool(found))
    for key, runs in fired.items():
        assert changes(runs) == [False, True, False], f"{key}: quiet, firing, quiet"


def changes(runs: list[bool]) -> list[bool]:
    """Whether it fired, once for each stretch of minutes in which that stayed so."""
    return [now for now, _ in groupby(runs)]


async def test_a_window_of_one_sync_would_lose_sight_of_an_open_outage(cluster):
    """Why it is as long as it is: just before the sync after the failed one, the last sight is nearly two syncs old."""
    await prepare(cluster)
    for minute in range(FAILED_SYNC + SYNC_MINUTES):
        await store(cluster, [*STORY.changed(minute), *STORY.synced(minute)])
    rule = RULES["service-down"]
    short = replace(rule, params={**rule.params, "timeWindowSize": SYNC_MINUTES * 60})
    assert "a" not in await fires(cluster, short, at(minute))
    assert "a" in await fires(cluster, rule, at(minute))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
async def test_nothing_fires_in_an_empty_cluster(cluster, rule):
    await prepare(cluster)
    early = replace(STORY.outage("a", OUT["a"][1]), start_time=at(-600), resolved_at=at(-600))
    check = replace(next(iter(STORY.checks(1))), timestamp=at(-600))
    await store(
        cluster,
        [outage_document(early, endpoint("a"), seen_at=at(0)), status_document(check, endpoint("d"))],
    )
    assert await fires(cluster, rule, at(0)) == set()
