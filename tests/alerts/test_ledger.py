"""What was decided outlives Postgres, the process, and both: nobody is told twice, and nobody is forgotten."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from servmon.alerts.alert import Notification
from servmon.alerts.alerting import Alerting
from servmon.alerts.channels.base import ChannelError
from servmon.alerts.dispatcher import Dispatcher
from servmon.alerts.ledger import Ledger
from servmon.alerts.settings import AlertSection
from servmon.clock import now
from servmon.detection.state import new_id
from servmon.metrics import Counters
from servmon.model import Endpoint, Event, EventKind, Severity
from servmon.store import endpoints
from servmon.store.local import LocalFile
from servmon.store.notebook import Notebook
from servmon.store.spool import Spool
from servmon.store.writer import Writer
from tests.alerts.test_dispatcher import Present
from tests.store.seeds import declared, endpoint, outage, resolved

MIB = 1024 * 1024


@dataclass
class Receiver:
    """A way out that keeps what it was sent; ``broken`` ones take nothing, or only some of their receivers do."""

    broken: bool = False
    served: tuple[str, ...] = ()
    refused: frozenset[str] = frozenset()
    receivers: tuple[str, ...] = ("a@isp.example", "b@isp.example")
    got: list[Notification] = field(default_factory=list)

    async def send(self, notification: Notification) -> None:
        if self.refused and self.refused >= {*self.receivers}.difference(notification.served):
            raise ChannelError("refused for good", permanent=True)
        if self.broken:
            raise ChannelError("it is broken", served=self.served)
        self.got.append(notification)

    @property
    def kinds(self) -> list[str]:
        return [one.kind.value for one in self.got]


class Life:
    """One run of what stores and what tells, over the same folder and database."""

    def __init__(self, folder, dsn: str, receiver: Receiver) -> None:
        self.file = LocalFile(folder)
        self.writer = Writer(dsn, Counters(), observer=1, spool=Spool(self.file, 100 * MIB))
        self.receiver = receiver
        self.alerting = Alerting(
            dsn,
            Dispatcher(AlertSection(notification_channels=("email",)), ("email",), Present(), new_id),
            waiting=self.writer,
            endpoint=lambda endpoint_id: Endpoint(endpoint_id, endpoint_id, "tcp://a:1", "TCP"),
            troubles={},
            ledger=Ledger(Notebook(self.file)),
        )
        self.alerting.configure(AlertSection(notification_channels=("email",)), {"email": (receiver, None)})

    async def pass_on(self) -> None:
        """All that is queued to disk or Postgres, and from disk to Postgres where it is there."""
        while self.writer._backlog:
            await self.writer._pass_on(2)
        while self.writer._bridge.count and await self.writer._bridge.cross(2):
            pass

    async def tell(self) -> None:
        """One round, and whatever is in the outbox then."""
        await self.alerting.round()
        await self.send()
        await self.alerting.round()

    async def send(self) -> None:
        for way in self.alerting.outbox._ways.values():
            for lane, number in [(lane, len(lane.waiting)) for lane in way.lanes]:
                for _ in range(number):
                    await self.alerting.outbox._try(way, lane)

    async def kill(self) -> None:
        """End without a word: only what is on disk is left."""
        self.writer._delivery.hang_up()
        self.writer._bridge._delivery.hang_up()
        self.alerting._postgres.hang_up()
        await self.file.close()


@asynccontextmanager
async def life(folder, dsn: str, receiver: Receiver):
    one = Life(folder, dsn, receiver)
    await one.writer.open()
    yield one
    await one.kill()


@pytest.fixture
async def watched(db):
    return await endpoints.insert(db, endpoint("a"))


async def owed(db) -> int:
    changes = await db.fetchval("select count(*) from state_change where processed_at is null")
    return changes + await db.fetchval("select count(*) from notification where sent_at is null")


async def test_what_was_told_while_postgres_was_away_is_not_told_again_after_a_kill(tmp_path, db, watched, pg_proxy):
    receiver, opened = Receiver(), outage("a")
    pg_proxy.set("cut")
    async with life(tmp_path, pg_proxy.dsn, receiver) as first:
        first.writer.put(None, [declared(opened)])
        await first.pass_on()
        await first.tell()
        assert receiver.kinds == ["down"]
    async with life(tmp_path, pg_proxy.dsn, receiver) as second:
        await second.tell()
        second.writer.put(None, [resolved(opened)])
        await second.pass_on()
        await second.tell()
        assert receiver.kinds == ["down", "recovered"]
        pg_proxy.set("open")
        await second.tell()  # the changes are not there yet: what settles them waits
        assert await db.fetchval("select count(*) from alert") == 0
        await second.pass_on()
        await second.tell()
    async with life(tmp_path, pg_proxy.dsn, receiver) as third:
        await third.tell()
    assert receiver.kinds == ["down", "recovered"]
    assert await owed(db) == 0
    assert await db.fetchval("select notification_channels from service_outage") == ["email"]
    assert {str(row["id"]) for row in await db.fetch("select id from notification")} == {one.id for one in receiver.got}


async def test_what_could_not_be_sent_before_a_kill_is_sent_afterwards_with_its_key(tmp_path, db, watched, pg_proxy):
    receiver, opened = Receiver(broken=True), outage("a")
    async with life(tmp_path, pg_proxy.dsn, receiver) as first:
        first.writer.put(None, [declared(opened)])
        await first.pass_on()
        await first.tell()
    key = str(await db.fetchval("select id from notification"))
    receiver.broken = False
    pg_proxy.set("cut")
    async with life(tmp_path, pg_proxy.dsn, receiver) as second:
        await second.tell()
    assert [(one.kind.value, one.id) for one in receiver.got] == [("down", key)]
    pg_proxy.set("open")
    async with life(tmp_path, pg_proxy.dsn, receiver) as third:
        await third.tell()
    assert len(receiver.got) == 1
    assert await owed(db) == 0


async def test_a_recovery_is_told_although_postgres_is_away_since_the_start(tmp_path, db, watched, pg_proxy):
    receiver, opened = Receiver(), outage("a")
    async with life(tmp_path, pg_proxy.dsn, receiver) as first:
        first.writer.put(None, [declared(opened)])
        await first.pass_on()
        await first.tell()
    pg_proxy.set("cut")
    async with life(tmp_path, pg_proxy.dsn, receiver) as second:
        second.writer.put(None, [resolved(opened)])
        await second.pass_on()
        await second.tell()
    assert receiver.kinds == ["down", "recovered"]
    assert receiver.got[0].alert_id == receiver.got[1].alert_id


async def test_a_failover_that_lost_the_last_minutes_repeats_no_message(tmp_path, db, watched, database):
    receiver, opened = Receiver(), outage("a")
    event = Event(new_id(), EventKind.BLIND, Severity.MAJOR, "nothing is learned of a", now())
    async with life(tmp_path, database, receiver) as one:
        one.writer.put(None, [declared(opened)])
        one.writer.put(None, [resolved(opened)])
        one.writer.put_event(event)
        await one.pass_on()
        await one.tell()
        told = receiver.kinds
        await db.execute("truncate alert, alert_outage, alert_decision, notification, state_change, event")
        await db.execute("delete from service_outage")
        await one.writer._bridge.meet("another/00000002")
        one.writer._delivery.hang_up()
        await one.pass_on()
        await one.tell()
        await one.tell()
    assert receiver.kinds == told == ["was down", "event"]
    assert await owed(db) == 0
    assert (
        await db.fetchval("select count(*) from notification"),
        await db.fetchval("select count(*) from event"),
    ) == (
        2,
        1,
    )


async def test_silences_are_known_without_postgres(tmp_path, db, watched, pg_proxy):
    receiver = Receiver()
    await db.execute(
        "insert into silence (id, matchers, reason, starts_at, ends_at)"
        " values (gen_random_uuid(), '{\"id\": [\"a\"]}', 'night work', now(), now() + interval '1 hour')"
    )
    async with life(tmp_path, pg_proxy.dsn, receiver) as first:
        await first.tell()
    pg_proxy.set("cut")
    async with life(tmp_path, pg_proxy.dsn, receiver) as second:
        second.writer.put(None, [declared(replace(outage("a")))])
        await second.pass_on()
        await second.tell()
    assert receiver.kinds == []


@pytest.mark.parametrize("mark", ["open", "cut"])
@pytest.mark.parametrize("start", ["open", "cut"])
async def test_who_has_a_message_has_it_after_a_kill_too(tmp_path, db, watched, pg_proxy, mark, start):
    receiver = Receiver(broken=True, served=("a@isp.example",))
    async with life(tmp_path, pg_proxy.dsn, receiver) as first:
        first.writer.put(None, [declared(outage("a"))])
        await first.pass_on()
        await first.alerting.round()
        pg_proxy.set(mark)
        await first.send()
        await first.alerting.round()
    pg_proxy.set(start)
    receiver.broken = False
    async with life(tmp_path, pg_proxy.dsn, receiver) as second:
        await second.tell()
        assert [(one.served, one.attempts) for one in receiver.got] == [(("a@isp.example",), 1)]
        pg_proxy.set("open")
        await second.tell()
        assert await owed(db) == 0
    async with life(tmp_path, pg_proxy.dsn, receiver) as third:
        await third.tell()
    assert len(receiver.got) == 1


@pytest.mark.parametrize("postgres", ["open", "cut"])
async def test_what_one_never_gets_was_not_sent_though_others_have_it_after_a_restart(
    tmp_path, db, watched, pg_proxy, postgres
):
    receiver = Receiver(broken=True, served=("a",), refused=frozenset("b"), receivers=("a", "b", "c"))
    async with life(tmp_path, pg_proxy.dsn, receiver) as first:
        first.writer.put(None, [declared(outage("a"))])
        await first.pass_on()
        await first.alerting.round()
        pg_proxy.set(postgres)
        await first.send()  # a has it, the others go apart
        await first.send()  # b is refused, c is put off
        await first.alerting.round()
    receiver.broken = False
    async with life(tmp_path, pg_proxy.dsn, receiver) as second:
        await second.tell()
        assert [one.served for one in receiver.got] == [("a", "b")]
        pg_proxy.set("open")
        await second.tell()
    found = await db.fetchrow("select sent_at, given_up_at is not null as given_up, last_error from notification")
    assert dict(found) == {"sent_at": None, "given_up": True, "last_error": "refused for good"}


async def test_a_message_that_was_sent_is_not_owed_again_where_an_older_mark_comes_late(
    tmp_path, db, watched, database
):
    receiver = Receiver(broken=True, served=("a@isp.example",))
    async with life(tmp_path, database, receiver) as one:
        one.writer.put(None, [declared(outage("a"))])
        await one.pass_on()
        await one.alerting.round()
        await one.send()
        (late,) = one.alerting._ledger._marks.values()
        receiver.broken = False
        await one.tell()
        one.alerting._ledger.mark(late)
        await one.alerting.round()
    assert (len(receiver.got), await owed(db)) == (1, 0)
