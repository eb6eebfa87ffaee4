"""What is told, when, together with what: the pure rounds of the dispatcher, second by second."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from servmon.alerts.alert import MessageKind, News, Told, news_of, news_of_event
from servmon.alerts.dispatcher import Dispatcher
from servmon.alerts.routing import Silence
from servmon.alerts.settings import AlertSection, RuleSection
from servmon.detection.maintenance import Covered
from servmon.model import Endpoint, Event, EventKind, Outage, Severity, State, StateChange

START = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
NEAR = {"tags": ("edge",), "site": "pop-north"}


class Present:
    """What the stages may ask, set by hand."""

    def __init__(self) -> None:
        self.windows: set[str] = set()
        self.suspected = False
        self.size = 0
        self.below: dict[str, tuple[str, ...]] = {}
        self.near: list[Covered] = []
        self.outages: dict[str, Outage] = {}
        self.endpoint_fields: dict[str, dict] = {}
        self.known: tuple[str, ...] = ()

    def covered(self) -> list[Covered]:
        return self.near

    def open_outage(self, endpoint_id: str) -> Outage | None:
        return self.outages.get(endpoint_id)

    def does_not_answer(self, endpoint_id: str) -> bool:
        return endpoint_id in self.outages

    def endpoint(self, endpoint_id: str) -> Endpoint:
        return endpoint(endpoint_id, **self.endpoint_fields.get(endpoint_id, {}))

    def endpoints(self) -> list[Endpoint]:
        return [self.endpoint(one) for one in self.known]

    def open_outages(self) -> list[tuple[Endpoint, Outage]]:
        return [(self.endpoint(one), open_outage) for one, open_outage in self.outages.items()]

    def takes_down(self, endpoint_id: str) -> tuple[str, ...]:
        return self.below.get(endpoint_id, ())

    def in_maintenance(self, endpoint_id: str) -> bool:
        return endpoint_id in self.windows

    def neighbour_suspected(self, endpoint: Endpoint) -> bool:
        return self.suspected and endpoint.site is not None

    def failing_at(self, _site: str, _around, _within) -> int:
        return 0

    def unsteady_parent(self, _endpoint) -> None:
        return None

    def site_size(self, _site: str) -> int:
        return self.size


class Desk:
    """A dispatcher with a clock: ``at(seconds, *news)`` is one round."""

    def __init__(self, *, channels: tuple[str, ...] = ("email",), **settings) -> None:
        ids = (f"00000000-0000-4000-8000-{number:012}" for number in count())
        self.present = Present()
        self.dispatcher = Dispatcher(
            AlertSection(**{"notification_channels": channels, **settings}), channels, self.present, ids.__next__
        )
        self.told: list[Told] = []

    def at(self, seconds: float, *news: News) -> list[tuple[MessageKind, str]]:
        """What leaves in the round at ``seconds``: the kinds and subjects of its messages."""
        told = self.dispatcher.step(news, START + timedelta(seconds=seconds))
        self.told.append(told)
        return [(one.kind, one.subject) for one in told.notifications]

    def run(self, first: float, last: float, step: float = 1.0) -> list[tuple[float, MessageKind]]:
        """Rounds without news from ``first`` up to ``last``: when which kinds left."""
        found = []
        moment = first
        while moment < last:
            found += [(moment, kind) for kind, _ in self.at(moment)]
            moment += step
        return found

    @property
    def reasons(self) -> dict[str, tuple[str, str]]:
        """What was decided last of each piece of news."""
        return {one.news_id: (one.stage, one.reason) for told in self.told for one in told.decisions}


def endpoint(name: str, **fields) -> Endpoint:
    return Endpoint(id=name, name=name, url=f"tcp://{name}.example:1", protocol="TCP", **fields)


def outage(name: str, seconds: float = 0, **fields) -> Outage:
    at = START + timedelta(seconds=seconds)
    return Outage(f"outage-{name}", name, fields.pop("severity", Severity.MAJOR), "no answer", at, at, **fields)


def down(
    name: str,
    seconds: float = 0,
    *,
    severity: Severity = Severity.MAJOR,
    news_id: str = "",
    caused_by: str | None = None,
    **fields,
) -> News:
    about = outage(name, seconds, severity=severity, caused_by=caused_by)
    change = StateChange(
        news_id or f"down-{name}", name, State.SUSPECTED, State.DOWN, "3 failed checks", START, about.id
    )
    return news_of(change, about, endpoint(name, **fields))


def up(name: str, seconds: float, *, reason: str = "recovered", notes: str | None = None, **fields) -> News:
    about = outage(name, resolved=True, resolved_at=START + timedelta(seconds=seconds), resolution_notes=notes)
    change = StateChange(f"up-{name}", name, State.DOWN, State.UP, reason, START, about.id)
    return news_of(change, about, endpoint(name, **fields))


def flaps(name: str, *, flapping: bool) -> News:
    change = StateChange(
        f"flap-{name}-{flapping}", name, State.UP, State.UP, "flapping", START, evidence={"flapping": flapping}
    )
    return news_of(change, None, endpoint(name))


def kinds(found: Iterable[tuple[MessageKind, str]]) -> list[MessageKind]:
    return [kind for kind, _ in found]


def test_a_lone_outage_is_told_at_once_and_so_is_its_end():
    desk = Desk()
    assert desk.at(0, down("web")) == [(MessageKind.DOWN, "DOWN: web (MAJOR)")]
    assert desk.run(1, 600) == []
    assert desk.at(600, up("web", 600)) == [(MessageKind.RECOVERED, "UP: web (down for 10 min)")]
    assert desk.run(601, 20_000, 30) == []


def test_what_is_no_news_is_none():
    step = StateChange("x", "web", State.UP, State.SUSPECTED, "no answer", START)
    assert news_of(step, None, endpoint("web")) is None


def test_down_and_up_that_meet_are_one_message():
    desk = Desk()
    desk.present.suspected = True
    assert desk.at(0, down("web", **NEAR)) == []
    assert desk.at(20, up("web", 20, **NEAR)) == [(MessageKind.BRIEF, "WAS DOWN: web (down for 20 s)")]
    desk.present.suspected = False
    assert desk.run(21, 4000, 10) == []
    assert {stage for stage, _ in desk.reasons.values()} == {"sent"}


def test_down_and_up_read_in_one_round_are_one_message():
    assert kinds(Desk().at(100, down("web"), up("web", 90))) == [MessageKind.BRIEF]


def test_while_a_neighbour_is_suspected_a_site_waits_and_is_told_in_one_message():
    desk = Desk()
    desk.present.suspected, desk.present.size = True, 10
    assert desk.at(0, down("a", **NEAR)) == []
    assert desk.at(10, *(down(name, 10, **NEAR) for name in "bcde")) == []
    assert desk.run(11, 30) == []
    (message,) = desk.at(30)
    assert message == (MessageKind.DOWN, "DOWN: site pop-north: 5 of 10 endpoints (MAJOR)")


def test_the_wait_ends_as_soon_as_no_neighbour_is_suspected():
    desk = Desk()
    desk.present.suspected = True
    desk.at(0, down("a", **NEAR), down("b", **NEAR))
    desk.present.suspected = False
    assert desk.at(3) == [(MessageKind.DOWN, "DOWN: 2 of 2 endpoints at pop-north (MAJOR)")]


def test_after_a_message_of_several_the_next_of_that_site_waits_for_the_interval():
    desk = Desk()
    desk.at(0, down("a", **NEAR), down("b", **NEAR))
    assert desk.at(60, down("c", 60, **NEAR)) == []
    assert desk.run(61, 400) == [(300, MessageKind.DOWN)]


def test_a_site_that_recovers_bit_by_bit_is_told_in_a_few_messages():
    desk = Desk()
    desk.at(0, *(down(name, **NEAR) for name in "abcdef"))
    assert desk.at(100, up("a", 100), up("b", 100)) == []
    assert desk.run(101, 131) == [(130, MessageKind.PARTLY)]
    assert desk.at(140, up("c", 140)) == []
    assert desk.run(141, 431) == [(430, MessageKind.PARTLY)]
    assert kinds(desk.at(440, *(up(name, 440) for name in "def"))) == [MessageKind.RECOVERED]
    assert desk.run(441, 5000, 5) == []
    assert not desk.dispatcher.alerts


def test_a_storm_is_one_message_more_with_the_whole_list():
    desk = Desk(storm_limit=5)
    calm = [message for number in range(5) for message in desk.at(number, down(f"c{number}", number))]
    assert len(calm) == 5
    assert desk.at(6, *(down(f"s{number}", 6) for number in range(200))) == []
    left = [(moment, told) for moment in range(7, 60) if (told := desk.at(moment))]
    assert left == [(36, [(MessageKind.DOWN, "DOWN: 200 endpoints (MAJOR)")])]
    assert max(len(alert.members) for alert in desk.dispatcher.alerts) == 200


def test_reminders_come_after_an_hour_and_then_at_doubled_distance():
    desk = Desk()
    desk.at(0, down("web"))
    hours = [moment / 3600 for moment, kind in desk.run(60, 80 * 3600, 60) if kind is MessageKind.REMINDER]
    assert hours == [1, 3, 7, 15, 31, 55, 79]


@pytest.mark.parametrize("why", ["window", "acknowledged", "silence"])
def test_nobody_is_reminded_of_what_is_planned_or_seen_to(why):
    desk = Desk()
    desk.at(0, down("web"))
    if why == "window":
        desk.present.windows.add("web")
    elif why == "silence":
        desk.dispatcher.silences = [Silence("s", {"ids": ["web"]}, "known", START, START + timedelta(days=1))]
    else:
        desk.dispatcher.acknowledged = frozenset({"outage-web"})
    assert desk.run(60, 10_000, 60) == []
    assert kinds(desk.at(10_000, up("web", 10_000))) == [MessageKind.RECOVERED]


def test_a_raised_severity_is_told_once():
    desk = Desk()
    desk.at(0, down("web", severity=Severity.WARNING))
    raised = down("web", severity=Severity.CRITICAL, news_id="raised")
    assert desk.at(60, raised) == [(MessageKind.RAISED, "RAISED: web (CRITICAL)")]
    assert desk.at(61, replace(raised, id="again")) == []
    assert desk.reasons["again"][0] == "already told"


def test_flapping_is_one_notice_in_and_one_out_and_nothing_between():
    desk = Desk()
    assert kinds(desk.at(0, flaps("web", flapping=True))) == [MessageKind.FLAPPING]
    assert desk.at(10, down("web", 10)) == []
    assert desk.at(70, up("web", 70)) == []
    assert kinds(desk.at(100, flaps("web", flapping=False))) == [MessageKind.STEADY]
    assert desk.run(101, 300) == []


def test_what_is_still_down_when_flapping_ends_is_told():
    desk = Desk()
    desk.at(0, flaps("web", flapping=True), down("web"))
    assert kinds(desk.at(100, flaps("web", flapping=False))) == [MessageKind.STEADY]
    assert [kind for _, kind in desk.run(101, 110)] == [MessageKind.DOWN]


def test_a_silence_keeps_back_until_it_ends_and_names_its_reason():
    desk = Desk()
    desk.dispatcher.silences = [Silence("s", {"tags": ["edge"]}, "card swap", START, START + timedelta(minutes=10))]
    assert desk.at(0, down("web", **NEAR), down("other")) == [(MessageKind.DOWN, "DOWN: other (MAJOR)")]
    assert desk.reasons["down-web"] == ("silence", "silenced until 2026-11-24 03:10 UTC: card swap")
    assert [moment for moment, _ in desk.run(1, 700)] == [600]


def test_what_is_over_before_a_silence_ends_is_never_told_and_says_why():
    desk = Desk()
    desk.dispatcher.silences = [Silence("s", {"ids": ["web"]}, "card swap", START, START + timedelta(minutes=10))]
    desk.at(0, down("web"))
    assert desk.at(60, up("web", 60)) == []
    assert desk.run(61, 1000, 5) == []
    assert desk.reasons["down-web"] == ("never told", "over at 03:01:00 UTC, and kept back until then")


def test_a_silence_does_not_keep_back_the_end_of_what_was_told():
    desk = Desk()
    desk.at(0, down("web"))
    desk.dispatcher.silences = [Silence("s", {}, "quiet please", START, START + timedelta(hours=1))]
    assert kinds(desk.at(60, up("web", 60))) == [MessageKind.RECOVERED]


def test_router_down_with_200_children_is_one_message_that_names_them():
    desk = Desk()
    children = [f"c{number}" for number in range(200)]
    desk.present.below["router"] = tuple(children)
    told = desk.at(10, down("router", 10), *(down(name, 10, caused_by="router") for name in children))
    assert told == [(MessageKind.DOWN, "DOWN: router (MAJOR)")]
    (message,) = desk.told[-1].notifications
    assert "Cuts off 200 endpoints that depend on it: c0, c1, " in message.body
    assert message.content["outages"][0]["takes_down"] == children
    assert desk.run(11, 600) == []
    assert desk.reasons["down-c7"] == ("dependency", "it depends on router, which is out or has just come back")


def test_router_back_and_three_children_stay_dead_exactly_those_three_are_told():
    desk = Desk()
    children = [f"c{number}" for number in range(200)]
    desk.at(0, down("router"), *(down(name, site="pop-north", caused_by="router") for name in children))
    assert kinds(desk.at(600, up("router", 600))) == [MessageKind.RECOVERED]
    assert desk.at(630, *(up(name, 630) for name in children[3:])) == []
    own = (down(name, news_id=f"own-{name}", site="pop-north") for name in children[:3])
    assert desk.at(720, *own) == [(MessageKind.DOWN, "DOWN: 3 of 3 endpoints at pop-north (MAJOR)")]
    assert desk.reasons["up-c5"][0] == "never told"


def test_a_parent_deleted_in_its_outage_is_one_closing_notice_that_says_why_and_names_its_dependants():
    desk = Desk()
    desk.present.below["router"] = ("c0", "c1")
    desk.at(0, down("router"), down("c0", caused_by="router"))
    note = "Closed because the endpoint was deleted"
    closed = desk.at(60, up("router", 60, reason="endpoint deleted", notes=note))
    assert closed == [(MessageKind.RECOVERED, "CLOSED: router (down for 1 min)")]
    (message,) = desk.told[-1].notifications
    assert note in message.body
    assert "2 endpoints that depend on it: c0, c1" in message.body
    assert desk.run(61, 600) == []


def test_an_outage_resolved_by_hand_is_told_as_closed_and_not_as_up():
    desk = Desk()
    desk.at(0, down("web"))
    assert desk.at(60, up("web", 60, reason="resolved by hand")) == [
        (MessageKind.RECOVERED, "CLOSED: web (down for 1 min)")
    ]
    assert "Closed: resolved by hand" in desk.told[-1].notifications[0].body


def test_an_outage_that_turns_out_to_be_its_own_before_anybody_looked_is_told_once():
    desk = Desk()
    assert desk.at(0, down("c0"), down("c0", news_id="own")) == [(MessageKind.DOWN, "DOWN: c0 (MAJOR)")]
    assert desk.reasons["down-c0"][0] == "superseded"
    assert kinds(desk.at(60, up("c0", 60))) == [MessageKind.RECOVERED]


def test_what_a_window_holds_back_and_then_is_its_parents_doing_is_not_told():
    desk = Desk()
    desk.present.windows = {"c0"}
    desk.at(0, down("c0"))
    desk.at(30, down("c0", news_id="blamed", caused_by="router"))
    desk.present.windows = set()
    assert desk.run(31, 600) == []
    assert kinds(desk.at(600, up("c0", 600))) == []


def test_rules_choose_who_is_told_and_what_none_selects_is_told_to_nobody():
    rules = (
        RuleSection(name="off", sites=("pop-north",), channels=("sms",), enabled=False),
        RuleSection(name="north", sites=("pop-north",), channels=("sms", "email")),
        RuleSection(name="critical", severities=("CRITICAL",), channels=("sms",)),
    )
    desk = Desk(channels=("email", "sms"), rules=rules)
    desk.at(0, down("a", site="pop-north"))
    assert [one.channel for one in desk.told[-1].notifications] == ["sms", "email"]
    desk.at(1, down("b", severity=Severity.CRITICAL))
    assert [one.channel for one in desk.told[-1].notifications] == ["sms"]
    assert desk.at(2, down("c")) == []
    assert desk.reasons["down-c"] == ("rule", "no rule selects it")
    assert desk.at(3, up("c", 3)) == []


def test_one_message_has_the_readers_of_all_it_names():
    rules = (RuleSection(name="one", ids=("a",), channels=("sms",)), RuleSection(name="rest", channels=("email",)))
    desk = Desk(channels=("email", "sms"), rules=rules)
    desk.at(0, down("a", **NEAR), down("b", **NEAR), down("c", **NEAR))
    assert [(one.channel, one.subject) for one in desk.told[-1].notifications] == [
        ("sms", "DOWN: a (MAJOR)"),
        ("email", "DOWN: 2 of 2 endpoints at pop-north (MAJOR)"),
    ]


def test_where_a_rule_names_only_channels_that_are_no_more_the_usual_ones_hear_of_it():
    rules = (
        RuleSection(name="gone", ids=("a",), channels=("pager",)),
        RuleSection(name="half", ids=("b",), channels=("pager", "sms")),
        RuleSection(name="nobody", ids=("c",), channels=()),
    )
    desk = Desk(channels=("email", "sms"), notification_channels=("email",), rules=rules)
    for at, (name, heard) in enumerate({"a": ["email"], "b": ["sms"], "c": []}.items()):
        desk.at(at, down(name))
        assert [one.channel for one in desk.told[-1].notifications] == heard
    assert desk.reasons["down-c"] == ("whom", "no channel is configured for it")
    desk.dispatcher.channel_names = ("email",)
    desk.at(60, up("b", 60))
    assert [one.channel for one in desk.told[-1].notifications] == ["email"]


def test_without_a_channel_the_reason_is_kept():
    desk = Desk(channels=())
    assert desk.at(0, down("web")) == []
    assert desk.reasons["down-web"] == ("whom", "no channel is configured for it")


def test_isolation_goes_to_every_channel():
    desk = Desk(channels=("email", "sms"), notification_channels=("email",))
    event = Event("e", EventKind.ISOLATED, Severity.CRITICAL, "isolated: all witnesses are silent", START)
    desk.at(0, news_of_event(event))
    assert [one.channel for one in desk.told[-1].notifications] == ["email", "sms"]
    assert desk.told[-1].notifications[0].subject == "servmon: isolated: all witnesses are silent (CRITICAL)"


def isolation(kind: EventKind, message: str) -> News:
    return news_of_event(Event(f"event-{kind}", kind, Severity.CRITICAL, message, START))


def test_isolation_and_its_end_are_one_alert_also_over_a_restart():
    before, after = Desk(), Desk()
    before.at(0, isolation(EventKind.ISOLATED, "isolated"))
    (alert,) = before.dispatcher.alerts
    assert before.run(60, 50_000, 600) == []  # nobody has to be reminded of it
    after.dispatcher.restore([alert])
    assert kinds(after.at(60, isolation(EventKind.CONNECTED, "connected again"))) == [MessageKind.EVENT_OVER]
    assert after.told[-1].notifications[0].alert_id == alert.id
    assert not after.dispatcher.alerts


def test_a_refused_configuration_is_told_once_and_that_it_is_right_again():
    desk = Desk()
    refused = isolation(EventKind.CONFIGURATION_REFUSED, "configuration not applied: servmon.toml:3: no")
    assert kinds(desk.at(0, refused)) == [MessageKind.EVENT]
    again = replace(refused, event=replace(refused.event, id="another"))
    assert desk.at(600, again) == []
    assert kinds(desk.at(900, isolation(EventKind.CONFIGURATION_APPLIED, "right again"))) == [MessageKind.EVENT_OVER]
    assert not desk.dispatcher.alerts


def test_flapping_over_a_restart_is_neither_told_again_nor_forgotten():
    before, after = Desk(), Desk()
    before.at(0, flaps("web", flapping=True))
    after.dispatcher.restore(before.dispatcher.alerts)
    assert after.at(10, down("web", 10), flaps("web", flapping=True)) == []
    assert kinds(after.at(20, flaps("web", flapping=False))) == [MessageKind.STEADY]


def test_blindness_is_said_once():
    desk = Desk()
    assert kinds(desk.at(0, isolation(EventKind.BLIND, "nothing is known any more of 3"))) == [MessageKind.EVENT]
    assert not desk.dispatcher.alerts


def test_the_end_of_what_nobody_was_told_of_is_told_to_nobody():
    assert Desk().at(0, flaps("web", flapping=False), isolation(EventKind.CONNECTED, "connected")) == []


def test_after_a_restart_what_was_told_is_not_told_again_and_its_end_is():
    before = Desk()
    before.at(0, down("web"), down("a", **NEAR), down("b", **NEAR))
    after = Desk()
    after.dispatcher.restore(before.dispatcher.alerts)
    assert after.at(60, down("web"), down("a", **NEAR)) == []
    assert after.at(61, up("web", 61)) == [(MessageKind.RECOVERED, "UP: web (down for 1 min)")]


def test_one_piece_of_news_that_cannot_be_judged_stops_no_other():
    desk = Desk()
    broken = replace(down("broken"), endpoint=replace(endpoint("broken"), tags=None))
    desk.dispatcher.silences = [Silence("s", {"tags": ["edge"]}, "?", START, START + timedelta(hours=1))]
    assert desk.at(0, broken, down("other")) == [(MessageKind.DOWN, "DOWN: other (MAJOR)")]
    assert desk.reasons["down-broken"] == ("defect", "could not be judged: TypeError")


def test_what_cannot_be_put_into_words_is_told_plainly():
    desk = Desk()
    desk.at(0, down("web"))
    news = up("web", 5)
    assert desk.at(5, replace(news, outage=replace(news.outage, resolved_at="soon"))) == [
        (MessageKind.RECOVERED, "UP: web")
    ]
    assert len(desk.told[-1].defects) == 1


@pytest.mark.parametrize("name", ["evil\r\nBcc: all@isp.example", "<b>bold</b>", "\x1b[31mred", "x" * 5000])
def test_a_strangers_name_is_one_harmless_line(name):
    desk = Desk()
    news = down("web")
    desk.at(0, replace(news, endpoint=replace(news.endpoint, name=name)))
    (message,) = desk.told[-1].notifications
    assert message.subject.isprintable()
    assert len(message.subject) <= 200
    assert all(line.isprintable() for line in message.body.splitlines())


def test_ten_thousand_outages_are_few_messages_and_each_has_its_reason():
    desk = Desk()
    found = desk.at(0, *(down(f"e{number}", site=f"pop-{number % 40}") for number in range(10_000)))
    found += [(kind, "") for _, kind in desk.run(1, 120)]
    assert len(found) <= 12
    assert len(desk.reasons) == 10_000
    assert {stage for stage, _ in desk.reasons.values()} == {"sent"}
