"""Messages get through, whatever the receivers do: the real outbox on virtual time over scripted channels."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Self
from uuid import UUID

import pytest

from servmon.alerts.alert import MessageKind, Notification
from servmon.alerts.channels.base import Channel, ChannelError
from servmon.alerts.outbox import SUMMARISED, Outbox
from servmon.alerts.outcomes import Mark
from servmon.clock import now
from servmon.model import Severity
from servmon.tasks import cancel, spawn
from tests.virtual import VirtualClock, run_virtual


class Scripted(Channel):
    """Fails as ``trouble`` says, hangs where it is ``None``, else keeps what it was sent and when."""

    kind = "scripted"

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.trouble: ChannelError | str | None = ""
        self.tries: list[float] = []
        self.sent: list[Notification] = []

    async def send(self, notification: Notification) -> None:
        self.tries.append(round(self.clock.monotonic() - 1000))
        if self.trouble is None:
            await asyncio.Event().wait()
        if self.trouble:
            raise self.trouble
        self.sent.append(notification)


class Rig:
    def __init__(self, *names: str, fallbacks: dict[str, str] | None = None, dry_run: bool = False) -> None:
        self.clock = VirtualClock()
        self.marks: dict[str, Mark] = {}
        self.added: list[Notification] = []
        self.troubles: dict[str, str] = {}
        self.over: set[str] = set()
        self.channels = {name: Scripted(self.clock) for name in names}
        self.outbox = Outbox(
            marked=lambda mark: self.marks.__setitem__(mark.id, mark),
            added=self.added.append,
            over=self.over.__contains__,
            troubles=self.troubles,
            dry_run=lambda: dry_run,
            clock=self.clock,
        )
        self.fallbacks = fallbacks or {}
        self.open()

    def open(self) -> None:
        self.outbox.open({name: (channel, self.fallbacks.get(name)) for name, channel in self.channels.items()})

    def put(self, channel: str, number: int = 1, kind: MessageKind = MessageKind.DOWN) -> Notification:
        owed = Notification(
            str(UUID(int=number)), str(UUID(int=900 + number)), channel, kind, Severity.MAJOR, f"DOWN: {number}",
            "it is down\n", now(self.clock),
        )  # fmt: skip
        self.outbox.put([owed])
        return owed

    async def __aenter__(self) -> Self:
        self._running = spawn(self.outbox.run(), name="outbox")
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel(self._running)


def test_what_gets_through_is_marked_and_owed_no_more():
    async def main():
        async with Rig("email") as rig:
            owed = rig.put("email")
            await asyncio.sleep(1)
            assert [one.id for one in rig.channels["email"].sent] == [owed.id]
            assert rig.marks[owed.id].sent_at == owed.created_at
            assert rig.outbox.waiting == 0

    run_virtual(main)


def test_a_failing_channel_is_tried_at_growing_distance_and_in_order_once_it_works():
    async def main():
        async with Rig("email") as rig:
            channel = rig.channels["email"]
            channel.trouble = ChannelError("mail.example answered 451")
            for number in (1, 2, 3):
                rig.put("email", number)
            await asyncio.sleep(500)
            assert channel.tries == [0, 10, 40, 160]
            assert "does not get through since" in rig.troubles["channel email"]
            assert rig.marks[str(UUID(int=1))].attempts == 4
            channel.trouble = ""
            await asyncio.sleep(600)
            assert [one.id for one in channel.sent] == [str(UUID(int=number)) for number in (1, 2, 3)]
            assert rig.troubles == {}
            assert all("[delayed 12 min]" in one.subject for one in channel.sent)

    run_virtual(main)


def test_a_late_message_says_how_late_and_what_is_true_by_now():
    async def main():
        async with Rig("email") as rig:
            channel = rig.channels["email"]
            channel.trouble = ChannelError("away")
            owed = rig.put("email")
            await asyncio.sleep(3 * 3600)
            rig.over.add(owed.alert_id)
            channel.trouble = ""
            await asyncio.sleep(601)
            (sent,) = channel.sent
            assert sent.subject.startswith("[delayed 3 h ")
            assert "It is over by now." in sent.body
            assert sent.id == owed.id

    run_virtual(main)


@pytest.mark.parametrize("trouble", [ChannelError("refused"), None], ids=["fails", "hangs"])
def test_the_fallback_is_told_within_two_minutes_each_message_once(trouble):
    async def main():
        async with Rig("email", "sms", fallbacks={"email": "sms"}) as rig:
            rig.channels["email"].trouble = trouble
            rig.put("email", 1)
            await asyncio.sleep(120)
            (first,) = rig.channels["sms"].sent
            assert "Sent here in place of email" in first.body
            assert first.id != str(UUID(int=1))
            rig.put("email", 2)
            await asyncio.sleep(1)
            assert len(rig.channels["sms"].sent) == 2  # known to be broken: at once
            await asyncio.sleep(4000)
            assert len(rig.channels["sms"].sent) == 2
            assert [one.channel for one in rig.added] == ["sms", "sms"]

    run_virtual(main)


def test_after_hours_one_summary_replaces_the_flood():
    async def main():
        async with Rig("email") as rig:
            channel = rig.channels["email"]
            channel.trouble = ChannelError("away")
            for number in range(1, 51):
                rig.put("email", number)
            await asyncio.sleep(7200)
            channel.trouble = ""
            await asyncio.sleep(700)
            (summary,) = channel.sent
            assert summary.kind is MessageKind.SUMMARY
            assert "DOWN: 1\n" in summary.body
            assert "DOWN: 50\n" in summary.body
            assert {mark.last_error for mark in rig.marks.values()} == {SUMMARISED}
            assert all(mark.sent_at for mark in rig.marks.values())
            rig.put("email", 51)
            await asyncio.sleep(1)
            assert channel.sent[-1].subject == "DOWN: 51"

    run_virtual(main)


def test_who_had_only_the_first_of_many_is_told_of_all_in_the_summary():
    async def main():
        async with Rig("email") as rig:
            channel = rig.channels["email"]
            channel.trouble = ChannelError("b is put off", served=("a",))
            first, *others = [rig.put("email", number) for number in range(1, 6)]
            await asyncio.sleep(500)
            assert rig.marks[first.id].served == ("a",)
            assert not rig.marks.keys() & {one.id for one in others}
            channel.trouble = ""
            await asyncio.sleep(500)
            (summary,) = channel.sent
            assert (summary.kind, summary.served) == (MessageKind.SUMMARY, ())
            assert summary.id not in rig.marks  # else who has the first message might take it for that

    run_virtual(main)


def test_who_had_a_summary_gets_it_no_second_time():
    async def main():
        async with Rig("email") as rig:
            channel = rig.channels["email"]
            channel.trouble = ChannelError("away")
            owed = [rig.put("email", number) for number in range(1, 6)]
            await asyncio.sleep(900)
            channel.trouble = ChannelError("b is put off", served=("a",))
            await asyncio.sleep(600)
            assert {rig.marks[one.id].served for one in owed} == {("a",)}
            channel.trouble = ""
            await asyncio.sleep(600)
            (summary,) = channel.sent
            assert (summary.kind, summary.served) == (MessageKind.SUMMARY, ("a",))

    run_virtual(main)


def test_what_can_never_arrive_is_given_up_at_once_and_told_over_the_fallback():
    async def main():
        async with Rig("email", "sms", fallbacks={"email": "sms"}) as rig:
            channel = rig.channels["email"]
            channel.trouble = ChannelError("550 no such user", permanent=True)
            owed = rig.put("email")
            await asyncio.sleep(1)
            assert channel.tries == [0]
            assert rig.marks[owed.id].given_up_at is not None
            assert len(rig.channels["sms"].sent) == 1
            assert rig.troubles["channel email"].endswith("550 no such user")
            channel.trouble = ""
            await asyncio.sleep(3600)
            rig.put("email", 2)
            await asyncio.sleep(1)
            assert len(rig.channels["sms"].sent) == 1  # who got the last word for that one is not woken for this
            assert rig.troubles == {}

    run_virtual(main)


def test_a_day_is_long_enough():
    async def main():
        async with Rig("email") as rig:
            rig.channels["email"].trouble = ChannelError("away")
            owed = rig.put("email")
            await asyncio.sleep(timedelta(days=1, minutes=20).total_seconds())
            assert rig.marks[owed.id].given_up_at is not None
            assert rig.outbox.waiting == 0

    run_virtual(main)


def test_a_channel_that_hangs_for_ten_minutes_delays_no_other():
    async def main():
        async with Rig("email", "sms") as rig:
            rig.channels["email"].trouble = None
            for number in range(20):
                rig.put("email", number)
                rig.put("sms", 100 + number)
                await asyncio.sleep(30)
            assert rig.channels["sms"].tries == [30 * number for number in range(20)]
            assert rig.channels["email"].sent == []

    run_virtual(main)


def test_a_receiver_that_names_a_time_is_not_asked_before():
    async def main():
        async with Rig("email", "sms", fallbacks={"email": "sms"}) as rig:
            channel = rig.channels["email"]
            channel.trouble = ChannelError("429", retry_after=300)
            rig.put("email")
            await asyncio.sleep(299)
            assert channel.tries == [0]
            assert len(rig.channels["sms"].sent) == 1  # five minutes are too long to say nothing
            channel.trouble = ""
            await asyncio.sleep(2)
            assert channel.tries == [0, 300]

    run_virtual(main)


def test_a_defect_in_a_channel_is_a_failure_like_any_other():
    async def main():
        async with Rig("email") as rig:
            channel = rig.channels["email"]
            channel.trouble = ZeroDivisionError()
            rig.put("email")
            await asyncio.sleep(5)
            channel.trouble = ""
            await asyncio.sleep(10)
            assert len(channel.sent) == 1

    run_virtual(main)


def test_a_channel_that_swallows_its_cancellation_does_not_keep_servmon_from_stopping():
    class Polite(Scripted):
        async def send(self, notification: Notification) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.sent.append(notification)

    async def main():
        rig = Rig("email")
        rig.channels["email"] = Polite(rig.clock)
        rig.open()
        async with rig:
            owed = rig.put("email")
            await asyncio.sleep(1)
        assert rig.marks[owed.id].sent_at is not None

    run_virtual(main)


def test_a_dry_run_sends_nothing_and_says_so():
    async def main():
        async with Rig("email", dry_run=True) as rig:
            owed = rig.put("email")
            await asyncio.sleep(1)
            assert rig.channels["email"].tries == []
            assert rig.marks[owed.id].last_error == "dry run: decided, not sent"

    run_virtual(main)


def test_new_settings_keep_what_waits_and_give_up_what_has_no_way_out_any_more():
    async def main():
        async with Rig("email", "sms") as rig:
            rig.channels["email"].trouble = rig.channels["sms"].trouble = ChannelError("away")
            kept, lost = rig.put("email", 1), rig.put("sms", 2)
            await asyncio.sleep(1)
            rig.channels = {"email": Scripted(rig.clock)}
            rig.open()
            await asyncio.sleep(1)
            assert [one.id for one in rig.channels["email"].sent] == [kept.id]
            assert "no channel 'sms' any more" in rig.marks[lost.id].last_error

    run_virtual(main)


def test_what_is_owed_by_a_channel_that_is_taken_out_goes_to_its_fallback():
    async def main():
        async with Rig("email", "sms", fallbacks={"email": "sms"}) as rig:
            rig.channels["email"].trouble = ChannelError("away")
            lost = rig.put("email")
            await asyncio.sleep(1)
            del rig.channels["email"]
            rig.open()
            await asyncio.sleep(1)
            assert "no channel 'email' any more" in rig.marks[lost.id].last_error
            assert [one.content["instead_of"] for one in rig.channels["sms"].sent] == [lost.id]
            assert rig.troubles == {}

    run_virtual(main)


def test_after_a_restart_a_copy_that_was_made_is_not_made_again():
    async def main():
        async with Rig("email", "sms", fallbacks={"email": "sms"}) as rig:
            rig.channels["email"].trouble = ChannelError("away")
            owed = Notification(
                str(UUID(int=7)), str(UUID(int=8)), "email", MessageKind.DOWN, Severity.MAJOR, "s", "b", now(rig.clock)
            )
            rig.outbox.restore([owed], [owed.id])
            await asyncio.sleep(1000)
            assert rig.channels["sms"].sent == []

    run_virtual(main)
