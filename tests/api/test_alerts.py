"""Alerts, silences and acknowledgements over the API, on a real Postgres that the real rounds wrote to."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from servmon.alerts.alert import MessageKind, Notification
from servmon.alerts.alerting import Alerting
from servmon.alerts.channels.base import Channel
from servmon.alerts.dispatcher import Dispatcher
from servmon.alerts.settings import AlertSection
from servmon.clock import now
from servmon.detection.state import new_id
from servmon.metrics import Counters
from servmon.model import Outage, Severity, State, StateChange, Transition
from servmon.store.writer import Writer
from servmon.tasks import cancel, spawn
from tests.fix_api import OPERATE_TOKEN, UNKNOWN_UUID
from tests.fix_servers import settled


class Present:
    def covered(self) -> tuple:
        return ()

    def endpoints(self) -> tuple:
        return ()

    def open_outages(self) -> tuple:
        return ()

    def endpoint(self, _endpoint_id: str) -> None:
        return None

    def takes_down(self, _endpoint_id: str) -> tuple[str, ...]:
        return ()

    def in_maintenance(self, _endpoint_id: str) -> bool:
        return False

    def neighbour_suspected(self, _endpoint) -> bool:
        return False

    def failing_at(self, _site: str, _around, _within) -> int:
        return 0

    def unsteady_parent(self, _endpoint) -> None:
        return None

    def site_size(self, _site: str) -> int:
        return 1


class Kept(Channel):
    kind = "kept"

    def __init__(self) -> None:
        self.sent: list[Notification] = []

    async def send(self, notification: Notification) -> None:
        self.sent.append(notification)


class Desk:
    """The real alerting over ``dsn``, with a channel that keeps what it is sent, and a daemon's writer."""

    def __init__(self, dsn: str, **settings) -> None:
        self.dsn = dsn
        self.channel = Kept()
        section = AlertSection(notification_channels=("noc",), **settings)
        self.alerting = Alerting(
            dsn,
            Dispatcher(section, ("noc",), Present(), new_id),
            waiting=Writer(dsn, Counters(), observer=1),
            endpoint=lambda _endpoint_id: None,
            troubles={},
        )
        self.alerting.configure(section, {"noc": (self.channel, None)})

    async def __aenter__(self):
        self._running = spawn(self.alerting.outbox.run(), name="outbox")
        return self

    async def __aexit__(self, *_):
        await cancel(self._running)
        self.alerting._postgres.hang_up()

    async def happen(self, *transitions: Transition) -> None:
        """A daemon stores these, and one round is made."""
        writer = Writer(self.dsn, Counters(), observer=1)
        writer.put(None, transitions)
        await writer.drain()
        await self.alerting.round()

    async def sent(self, number: int) -> list[Notification]:
        await settled(lambda: len(self.channel.sent) == number)
        await self.alerting.round()
        return self.channel.sent


@pytest.fixture
async def desk(database):
    async with Desk(database) as opened:
        yield opened


def went_down(name: str = "web", **fields) -> Transition:
    at = now() - timedelta(minutes=5)
    outage = Outage(new_id(), name, Severity.MAJOR, "port 443 refuses", at, at, revision=1, **fields)
    return Transition(StateChange(new_id(), name, State.SUSPECTED, State.DOWN, "3 failed", at, outage.id), outage)


def came_up(before: Transition) -> Transition:
    at = now()
    outage = replace(before.outage, resolved=True, resolved_at=at, revision=2)
    change = StateChange(new_id(), outage.endpoint_id, State.DOWN, State.UP, "recovered", at, outage.id)
    return Transition(change, outage)


@pytest.fixture
async def web(api):
    assert (await api.post("/services/", {"id": "web", "url": "tcp://192.0.2.1:1", "name": "Web"})).status == 201


async def test_an_empty_database_has_no_alerts(api):
    assert (await api.get("/alerts")).json == {"items": [], "next_cursor": None}
    assert (await api.get("/alerts/active")).json["items"] == []
    assert (await api.get(f"/alerts/{UNKNOWN_UUID}")).status == 404
    assert (await api.get(f"/outages/{UNKNOWN_UUID}/alerts")).status == 404


@pytest.mark.usefixtures("web")
async def test_an_outage_from_its_first_word_to_its_last(api, desk):
    down = went_down()
    await desk.happen(down)
    (message,) = await desk.sent(1)
    assert message.kind is MessageKind.DOWN
    (alert,) = (await api.get("/alerts/active")).json["items"]
    assert (alert["title"], alert["channels"], alert["outages"], alert["closed_at"]) == ("Web", ["noc"], 1, None)
    whole = (await api.get(f"/alerts/{alert['id']}")).json
    assert [member["outage_id"] for member in whole["members"]] == [down.outage.id]
    assert [one["stage"] for one in whole["decisions"]] == ["sent"]
    assert whole["notifications"][0]["sent_at"] is not None
    stored = (await api.get(f"/outages/{down.outage.id}")).json
    assert stored["notification_channels"] == ["noc"]
    await desk.happen(came_up(down))
    assert [one.kind for one in await desk.sent(2)] == [MessageKind.DOWN, MessageKind.RECOVERED]
    assert (await api.get("/alerts/active")).json["items"] == []
    explained = (await api.get(f"/outages/{down.outage.id}/alerts")).json
    assert [(one["kind"], one["stage"]) for one in explained["decisions"]] == [("down", "sent"), ("recovered", "sent")]
    assert len(explained["notifications"]) == 2


@pytest.mark.usefixtures("web")
async def test_a_restart_between_storing_and_sending_sends_once(desk, database):
    down = went_down()
    await desk.happen(down)
    await desk.sent(1)
    async with Desk(database) as after:
        await after.happen(came_up(down))
        (message,) = await after.sent(1)
        assert message.kind is MessageKind.RECOVERED


@pytest.mark.usefixtures("web")
async def test_what_was_stored_and_not_sent_leaves_after_a_restart(database):
    broken = Desk(database)  # its outbox never runs
    await broken.happen(went_down())
    broken.alerting._postgres.hang_up()
    async with Desk(database) as after:
        await after.alerting.round()
        (message,) = await after.sent(1)
        assert message.subject == "DOWN: Web (MAJOR)"


@pytest.mark.usefixtures("web")
async def test_a_silence_over_the_api_keeps_back_and_ends(api, desk):
    body = {"ids": ["web"], "reason": "card swap", "ends_at": (now() + timedelta(hours=1)).isoformat()}
    created = await api.post("/silences", body)
    assert created.status == 201
    down = went_down()
    await desk.happen(down)
    assert desk.channel.sent == []
    (decision,) = (await api.get(f"/outages/{down.outage.id}/alerts")).json["decisions"]
    assert (decision["stage"], "card swap" in decision["reason"]) == ("silence", True)
    assert [one["id"] for one in (await api.get("/silences")).json["items"]] == [created.json["id"]]
    assert (await api.send("DELETE", created.headers["Location"])).status == 204
    assert (await api.send("DELETE", created.headers["Location"])).status == 404
    assert (await api.get("/silences")).json["items"] == []


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"reason": ""}, ["reason"]),
        ({"ids": []}, ["ids"]),
        ({"ends_at": "2020-01-01T00:00:00Z"}, ["ends_at"]),
        ({"ends_at": "tomorrow"}, ["ends_at"]),
        ({"ends_at": None, "colour": 1}, ["ends_at", "colour"]),
        ({"ids": "web"}, ["ids"]),
    ],
)
async def test_a_wrong_silence_names_each_wrong_field(api, changes, fields):
    body = {"ids": ["web"], "reason": "x", "ends_at": "2099-01-01T00:00:00Z", **changes}
    reply = await api.post("/silences", body)
    assert (reply.status, sorted(reply.wrong_fields)) == (422, sorted(fields))


@pytest.mark.usefixtures("web")
async def test_an_acknowledgement_is_shown_and_taken_back(api, desk):
    down = went_down()
    await desk.happen(down)
    address = f"/outages/{down.outage.id}"
    reply = await api.post(f"{address}/acknowledge", {"note": "on my way"})
    assert (reply.status, reply.json["acknowledged_by"], reply.json["note"]) == (200, "admin", "on my way")
    assert (await api.get(f"{address}/alerts")).json["acknowledgement"]["note"] == "on my way"
    assert (await api.post(f"{address}/unacknowledge")).status == 204
    assert (await api.get(f"{address}/alerts")).json["acknowledgement"] is None
    assert (await api.post(f"{address}/unacknowledge")).status == 204  # nobody did see to it
    operator = {"Authorization": f"Bearer {OPERATE_TOKEN}"}
    again = await api.post(f"{address}/acknowledge", {"note": "my turn"}, headers=operator)
    assert again.json["acknowledged_by"] == "operator"
    said = [one for one in (await api.get(f"{address}/timeline")).json["items"] if "acknowledged" in one["kind"]]
    assert [(one["kind"], one["by"], one["text"]) for one in said] == [
        ("acknowledged", "admin", "on my way"),
        ("unacknowledged", "admin", ""),
        ("acknowledged", "operator", "my turn"),
    ]
    await desk.happen(came_up(down))
    assert (await api.post(f"{address}/acknowledge")).status == 409
    assert (await api.post(f"/outages/{UNKNOWN_UUID}/acknowledge")).status == 404
    assert (await api.post(f"{address}/acknowledge", {"note": 5})).status == 422
    assert (await api.post(f"{address}/acknowledge", {"notes": "x"})).status == 422


@pytest.mark.usefixtures("web")
async def test_a_round_that_cannot_be_stored_is_told_and_holds_up_no_other(api, desk, monkeypatch):
    given = desk.alerting._dispatcher.ids
    monkeypatch.setattr(desk.alerting._dispatcher, "ids", lambda: "no uuid at all")
    await desk.happen(went_down())
    await desk.sent(1)
    monkeypatch.setattr(desk.alerting._dispatcher, "ids", given)
    assert (await api.post("/services/", {"id": "other", "url": "tcp://192.0.2.1:1"})).status == 201
    await desk.happen(went_down("other"))
    assert [one.subject for one in await desk.sent(2)] == ["DOWN: Web (MAJOR)", "DOWN: other (MAJOR)"]
    assert [one["title"] for one in (await api.get("/alerts")).json["items"]] == ["other"]


async def test_alerts_come_in_pages(api, desk):
    for number in range(5):
        await api.post("/services/", {"id": f"e{number}", "url": "tcp://192.0.2.1:1"})
        await desk.happen(went_down(f"e{number}"))
    first = (await api.get("/alerts?limit=3")).json
    second = (await api.get(f"/alerts?limit=3&cursor={first['next_cursor']}")).json
    assert [len(first["items"]), len(second["items"]), second["next_cursor"]] == [3, 2, None]
    assert len({one["id"] for one in first["items"] + second["items"]}) == 5
