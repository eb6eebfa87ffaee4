"""What leaves over hours, whatever happens meanwhile: a restart at any moment, receivers in every kind of trouble."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from servmon.alerts import outbox
from servmon.alerts.alert import MessageKind, News, Notification
from servmon.alerts.channels import SETTINGS, open_channel, posting
from servmon.alerts.outbox import Outbox
from servmon.alerts.outcomes import Mark
from servmon.alerts.routing import Silence
from servmon.alerts.settings import AlertSection, EscalationStep, RuleKind, RuleSection
from servmon.model import Severity
from servmon.store.plain import dump, load
from servmon.tasks import cancel, spawn
from tests.alerts.test_dispatcher import START, Desk, Present, flaps
from tests.alerts.test_rules import falls, recovers
from tests.fix_servers import free_port, settled

CHANNELS = ("email", "second", "boss")
STEP, END = 10, 9000
SETTINGS_OF_ALL = AlertSection(
    notification_channels=("email",),
    escalation=(EscalationStep(after=900, channels=("second",)), EscalationStep(after=2700, channels=("boss",))),
    rules=(RuleSection(name="count", kind=RuleKind.ACTIVE_OUTAGES, count=3, channels=("boss",)),),
)


class Night:
    """A night with everything in it; news is read until it is settled, as the database gives it."""

    def __init__(self) -> None:
        self.desk = Desk(channels=CHANNELS)
        self.present: Present = self.desk.present
        self.unsettled: dict[str, News] = {}
        self.acknowledged: frozenset[str] = frozenset()
        self.silences = [Silence("1", {"ids": ["quiet"]}, "known", START, START + timedelta(seconds=1500))]
        self.sent: list[tuple[str, str]] = []
        self.lives = count(1)

    def script(self) -> dict[int, Callable[[], News | None]]:
        return {
            10: lambda: falls(self.desk, "a"),
            20: lambda: falls(self.desk, "quiet", 20),
            50: lambda: falls(self.desk, "seen", 50),
            100: lambda: falls(self.desk, "planned", 100),
            600: lambda: self.present.windows.add("planned"),
            1000: lambda: self._acknowledge("outage-seen"),
            1700: lambda: recovers(self.desk, "planned", 1700),
            2000: lambda: self.present.windows.discard("planned"),
            2500: lambda: flaps("wobbly", flapping=True),
            3500: lambda: flaps("wobbly", flapping=False),
            4500: lambda: recovers(self.desk, "a", 4500),
            5000: lambda: recovers(self.desk, "seen", 5000),
            7000: lambda: recovers(self.desk, "quiet", 7000),
        }

    def _acknowledge(self, outage_id: str) -> None:
        self.acknowledged |= {outage_id}

    def run(self, restarts: frozenset[int] = frozenset()) -> Counter[tuple[str, str]]:
        """What each channel got, by the heads of its subjects."""
        self.desk.dispatcher.settings = SETTINGS_OF_ALL
        script = self.script()
        for second in range(0, END, STEP):
            if second in restarts:
                self.restart()
            if (act := script.get(second)) is not None and isinstance(news := act(), News):
                self.unsettled[news.id] = news
            self.round(second)
        return Counter((channel, subject.split(" (")[0]) for channel, subject in self.sent)

    def round(self, second: int) -> None:
        dispatcher = self.desk.dispatcher
        dispatcher.silences, dispatcher.acknowledged = self.silences, self.acknowledged
        told = dispatcher.step(list(self.unsettled.values()), START + timedelta(seconds=second))
        assert told.defects == []
        for decision in told.decisions:
            if not dispatcher.is_waiting(decision.news_id):
                self.unsettled.pop(decision.news_id, None)
        self.sent += [(one.channel, one.subject) for one in told.notifications]

    def restart(self) -> None:
        """Another process, which knows what was stored."""
        stored = [load(type(alert), dump(alert)) for alert in self.desk.dispatcher.alerts]
        life = next(self.lives)
        fresh = Desk(channels=CHANNELS)
        ids = (f"{life:08}-0000-4000-8000-{number:012}" for number in count())
        fresh.dispatcher = type(fresh.dispatcher)(SETTINGS_OF_ALL, CHANNELS, self.present, ids.__next__)
        fresh.present = self.present
        fresh.dispatcher.restore(stored)
        self.desk = fresh


def test_the_night_has_everything_in_it():
    heads = {subject.split(":")[0] for _, subject in Night().run()}
    assert heads == {"DOWN", "ESCALATED", "FLAPPING", "STEADY", "LONG OUTAGE", "RULE", "OVER", "UP"}


@pytest.mark.parametrize("first", range(0, 500, 100))
def test_a_restart_at_any_moment_of_it_changes_no_message(first):
    usual = Night().run()
    for moment in range(first, END, 500):
        assert Night().run(frozenset({moment})) == usual, moment


def test_a_restart_every_minute_changes_no_message():
    # More often, the end of a count, which first is below its threshold for half a minute, would wait for longer.
    assert Night().run(frozenset(range(0, END, 6 * STEP))) == Night().run()


# Receivers.


class Moody:
    """A web server that treats each request in another way, and keeps the keys of those that it took."""

    def __init__(self, *moods: str) -> None:
        self.moods = list(moods)
        self.tried: list[str] = []
        self.taken: list[str] = []
        self.port = free_port()
        self._hanging: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        self._server.close()
        for writer in self._hanging:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = dict(line.split(": ", 1) for line in head.splitlines()[1:] if ": " in line)
        await reader.readexactly(int(lines["Content-Length"]))
        key = lines["Idempotency-Key"]
        self.tried.append(key)
        mood = self.moods.pop(0) if self.moods else "200 OK"
        if mood == "hang":
            self._hanging.append(writer)
            return
        if mood == "cut":
            writer.write(b"HTTP/1.1 200")
        else:
            retry = "Retry-After: 1\r\n" if mood.startswith("429") else ""
            writer.write(f"HTTP/1.1 {mood}\r\n{retry}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        if mood.startswith("200"):
            self.taken.append(key)
        await writer.drain()
        writer.close()


def owed(number: int) -> Notification:
    key = f"0b5e9b0e-0000-4000-8000-{number:012}"
    at = datetime.now(UTC)  # noqa: TID251 - real sockets, real time
    return Notification(key, key, "hook", MessageKind.DOWN, Severity.MAJOR, f"DOWN: {number}", "it is down\n", at)


async def test_whatever_a_receiver_does_each_message_arrives_under_its_key_and_none_is_lost(monkeypatch):
    monkeypatch.setattr(outbox, "RETRY_SECONDS", (0.01,))
    monkeypatch.setattr(posting, "DEADLINE_SECONDS", 0.3)
    server = Moody("500 No", "429 Slow", "hang", "cut", "503 Away", "200 OK", "cut", "hang", "500 No")
    url = f"http://127.0.0.1:{server.port}/"
    marks: dict[str, Mark] = {}
    box = Outbox(
        marked=lambda mark: marks.__setitem__(mark.id, mark),
        added=lambda _copy: None,
        over=lambda _alert_id: False,
        troubles={},
        dry_run=lambda: False,
    )
    box.open({"hook": (open_channel(SETTINGS["webhook"](url=url, allow_networks=("127.0.0.0/8",))), None)})
    messages = [owed(number) for number in range(5)]
    running = spawn(box.run(), name="outbox")
    try:
        box.put(messages)
        await settled(lambda: any(mark.last_error for mark in marks.values()))
        await server.start()  # until now it refused
        await settled(lambda: len(server.taken) == len(messages))
    finally:
        await cancel(running)
        await server.stop()
    assert server.taken == [one.id for one in messages]
    assert list(dict.fromkeys(server.tried)) == server.taken
    assert box.waiting == 0
    assert all(marks[one.id].sent_at is not None for one in messages)
    assert server.tried.count(messages[0].id) == 6
