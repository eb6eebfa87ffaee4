"""Each panel's aggregation, over documents as servmon sends them, gives the numbers that the rows themselves give."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from statistics import mean
from typing import Any
from uuid import UUID

import pytest

from servmon.elastic.kibana.dashboard import ROWS_SHOWN, SERVICES_SHOWN, shipped
from servmon.elastic.mapping import maintenance_document, outage_document, status_document
from servmon.model import (
    CheckSource,
    Endpoint,
    MaintenanceWindow,
    Outage,
    ServiceStatus,
    Severity,
    Status,
)
from tests.elastic.as_kibana_asks import BUCKET, milliseconds, panel_rows, prepare, store

NOW = datetime(2026, 11, 20, 12, 3, 20, tzinfo=UTC)
DAY, QUARTER = timedelta(days=1), timedelta(minutes=15)
LENSES = {one["id"]: one for one in shipped() if one["type"] == "lens"}


@dataclass
class Rows:
    """What Postgres would hold: some services over two days, more than any panel shows."""

    chance: random.Random = field(default_factory=lambda: random.Random(20))
    endpoints: list[Endpoint] = field(default_factory=list)
    statuses: list[ServiceStatus] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    windows: list[MaintenanceWindow] = field(default_factory=list)

    def fill(self) -> Rows:
        self.endpoints = [Endpoint(f"e{n}", f"Service {n:02}", "tcp://192.0.2.1:1", "TCP") for n in range(13)]
        for endpoint in self.endpoints:
            self.statuses += [self._status(endpoint, minutes) for minutes in range(0, 2 * 24 * 60, 20)]
        self.outages = [self._outage(number) for number in range(40)]
        self.windows = [self._window(number) for number in range(25)]
        return self

    def _uuid(self) -> str:
        return str(UUID(int=self.chance.getrandbits(128), version=4))

    def _status(self, endpoint: Endpoint, minutes: int) -> ServiceStatus:
        status = self.chance.choices(list(Status), [80, 8, 10, 2])[0]
        answered = status in (Status.UP, Status.DEGRADED)
        return ServiceStatus(
            id=self._uuid(),
            endpoint_id=endpoint.id,
            status=status,
            timestamp=NOW - timedelta(minutes=minutes, seconds=self.chance.randrange(60)),
            response_time=self.chance.uniform(1, 900) if answered else None,
            attempts=1,
            failure_kind=None,
            error_message=None,
            source=self.chance.choices([CheckSource.SCHEDULE, CheckSource.MANUAL], [9, 1])[0],
            observer="main",
        )

    def _outage(self, number: int) -> Outage:
        # Of five open ones the first began three days ago; the others ended, some of them two days ago.
        ago = timedelta(days=3) if number == 0 else timedelta(minutes=self.chance.randrange(20, 4000))
        start = NOW - ago - timedelta(microseconds=number)
        opened = Outage(
            id=self._uuid(),
            endpoint_id=f"e{number if number < 5 else self.chance.randrange(13)}",
            severity=self.chance.choice(list(Severity)),
            description=f"no answer from 192.0.2.1 ({number})",
            start_time=start,
            declared_at=start + timedelta(minutes=1),
            revision=1,
        )
        if number < 5:
            return opened
        ended = min(start + timedelta(minutes=self.chance.randrange(1, 60)), NOW - timedelta(minutes=1))
        return replace(opened, resolved=True, resolved_at=ended, revision=2)

    def _window(self, number: int) -> MaintenanceWindow:
        start = NOW + timedelta(hours=number - 15)
        return MaintenanceWindow(
            self._uuid(), f"Work {number}", start, start + timedelta(hours=2), ("e1",), created_by="admin",
            created_at=NOW, updated_at=NOW, rrule="FREQ=WEEKLY" if number == 20 else None,
        )  # fmt: skip

    def documents(self) -> Iterable[Any]:
        by_id = {endpoint.id: endpoint for endpoint in self.endpoints}
        yield from (status_document(one, by_id[one.endpoint_id]) for one in self.statuses)
        # The last sync was four minutes ago.
        seen_at = NOW - timedelta(minutes=4)
        yield from (outage_document(one, by_id[one.endpoint_id], seen_at=seen_at) for one in self.outages)
        yield from (maintenance_document(one, ["Service 01"], version=1) for one in self.windows)

    # The same again as the panels show it.

    def checks(self, span: timedelta) -> list[ServiceStatus]:
        scheduled = [one for one in self.statuses if one.source is CheckSource.SCHEDULE]
        return [one for one in scheduled if NOW - span <= one.timestamp <= NOW]

    def seen(self, span: timedelta) -> list[Outage]:
        return [one for one in self.outages if one.resolved_at is None or one.resolved_at >= NOW - span]

    def name(self, endpoint_id: str) -> str:
        return next(one.name for one in self.endpoints if one.id == endpoint_id)


ROWS = Rows().fill()


def bucket(moment: datetime) -> int:
    return int(moment.timestamp() // BUCKET.total_seconds() * BUCKET.total_seconds()) * 1000


def statuses(span: timedelta) -> list[dict[str, Any]]:
    return counted("status", "checks", (one.status for one in ROWS.checks(span)))


def active(span: timedelta) -> list[dict[str, Any]]:
    return [{"outages": sum(not one.resolved for one in ROWS.seen(span))}]


def response_times(span: timedelta) -> list[dict[str, Any]]:
    """The slowest services; one that never answered is as fast as any."""
    whole, parts = defaultdict(list), defaultdict(list)
    for one in ROWS.checks(span):
        name = ROWS.name(one.endpoint_id)
        answered = [one.response_time] if one.response_time is not None else []
        whole[name].extend(answered)
        parts[name, bucket(one.timestamp)].extend(answered)
    slowest = sorted(whole, key=lambda name: (-average(whole[name]), name))[:SERVICES_SHOWN]
    return [
        {"service": name, "time": time, "response-time": pytest.approx(mean(found), rel=1e-5) if found else None}
        for (name, time), found in parts.items()
        if name in slowest
    ]


def average(found: list[float]) -> float:
    return mean(found) if found else 0


def history(span: timedelta) -> list[dict[str, Any]]:
    found = Counter((one.status, bucket(one.timestamp)) for one in ROWS.checks(span))
    return [{"status": status, "time": time, "checks": number} for (status, time), number in found.items()]


def recent(span: timedelta) -> list[dict[str, Any]]:
    newest = sorted(ROWS.seen(span), key=lambda one: one.start_time, reverse=True)[:ROWS_SHOWN]
    return [
        {
            "outage": one.id,
            "started": milliseconds(one.start_time),
            "service": ROWS.name(one.endpoint_id),
            "severity": one.severity,
            "resolved": one.resolved,
            "ended": one.resolved_at and milliseconds(one.resolved_at),
            "description": one.description,
        }
        for one in newest
    ]


def by_service(span: timedelta) -> list[dict[str, Any]]:
    found = counted("service", "outages", (ROWS.name(one.endpoint_id) for one in ROWS.seen(span)))
    shown, others = found[:SERVICES_SHOWN], found[SERVICES_SHOWN:]
    return shown + ([{"service": None, "outages": sum(one["outages"] for one in others)}] if others else [])


def by_severity(span: timedelta) -> list[dict[str, Any]]:
    found = Counter((one.severity, bucket(one.start_time)) for one in ROWS.seen(span))
    return [{"severity": severity, "started": time, "outages": number} for (severity, time), number in found.items()]


def windows(_span: timedelta) -> list[dict[str, Any]]:
    latest = sorted(ROWS.windows, key=lambda one: one.start_time, reverse=True)[:ROWS_SHOWN]
    return [
        {
            "window": one.id,
            "begins": milliseconds(one.start_time),
            "ends": milliseconds(one.end_time),
            "description": one.description,
            "mode": "mute",
            "recurs": one.rrule,
            "created_by": "admin",
        }
        for one in latest
    ]


def counted(name: str, figure: str, values: Iterable[str]) -> list[dict[str, Any]]:
    """How often each is there, the most frequent first, among equals by name."""
    found = sorted(Counter(values).items(), key=lambda one: (-one[1], one[0]))
    return [{name: value, figure: number} for value, number in found]


EXPECTED: dict[str, Callable[[timedelta], list[dict[str, Any]]]] = {
    "servmon-status-overview": statuses,
    "servmon-active-outages": active,
    "servmon-response-time": response_times,
    "servmon-status-history": history,
    "servmon-recent-outages": recent,
    "servmon-outages-by-service": by_service,
    "servmon-outages-by-severity": by_severity,
    "servmon-maintenance-windows": windows,
}
IN_ORDER = {"servmon-recent-outages", "servmon-outages-by-service", "servmon-maintenance-windows"}


def test_every_panel_is_asked_for():
    assert EXPECTED.keys() == LENSES.keys()


async def test_every_panel_gives_the_numbers_of_the_rows(cluster):
    await prepare(cluster)
    await store(cluster, ROWS.documents())
    for id_, expect in EXPECTED.items():
        for span in (DAY, QUARTER):
            found, expected = await panel_rows(cluster, LENSES[id_], NOW - span, NOW), expect(span)
            if id_ not in IN_ORDER:
                found, expected = sorted(found, key=_key), sorted(expected, key=_key)
            assert found == expected, f"{id_} over {span}"
            assert expected, f"{id_} over {span} shows nothing, which proves nothing"


def _key(row: dict[str, Any]) -> list[str]:
    return [str(value) for name, value in row.items() if name != "response-time"]


async def test_an_outage_open_for_three_days_is_counted_in_the_last_15_minutes(cluster):
    await prepare(cluster)
    oldest = ROWS.outages[0]
    assert oldest.start_time < NOW - timedelta(days=2)
    await store(cluster, [outage_document(oldest, ROWS.endpoints[0], seen_at=NOW - timedelta(minutes=5))])
    assert await panel_rows(cluster, LENSES["servmon-active-outages"], NOW - QUARTER, NOW) == [{"outages": 1}]
    [row] = await panel_rows(cluster, LENSES["servmon-recent-outages"], NOW - QUARTER, NOW)
    assert row["outage"] == oldest.id


async def test_no_outage_is_0_and_not_nothing(cluster):
    await prepare(cluster)
    ended = replace(ROWS.outages[1], resolved=True, resolved_at=NOW)
    await store(cluster, [outage_document(ended, ROWS.endpoints[0], seen_at=NOW)])
    assert await panel_rows(cluster, LENSES["servmon-active-outages"], NOW - QUARTER, NOW) == [{"outages": 0}]
