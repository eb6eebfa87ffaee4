"""A month of an ISP's network, made from a seed: bursty loss, micro-cuts of sites, flaps and real outages."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from servmon.model import Outage
from servmon.monitor import Rules
from servmon.probes.base import Answer
from tests.virtual import World, endpoint, run_virtual

DAY = 86_400.0
ENDPOINTS, SITES = 1000, 40
# A model not settled yet: bursts last 0-30 s, evenly, and all is lost within one. With exponential lengths of the
# same mean, a tenth of a day at threshold 3 declared 6 false outages. The counts prove no rate of false alarms before
# a burst's lengths, and the share lost within it, rest on measured networks.
LOSS_SHARE, BURST_SECONDS = 0.005, 15.0
# As many a month as a bad one has: each site is cut for 5-20 s every two days, and twenty endpoints flap for a while.
CUTS_PER_SITE_AND_DAY = 0.5
FLAPPERS, FLAP_SECONDS, FLAPS = 20, 90.0, 6
REAL_OUTAGES, SHORTEST, LONGEST = 60, 60.0, 6 * 3600.0
WARM_UP = 600.0

Spans = list[tuple[float, float]]


@dataclass
class Month:
    """Who is silent when, by endpoint; ``real`` are the outages that somebody should hear of."""

    seconds: float
    silent: dict[str, Spans] = field(default_factory=lambda: defaultdict(list))
    real: list[tuple[str, float, float]] = field(default_factory=list)
    flapping: list[tuple[str, float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Score:
    """What detection made of a month. Real outages shorter than the formula may be missed rightly."""

    threshold: int
    real: int
    found: int
    missed: int
    missed_though_long: int
    false: int


def make_month(days: float, seed: int, real: int = REAL_OUTAGES) -> Month:
    chance = random.Random(seed)
    month = Month(days * DAY)
    names = [f"e-{number}" for number in range(ENDPOINTS)]
    for name in names:
        at = WARM_UP
        while (at := at + chance.expovariate(LOSS_SHARE / BURST_SECONDS)) < month.seconds:
            month.silent[name].append((at, at + chance.uniform(0, 2 * BURST_SECONDS)))
    for site in range(SITES):
        for _ in range(round(days * CUTS_PER_SITE_AND_DAY)):
            at, seconds = chance.uniform(WARM_UP, month.seconds), chance.uniform(5, 20)
            for name in names[site::SITES]:
                month.silent[name].append((at, at + seconds))
    troubled = chance.sample(names, FLAPPERS + real)
    for name in troubled[:FLAPPERS]:
        at = chance.uniform(WARM_UP, month.seconds - 2 * FLAPS * FLAP_SECONDS)
        month.flapping.append((name, at, at + 2 * FLAPS * FLAP_SECONDS))
        month.silent[name] += [(at + 2 * n * FLAP_SECONDS, at + (2 * n + 1) * FLAP_SECONDS) for n in range(FLAPS)]
    for number, name in enumerate(troubled[FLAPPERS:]):
        longest = min(LONGEST, month.seconds / 4)
        length = SHORTEST * (longest / SHORTEST) ** (number / max(real - 1, 1))
        at = chance.uniform(WARM_UP, month.seconds - length - 600)
        month.real.append((name, at, at + length))
        month.silent[name].append((at, at + length))
    for name, spans in month.silent.items():
        month.silent[name] = _merged(spans)
    return month


def play(month: Month, threshold: int) -> Score:
    """The month through the real scheduler, runner, verification's place, monitor and machine."""
    starts = {name: [start for start, _ in spans] for name, spans in month.silent.items()}

    async def script(name: str, now: float) -> Answer:
        spans = month.silent.get(name)
        number = bisect_right(starts[name], now - 1000.0) - 1 if spans else -1
        if spans and number >= 0 and now - 1000.0 < spans[number][1]:
            await asyncio.Event().wait()
        return Answer(20.0)

    async def main() -> World:
        world = World(script, rules=Rules(detection_threshold=threshold), cap=50_000)
        world.recorder = world.recorder.only_outages()
        world.monitor._writer = world.recorder
        world.watch(endpoint(f"e-{number}", site=f"pop-{number % SITES}") for number in range(ENDPOINTS))
        await world.run(month.seconds)
        return world

    world = run_virtual(main)
    return score(month, list(world.recorder.outages.values()), threshold, world.wall(1000.0))


def score(month: Month, outages: Sequence[Outage], threshold: int, began: datetime) -> Score:
    def seconds(at: datetime) -> float:
        return (at - began).total_seconds()

    found = missed_though_long = 0
    explained: set[str] = set()
    for name, start, end in month.real:
        hits = [one for one in outages if one.endpoint_id == name and start - 60 <= seconds(one.start_time) <= end]
        explained.update(one.id for one in hits)
        found += bool(hits)
        missed_though_long += not hits and end - start > formula(threshold)
    for name, start, end in month.flapping:
        explained.update(
            one.id for one in outages if one.endpoint_id == name and start - 60 <= seconds(one.start_time) <= end
        )
    false = sum(one.id not in explained for one in outages)
    return Score(threshold, len(month.real), found, len(month.real) - found, missed_though_long, false)


def formula(threshold: int) -> float:
    """The published detection delay at the defaults, in seconds."""
    return 60 + 21.5 + (threshold - 1) * (15 + 5) + 10


def _merged(spans: Spans) -> Spans:
    merged: Spans = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
