"""Dependencies end to end on virtual time: the real scheduler, monitor, surroundings and dispatcher."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from servmon.alerts.alert import MessageKind, news_of
from servmon.alerts.dispatcher import Dispatcher
from servmon.alerts.settings import AlertSection
from servmon.clock import now, utc
from servmon.detection import maintenance
from servmon.model import MaintenanceMode, MaintenanceWindow
from servmon.monitor import Rules
from servmon.probes.base import Answer
from servmon.surroundings import Surroundings
from servmon.tasks import cancel, spawn
from tests.virtual import START, World, endpoint, run_virtual

CHILDREN = [f"c{number}" for number in range(200)]


def dead(*spans: tuple[str, float, float]):
    """A script: these do not answer between two moments; ``*`` is every child."""

    async def script(name: str, moment: float) -> Answer:
        for which, start, end in spans:
            if (which in (name, "*" if name != "router" else "")) and start <= moment < end:
                await asyncio.Event().wait()
        await asyncio.sleep(0.02)
        return Answer(20.0)

    return script


class Telling:
    """A world in which somebody is told; ``told`` are the moments, kinds and titles."""

    def __init__(self, script, **world) -> None:
        self.world = World(script, **world)
        ids = (f"00000000-0000-4000-8000-{number:012}" for number in count())
        self.dispatcher = Dispatcher(
            AlertSection(notification_channels=("noc",), reminder_after=0),
            ("noc",),
            Surroundings(self.world.monitor, self.world.causes, self.world.clock),
            ids.__next__,
        )
        self.told: list[tuple[float, MessageKind, str]] = []
        self.bodies: list[str] = []
        self._seen = 0

    async def run(self, seconds: float) -> None:
        task = spawn(self._rounds(), name="rounds")
        await self.world.run(seconds)
        await cancel(task)

    async def _rounds(self) -> None:
        while True:
            await asyncio.sleep(1)
            changes = self.world.recorder.changes[self._seen :]
            self._seen += len(changes)
            arrived = []
            for change in changes:
                about = self.world.recorder.outages.get(change.outage_id or "")
                plan = self.world.monitor.plan(change.endpoint_id)
                if (news := news_of(change, about, plan.endpoint)) is not None:
                    arrived.append(news)
            told = self.dispatcher.step(arrived, now(self.world.clock))
            moment = self.world.clock.monotonic()
            self.told += [(moment, one.kind, one.subject.split(" (")[0]) for one in told.notifications]
            self.bodies += [one.body for one in told.notifications]

    @property
    def subjects(self) -> list[str]:
        return [subject for _, _, subject in self.told]

    @property
    def causes(self) -> dict[str, str | None]:
        """By endpoint whose doing its last outage is."""
        return {outage.endpoint_id: outage.caused_by for outage in self.world.recorder.outages.values()}


def telling(script, seconds: float, *, children: list[str] = CHILDREN, during=None, windows=(), **fields) -> Telling:
    async def main():
        rig = Telling(script)
        rig.world.watch([endpoint("router", **fields)])
        rig.world.watch([endpoint(name, depends_on=(("router",),), site="pop-north", **fields) for name in children])
        watched = [one.plan.endpoint for one in rig.world.monitor.watched.values()]
        over = maintenance.by_endpoint(windows, watched, utc(START), utc(START + 9000))
        rig.world.monitor.set_windows(over)
        disturbance = spawn(during(rig), name="disturbance") if during else None
        await rig.run(seconds)
        if disturbance:
            await disturbance
        return rig

    return run_virtual(main)


def test_router_down_with_200_children_one_alert_and_200_caused_by():
    rig = telling(dead(("*", 2000, 4000), ("router", 2000, 4000)), 5000)
    assert rig.subjects == ["DOWN: router", "UP: router"]
    assert rig.causes == {"router": None, **dict.fromkeys(CHILDREN, "router")}
    assert "Cuts off 200 endpoints that depend on it: c0, c1, c2" in rig.bodies[0]
    assert all(outage.resolved for outage in rig.world.recorder.outages.values())


def test_router_back_and_3_children_stay_dead_exactly_those_3_alert():
    stuck = [(name, 2000.0, 9000.0) for name in CHILDREN[:3]]
    rig = telling(dead(("*", 2000, 4000), ("router", 2000, 4000), *stuck), 5000)
    assert rig.subjects == ["DOWN: router", "UP: router", "DOWN: 3 of 200 endpoints at pop-north"]
    assert 120 <= rig.told[2][0] - rig.told[1][0] <= 130  # two intervals of grace, and a moment
    assert rig.causes == {"router": None, **dict.fromkeys(CHILDREN, "router"), "c0": None, "c1": None, "c2": None}
    reasons = [change.reason for change in rig.world.recorder.changes if change.endpoint_id == "c0"][-2:]
    assert reasons == [
        "router answers again; this one has 120 s to follow",
        "still down 120 s after router was over: a failure of its own",
    ]


def test_a_child_that_comes_back_within_its_grace_is_never_told():
    rig = telling(dead(("*", 2000, 4060), ("router", 2000, 4000)), 5000)
    assert rig.subjects == ["DOWN: router", "UP: router"]


@pytest.mark.parametrize("name", ["a", "b", "c", "d", "e"])
@pytest.mark.parametrize("threshold", [1, 3])
def test_child_fails_1_s_before_its_parent_whatever_the_phase(name, threshold):
    script = dead((name, 1999, 4000), ("router", 2000, 4000))
    rig = telling(script, 5000, children=[name], detection_threshold=threshold)
    assert rig.subjects == ["DOWN: router", "UP: router"]
    assert rig.causes == {"router": None, name: "router"}


@pytest.mark.parametrize("name", ["a", "b", "c", "d", "e"])
def test_a_child_quicker_than_its_parent_waits_for_the_verdict_on_it(name):
    async def main():
        rig = Telling(dead(("*", 2000, 4000), ("router", 2000, 4000)))
        rig.world.watch([endpoint("router", check_interval=300)])
        rig.world.watch([endpoint(name, depends_on=(("router",),), check_interval=5, timeout=1, retries=0)])
        await rig.run(5000)
        return rig

    rig = run_virtual(main)
    assert rig.causes == {"router": None, name: "router"}
    assert rig.subjects[0] == "DOWN: router"


def test_parent_flaps_every_90_s_and_its_children_are_never_told():
    spans = [(2000 + 180 * number, 2090 + 180 * number) for number in range(20)]
    flaps = [(name, *span) for span in spans for name in ("router", "*")]
    rig = telling(dead(*flaps), 7000, children=CHILDREN[:20])
    assert not [subject for subject in rig.subjects if "router" not in subject]
    assert set(rig.causes.values()) <= {None, "router"}
    assert len([None for name, cause in rig.causes.items() if cause is None]) == 1


def test_a_child_that_dies_alone_is_told():
    rig = telling(dead(("c5", 2000, 4000)), 5000)
    assert rig.subjects == ["DOWN: c5", "UP: c5"]
    assert rig.causes == {"c5": None}


def test_a_parent_in_a_window_that_does_not_answer_counts_as_down():
    def windows(mode):
        return [MaintenanceWindow("w", "card swap", utc(START + 900), utc(START + 3500), ("router",), mode)]

    script = dead(("*", 2000, 4000), ("router", 2000, 4000))
    rig = telling(script, 3900, children=CHILDREN[:10], windows=windows(MaintenanceMode.MUTE))
    assert rig.subjects == []
    assert rig.causes == dict.fromkeys(CHILDREN[:10], "router")
    # A paused parent is not asked, so nobody knows: people are told.
    rig = telling(script, 2500, children=CHILDREN[:10], windows=windows(MaintenanceMode.PAUSE))
    assert rig.subjects == ["DOWN: site pop-north: 10 of 10 endpoints"]


@pytest.mark.parametrize("parents", [(("gone",),), (("other",),), (("c0",),), (("router", "fine"),)])
def test_unknown_cyclic_and_redundant_parents_hold_nothing_back(parents):
    async def main():
        rig = Telling(dead(("c0", 2000, 4000), ("other", 2000, 4000), ("router", 2000, 4000)))
        rig.world.watch([endpoint("router"), endpoint("fine"), endpoint("c0", depends_on=parents)])
        rig.world.watch([endpoint("other", depends_on=(("c0",),))])
        await rig.run(3000)
        return rig

    rig = run_virtual(main)
    assert "DOWN: c0" in rig.subjects


def test_a_parent_that_is_deleted_in_its_outage_leaves_its_children_to_speak_for_themselves():
    async def delete(rig):
        await asyncio.sleep(2000)
        rig.world.monitor.forget("router")
        rig.world.scheduler.remove("router")

    rig = telling(dead(("*", 2000, 9000), ("router", 2000, 9000)), 3500, children=CHILDREN[:10], during=delete)
    assert rig.subjects == ["DOWN: router", "DOWN: site pop-north: 10 of 10 endpoints"]
    assert rig.causes == {"router": None, **dict.fromkeys(CHILDREN[:10])}


def test_of_a_chain_the_first_link_is_told_and_the_next_one_where_it_stays_dead():
    async def main():
        rig = Telling(dead(("*", 2000, 6000), ("router", 2000, 4000), ("switch", 2000, 6000)))
        rig.world.watch([endpoint("router"), endpoint("switch", depends_on=(("router",),))])
        rig.world.watch([endpoint(name, depends_on=(("switch",),), site="pop") for name in CHILDREN[:20]])
        await rig.run(7000)
        return rig

    rig = run_virtual(main)
    assert rig.subjects == ["DOWN: router", "UP: router", "DOWN: switch", "UP: switch"]
    assert rig.causes == {"router": None, "switch": None, **dict.fromkeys(CHILDREN[:20], "switch")}


def test_without_verification_a_child_waits_for_its_parent_too():
    async def main():
        rig = Telling(dead(("c0", 1999, 4000), ("router", 2000, 4000)), rules=Rules(verification_enabled=False))
        rig.world.watch([endpoint("router"), endpoint("c0", depends_on=(("router",),), detection_threshold=1)])
        await rig.run(5000)
        return rig

    rig = run_virtual(main)
    assert rig.subjects == ["DOWN: router", "UP: router"]


def test_an_edit_of_the_endpoint_while_its_verdict_is_sought_loses_no_outage():
    async def edit(rig):
        await asyncio.sleep(1000)
        while not rig.world.monitor.watched["router"].state.verifying:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(1)
        rig.world.monitor.watch(endpoint("router", name="renamed"))

    rig = telling(dead(("router", 2000, 9000)), 2000, children=[], during=edit)
    assert len(rig.world.recorder.outages) == 1


@pytest.mark.parametrize("number", [5, 8, 30])
def test_half_of_a_site_failing_together_is_one_message_without_any_configuration(number):
    async def main():
        names = [f"e{one}" for one in range(number)]
        rig = Telling(dead(*((name, 2000, 4000) for name in names)))
        rig.world.watch([endpoint(name, site="pop") for name in [*names, *(f"fine-{one}" for one in range(number))]])
        await rig.run(5000)
        return rig

    rig = run_virtual(main)
    assert len(rig.world.recorder.outages) == number
    assert [kind for _, kind, _ in rig.told] == [MessageKind.DOWN, MessageKind.PARTLY, MessageKind.RECOVERED]
    assert {subject.split(": ", 1)[1] for subject in rig.subjects} == {f"site pop: {number} of {2 * number} endpoints"}


def test_upstream_cut_while_the_gateway_answers_is_outages_with_one_root_message():
    async def gateway_answers(_address: str) -> bool:
        return True

    async def main():
        rig = Telling(dead(("*", 2000, 9000), ("router", 2000, 9000)), witness_answers=gateway_answers)
        rig.world.watch([endpoint("router")])
        rig.world.watch([endpoint(name, depends_on=(("router",),), site=f"pop-{name}") for name in CHILDREN[:50]])
        await rig.run(3000)
        return rig

    rig = run_virtual(main)
    assert rig.subjects == ["DOWN: router"]
    assert len(rig.world.recorder.outages) == 51
    assert rig.world.events == []
