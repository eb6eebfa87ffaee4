"""Dependencies end to end on virtual time: the real scheduler, monitor, surroundings and dispatcher."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from servmon.alerts.alert import MessageKind, news_of
from servmon.alerts.dispatcher import Dispatcher
from servmon.alerts.settings import AlertSection
from servmon.clock import now
from servmon.probes.base import Answer
from servmon.surroundings import Surroundings
from servmon.tasks import cancel, spawn
from tests.virtual import World, endpoint, run_virtual

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

    def __init__(self, script) -> None:
        self.world = World(script)
        ids = (f"00000000-0000-4000-8000-{number:012}" for number in count())
        self.dispatcher = Dispatcher(
            AlertSection(notification_channels=("noc",)),
            ("noc",),
            Surroundings(self.world.monitor, self.world.clock),
            ids.__next__,
        )
        self.told: list[tuple[float, MessageKind, str]] = []
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
            self.told += [(moment, one.kind, one.subject) for one in told.notifications]


def telling(
    script, seconds: float, *, children: list[str] = CHILDREN, **fields
) -> list[tuple[float, MessageKind, str]]:
    async def main():
        rig = Telling(script)
        rig.world.watch([endpoint("router", **fields)])
        rig.world.watch([endpoint(name, depends_on=(("router",),), site="pop-north", **fields) for name in children])
        await rig.run(seconds)
        return rig.told

    return run_virtual(main)


def test_a_router_with_200_children_is_told_once_and_its_end_once():
    told = telling(dead(("*", 2000, 4000), ("router", 2000, 4000)), 5000)
    assert [kind for _, kind, _ in told] == [MessageKind.DOWN, MessageKind.RECOVERED]
    assert told[0][2] == "DOWN: router (MAJOR)"


def test_of_those_that_stay_dead_when_the_router_is_back_exactly_those_are_told():
    stuck = [(name, 2000.0, 9000.0) for name in CHILDREN[:3]]
    told = telling(dead(("*", 2000, 4000), ("router", 2000, 4000), *stuck), 5000)
    assert [kind for _, kind, _ in told] == [MessageKind.DOWN, MessageKind.RECOVERED, MessageKind.DOWN]
    assert told[2][2] == "DOWN: 3 of 200 endpoints at pop-north (MAJOR)"
    assert told[2][0] - told[1][0] <= 200  # two intervals of grace, and a moment


@pytest.mark.parametrize("name", ["a", "b", "c", "d", "e"])
def test_a_child_that_fails_before_its_parent_whatever_the_phase_is_not_told(name):
    told = telling(dead((name, 1999, 4000), ("router", 2000, 4000)), 5000, children=[name])
    assert [subject.split(" (")[0] for _, _, subject in told] == ["DOWN: router", "UP: router"]


def test_a_child_that_dies_alone_is_told():
    told = telling(dead(("c5", 2000, 4000)), 5000)
    assert [subject.split(" (")[0] for _, _, subject in told] == ["DOWN: c5", "UP: c5"]
