"""Who is put off holds up nobody else: the real outbox on virtual time over a channel with several receivers."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from dataclasses import replace

import pytest

from servmon.alerts.alert import Notification
from servmon.alerts.channels.base import Channel, ChannelError
from servmon.alerts.outbox import SUMMARISED_FOR_SOME
from servmon.alerts.outcomes import FOR_SOME
from tests.alerts.test_outbox import Rig
from tests.virtual import run_virtual

NAMES = ("a", "b", "c")


class ForSeveral(Channel):
    """Puts off who is in ``put_off``, refuses who is in ``refused``, hangs for ``hanging``, tells all others.

    ``got`` holds for each receiver the subjects of what they were told, a summary as those of the messages in it.
    """

    kind = "several"

    def __init__(self, *receivers: str) -> None:
        self._receivers = receivers
        self.put_off: set[str] = set()
        self.refused: set[str] = set()
        self.hanging: set[str] = set()
        self.broken = False
        self.sendings = 0
        self.under_way: set[str] = set()
        self.got: dict[str, list[str]] = defaultdict(list)
        self.kinds: dict[str, list[str]] = defaultdict(list)

    @property
    def receivers(self) -> tuple[str, ...]:
        return self._receivers

    async def send(self, notification: Notification) -> None:
        owed = {*self.receivers}.difference(notification.served)
        assert not owed & self.under_way, "one message at a time to each"
        self.sendings += 1
        self.under_way |= owed
        try:
            await asyncio.sleep(30 if owed & self.hanging else 0.1)
        finally:
            self.under_way -= owed
        if self.broken:
            raise ChannelError("mail.example: refused")
        failing = owed & (self.put_off | self.refused | self.hanging)
        for receiver in owed - failing:
            subject = notification.subject.rpartition("] ")[2]
            self.got[receiver] += notification.content.get("subjects", [subject])
            self.kinds[receiver].append(notification.kind.value)
        if failing:
            said = f"refused for {', '.join(sorted(failing))}"
            raise ChannelError(said, permanent=failing <= self.refused, served=sorted(owed - failing))


class SeveralRig(Rig):
    """An outbox with the channel ``noc`` for several receivers, and one called ``sms``."""

    def __init__(self, *receivers: str, fallback: str | None = None) -> None:
        super().__init__("sms", fallbacks={"noc": fallback} if fallback else None)
        self.noc = ForSeveral(*receivers or NAMES)
        self.channels["noc"] = self.noc
        self.open()

    def put_many(self, numbers: range) -> list[str]:
        return [self.put("noc", number).subject for number in numbers]


def test_one_who_is_put_off_holds_up_nobody_and_gets_all_in_order_later():
    async def main():
        async with SeveralRig() as rig:
            rig.noc.put_off = {"c"}
            said = rig.put_many(range(1, 4))
            await asyncio.sleep(1)
            assert (rig.noc.got["a"], rig.noc.got["b"], rig.noc.got["c"]) == (said, said, [])
            assert rig.noc.sendings == 3  # of those for the two together; c's next try comes later
            assert rig.outbox.waiting == 3
            assert {mark.served for mark in rig.marks.values()} == {("a", "b")}
            assert [mark.last_error for mark in rig.marks.values()] == ["refused for c", FOR_SOME, FOR_SOME]
            assert rig.troubles["channel noc"].startswith("does not get through to 1 of its 3 receivers since")
            rig.noc.put_off = set()
            await asyncio.sleep(10)
            assert rig.noc.got == {"a": said, "b": said, "c": said}
            assert (rig.outbox.waiting, rig.troubles) == (0, {})
            assert all(mark.sent_at for mark in rig.marks.values())
            before = rig.noc.sendings
            said += rig.put_many(range(4, 5))
            await asyncio.sleep(1)
            assert rig.noc.sendings == before + 1  # in one again
            assert rig.noc.got == {"a": said, "b": said, "c": said}

    run_virtual(main)


def test_in_a_storm_who_was_behind_has_one_summary_and_the_others_each_message_at_once():
    async def main():
        async with SeveralRig() as rig:
            rig.noc.put_off = {"c"}
            said = []
            for burst in range(10):
                said += rig.put_many(range(50 * burst, 50 * burst + 50))
                await asyncio.sleep(60)
                assert rig.noc.got["a"] == rig.noc.got["b"] == said
            await asyncio.sleep(700)
            rig.noc.put_off = set()
            await asyncio.sleep(601)
            assert rig.noc.kinds["c"] == ["summary"]
            assert rig.noc.got["c"] == said
            assert rig.noc.kinds["a"] == ["down"] * 500
            assert {mark.last_error for mark in rig.marks.values()} == {SUMMARISED_FOR_SOME}
            assert rig.outbox.waiting == 0

    run_virtual(main)


def test_who_has_caught_up_is_not_held_up_by_those_who_are_put_off_by_now():
    async def main():
        async with SeveralRig() as rig:
            rig.noc.put_off = {"c"}
            said = rig.put_many(range(1, 2))
            await asyncio.sleep(1)
            rig.noc.put_off = {"a", "b", "c"}
            said += rig.put_many(range(2, 6))
            await asyncio.sleep(1)
            rig.noc.put_off = {"a", "b"}
            await asyncio.sleep(10)
            assert rig.noc.got["c"] == said
            said += rig.put_many(range(6, 7))
            await asyncio.sleep(1)
            assert rig.noc.got["c"] == said
            await asyncio.sleep(800)
            rig.noc.put_off = set()
            await asyncio.sleep(700)
            assert rig.noc.got == {"a": said, "b": said, "c": said}
            assert (rig.noc.kinds["a"], rig.noc.kinds["c"]) == (["down", "summary"], ["down"] * 6)

    run_virtual(main)


def test_where_the_channel_hangs_for_one_the_others_wait_for_that_once():
    async def main():
        async with SeveralRig() as rig:
            rig.noc.hanging = {"c"}
            said = []
            for number in range(1, 40):
                said += rig.put_many(range(number, number + 1))
                await asyncio.sleep(31)
                assert rig.noc.got["a"] == rig.noc.got["b"] == said
            assert rig.noc.got["c"] == []

    run_virtual(main)


def test_while_the_whole_channel_is_away_it_is_asked_once_for_all():
    async def main():
        async with SeveralRig() as rig:
            rig.noc.broken = True
            said = rig.put_many(range(1, 4))
            await asyncio.sleep(100)
            assert rig.noc.sendings == 3  # 0, 10, 40 s
            assert "to 1 of" not in rig.troubles["channel noc"]
            rig.noc.broken = False
            await asyncio.sleep(100)
            assert rig.noc.got == {"a": said, "b": said, "c": said}

    run_virtual(main)


def test_what_one_does_not_get_for_a_minute_goes_to_the_fallback_once():
    async def main():
        async with SeveralRig(fallback="sms") as rig:
            rig.noc.put_off = {"c"}
            rig.put_many(range(1, 3))
            await asyncio.sleep(39)
            sms = rig.channels["sms"]
            assert sms.sent == []
            await asyncio.sleep(2)  # the next try would come too late
            assert len(sms.sent) == 2
            rig.put_many(range(3, 4))
            await asyncio.sleep(3000)
            assert len(sms.sent) == 3
            assert "noc does not get through to 1 of its 3 receivers" in sms.sent[0].body

    run_virtual(main)


def test_who_can_never_be_told_is_named_and_told_around_while_another_is_still_tried():
    async def main():
        async with SeveralRig(fallback="sms") as rig:
            rig.noc.refused, rig.noc.put_off = {"a"}, {"c"}
            owed = rig.put("noc")
            await asyncio.sleep(15)
            assert [one.content["instead_of"] for one in rig.channels["sms"].sent] == [owed.id]
            assert rig.marks[owed.id].given_up_at is None  # c may have it yet
            rig.noc.put_off = set()
            await asyncio.sleep(30)
            assert rig.noc.got == {"b": [owed.subject], "c": [owed.subject]}
            assert (rig.marks[owed.id].sent_at, rig.marks[owed.id].last_error) == (None, "refused for a")
            assert rig.troubles["channel noc"].startswith("does not get through to 1 of its 3 receivers since")
            rig.noc.refused = set()
            rig.put("noc", 2)
            await asyncio.sleep(1)
            assert rig.troubles == {}

    run_virtual(main)


def test_one_who_is_refused_a_summary_leaves_the_others_with_one():
    async def main():
        async with SeveralRig() as rig:
            rig.noc.broken = True
            said = rig.put_many(range(1, 51))
            await asyncio.sleep(1500)
            rig.noc.broken, rig.noc.refused = False, {"a"}
            await asyncio.sleep(700)
            assert rig.noc.kinds == {"b": ["summary"], "c": ["summary"]}
            assert rig.noc.got["b"] == said
            assert all(mark.given_up_at for mark in rig.marks.values())

    run_virtual(main)


def test_a_reload_keeps_who_has_what_and_forgets_who_left():
    async def main():
        async with SeveralRig() as rig:
            first = rig.noc
            first.put_off = {"c"}
            said = rig.put_many(range(1, 3))
            await asyncio.sleep(1)
            rig.noc = rig.channels["noc"] = ForSeveral("a", "b", "d")
            rig.open()
            await asyncio.sleep(1)
            assert rig.noc.got == {"d": said}
            assert (rig.outbox.waiting, rig.troubles) == (0, {})
            assert all(mark.sent_at for mark in rig.marks.values())

    run_virtual(main)


def test_a_reload_that_leaves_nobody_who_is_owed_anything_ends_it():
    async def main():
        async with SeveralRig() as rig:
            rig.noc.put_off = {"c"}
            rig.put_many(range(1, 3))
            await asyncio.sleep(1)
            rig.noc = rig.channels["noc"] = ForSeveral("a")
            rig.open()
            assert rig.outbox.waiting == 0
            assert all(mark.sent_at for mark in rig.marks.values())
            await asyncio.sleep(60)
            assert (rig.noc.sendings, rig.troubles) == (0, {})

    run_virtual(main)


async def lives(seed: int) -> None:
    """Receivers come and go, messages come, and servmon is killed between sendings, as the seed says."""
    chance = random.Random(seed)
    got: dict[str, list[str]] = defaultdict(list)
    said: list[str] = []
    owed: list[Notification] = []
    for life in range(4):
        rig = SeveralRig()
        rig.noc.got = got
        async with rig:
            rig.outbox.restore(owed, ())
            for _ in range(chance.randint(3, 12)):
                if life < 3:
                    rig.noc.put_off = {name for name in NAMES if chance.random() < 0.4}
                    rig.noc.broken = chance.random() < 0.15
                    fresh = [rig.put("noc", len(said) + number) for number in range(chance.randint(0, 3))]
                    said += [one.subject for one in fresh]
                    owed += fresh
                await asyncio.sleep(chance.choice((0.05, 0.15, 1, 20, 70, 400)))
            if life == 3:
                await asyncio.sleep(1300)
                assert rig.outbox.waiting == 0
        owed = [
            replace(one, served=mark.served, attempts=mark.attempts) if mark else one
            for one in owed
            if not ((mark := rig.marks.get(one.id)) and mark.is_final)
        ]
    assert owed == []
    assert got == {name: said for name in NAMES if said}


@pytest.mark.parametrize("seed", range(25))
def test_whatever_happens_each_gets_each_message_once_and_in_order(seed):
    run_virtual(lambda: lives(seed))
