"""Alerts as Postgres holds them: what a restart takes up is what was decided."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from servmon.alerts.alert import Alert, Told
from servmon.alerts.record import alert_in, record_of
from servmon.model import Severity
from servmon.store import alerts

AT = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
FIRST = Alert(
    id="0b5e9b0e-0000-4000-8000-000000000002",
    rule="slow web",
    title="Edge 1",
    severity=Severity.MAJOR,
    opened_at=AT,
    told_at=AT,
    channels=("email",),
    kind="response_time",
    reason="average 1500 ms over 300 s (5 answers), threshold 1000 ms",
)


async def stored(db, *alerts_of_a_round: Alert) -> None:
    async with db.acquire() as connection:
        for alert in alerts_of_a_round:
            await alerts.record(connection, record_of(Told(alerts={alert.id: alert}), (), AT))


async def test_an_alert_comes_back_with_its_kind_its_reason_and_what_was_said_to_whom(db):
    escalated = replace(FIRST, said=("long", "step 2"), channels=("email", "boss"), reminders=1)
    await stored(db, FIRST)
    assert [alert_in(row) for row in await alerts.open_alerts(db)] == [FIRST]
    await stored(db, escalated)
    assert [alert_in(row) for row in await alerts.open_alerts(db)] == [escalated]


async def test_a_round_of_an_older_servmon_that_waited_on_disk_is_stored_all_the_same(db):
    old = {key: value for key, value in vars_of(FIRST).items() if key not in ("kind", "reason", "said", "members")}
    record = record_of(Told(), (), AT)
    async with db.acquire() as connection:
        await alerts.record(connection, replace(record, alerts=[old]))
    (row,) = await alerts.open_alerts(db)
    assert (row["kind"], row["reason"], list(row["said"])) == ("service_down", "", [])


def vars_of(alert: Alert) -> dict[str, object]:
    return {name: getattr(alert, name) for name in alert.__slots__}
