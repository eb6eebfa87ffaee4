"""A month of an ISP's network, made from a seed: bursty loss, micro-cuts of sites, flaps and real outages.

How much is lost within a burst decides what the counts mean, so it is said here, and three readings are played. A path
is good, and loses nothing, or bad; bad times last 15 s in the mean, exponentially; 0.5 % of all round trips are lost.

``HALF`` (the one that counts) is the classical model of bursty loss (Gilbert, 1960): while a path is bad, a round trip
is lost with probability one half, and it is bad for one hundredth of the time. That is congestion, radio, a bad link of
a bundle: what people mean by bursty loss. ``MOST`` loses nine in ten.

``ALL`` loses everything. Then one burst in 55 is a silence of more than a minute, which no monitor can tell from an
outage of a minute, since it is one. An outage that is declared while its endpoint never could have answered is counted
apart from false ones (``silences``).

A check is a TCP connection: its SYN is sent at once and again after 1 s and 3 s, as Linux does, and the check is good
when one of them gets through, there and back. Micro-cuts, flaps and real outages lose everything.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from servmon.model import Outage
from servmon.monitor import Rules
from servmon.probes.base import Answer
from tests.virtual import World, endpoint, run_virtual

DAY = 86_400.0
# Virtual time begins here (monotonic seconds).
BEGAN = 1000.0
ENDPOINTS, SITES = 1000, 40
LOST_SHARE, BURST_SECONDS = 0.005, 15.0
# As many as a bad month has: each site is cut for 5-20 s every two days, and twenty endpoints flap for a while.
CUTS_PER_SITE_AND_DAY = 0.5
FLAPPERS, FLAP_SECONDS, FLAPS = 20, 90.0, 6
REAL_OUTAGES, SHORTEST, LONGEST = 60, 60.0, 6 * 3600.0
WARM_UP = 600.0
SYN_AT = (0.0, 1.0, 3.0)
TIMEOUT = 5.0
ANSWER_MS = 20.0

Spans = list[tuple[float, float]]


class Loss(Enum):
    """How much of what is sent in a burst is lost."""

    HALF = 0.5
    MOST = 0.9
    ALL = 1.0


class Path:
    """The way to one endpoint: when everything is lost on it, and when some is.

    Draws are made in the order of the attempts, so two simulations that ask alike see the same luck.
    """

    def __init__(self, lost: Iterable[tuple[float, float]], bad: Spans, loss: float, chance: random.Random) -> None:
        self.lost = merged(lost)
        self.bad = merged(bad)
        self._lost_starts = [start for start, _ in self.lost]
        self._bad_starts = [start for start, _ in self.bad]
        self._loss = loss
        self._chance = chance
        self.trouble = merged([*self.lost, *self.bad])
        self._trouble_starts = [start for start, _ in self.trouble]

    def answers_after(self, at: float, patience: float) -> float | None:
        """Seconds until an attempt at ``at`` gets through, or ``None`` where none of its SYNs does in time."""
        return next((sent for sent in SYN_AT if sent < patience and self._passes(at + sent)), None)

    def is_silent(self, since: float, until: float) -> bool:
        """Whether nothing could have got through at any moment of the period."""
        number = bisect_right(self._lost_starts, since) - 1
        return number >= 0 and self.lost[number][1] >= until

    def is_bad(self, since: float, until: float) -> bool:
        """Whether something was wrong with the path all that time."""
        number = bisect_right(self._trouble_starts, since) - 1
        return number >= 0 and self.trouble[number][1] >= until

    def _passes(self, at: float) -> bool:
        if _in(self.lost, self._lost_starts, at):
            return False
        return not _in(self.bad, self._bad_starts, at) or self._chance.random() >= self._loss


@dataclass
class Month:
    """What happens to whom; ``real`` are the outages that somebody should hear of. Times are monotonic seconds."""

    seconds: float
    seed: int
    loss: Loss
    names: list[str]
    cuts: dict[int, Spans] = field(default_factory=dict)
    real: dict[str, tuple[float, float]] = field(default_factory=dict)
    flapping: dict[str, tuple[float, float]] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """The way to an endpoint, the same at every call."""
        chance = random.Random(f"{self.seed} {name}")
        bursts: Spans = []
        at = BEGAN + WARM_UP
        while (at := at + chance.expovariate(LOST_SHARE / self.loss.value / BURST_SECONDS)) < BEGAN + self.seconds:
            bursts.append((at, at + chance.expovariate(1 / BURST_SECONDS)))
        lost = [*self.cuts[self.names.index(name) % SITES], *flaps(self.flapping.get(name))]
        if name in self.real:
            lost.append(self.real[name])
        if self.loss is Loss.ALL:
            return Path([*lost, *bursts], [], 1.0, chance)
        return Path(lost, bursts, self.loss.value, chance)


@dataclass(frozen=True)
class Score:
    """What detection made of a month.

    Real outages shorter than the formula may be missed rightly. ``false`` were declared although the endpoint could
    have answered between the first failure and the verdict; ``silences`` although it could not, and none was meant.
    ``in_burst`` are those of the false ones in whose whole time the path was bad without a break; ``slowest`` the most
    seconds from a real outage's beginning to its declaration.
    """

    threshold: int
    real: int
    found: int
    missed: int
    missed_though_long: int
    false: int
    in_burst: int
    silences: int
    slowest: float


def make_month(
    days: float, seed: int, real: int = REAL_OUTAGES, loss: Loss = Loss.HALF, endpoints: int = ENDPOINTS
) -> Month:
    chance = random.Random(seed)
    month = Month(days * DAY, seed, loss, [f"e-{number}" for number in range(endpoints)])
    end = BEGAN + month.seconds
    for site in range(SITES):
        starts = (chance.uniform(BEGAN + WARM_UP, end) for _ in range(round(days * CUTS_PER_SITE_AND_DAY)))
        month.cuts[site] = [(at, at + chance.uniform(5, 20)) for at in starts]
    troubled = chance.sample(month.names, FLAPPERS + real)
    for name in troubled[:FLAPPERS]:
        at = chance.uniform(BEGAN + WARM_UP, end - 2 * FLAPS * FLAP_SECONDS)
        month.flapping[name] = (at, at + 2 * FLAPS * FLAP_SECONDS)
    longest = min(LONGEST, month.seconds / 4)
    for number, name in enumerate(troubled[FLAPPERS:]):
        length = SHORTEST * (longest / SHORTEST) ** (number / max(real - 1, 1))
        at = chance.uniform(BEGAN + WARM_UP, end - length - 600)
        month.real[name] = (at, at + length)
    return month


def flaps(period: tuple[float, float] | None) -> Spans:
    if period is None:
        return []
    return [(period[0] + 2 * n * FLAP_SECONDS, period[0] + (2 * n + 1) * FLAP_SECONDS) for n in range(FLAPS)]


def play(month: Month, threshold: int) -> list[Outage]:
    """The month through the real scheduler, runner, verification's place, monitor and machine."""
    paths = {name: month.path(name) for name in month.names}

    async def script(name: str, now: float) -> Answer:
        after = paths[name].answers_after(now, patience=TIMEOUT)
        if after is None:
            await asyncio.Event().wait()
        if after:
            await asyncio.sleep(after)
        return Answer(1000 * after + ANSWER_MS)

    async def main() -> World:
        world = World(script, rules=Rules(detection_threshold=threshold), cap=50_000)
        world.recorder = world.recorder.only_outages()
        world.monitor._writer = world.recorder
        world.watch(endpoint(name) for name in month.names)
        await world.run(month.seconds)
        return world

    return list(run_virtual(main).recorder.outages.values())


def score(month: Month, outages: Sequence[Outage], threshold: int, began: datetime) -> Score:
    """``began`` is the wall time at which virtual time was 0."""
    known = [(one, seconds_of(one.start_time, began), seconds_of(one.declared_at, began)) for one in outages]
    found, missed_though_long, delays = 0, 0, [0.0]
    explained: set[str] = set()
    for name, (start, end) in month.real.items():
        hits = [
            (one.id, at) for one, began_at, at in known if one.endpoint_id == name and start - 60 <= began_at <= end
        ]
        explained.update(outage_id for outage_id, _ in hits)
        found += bool(hits)
        delays += [at - start for _, at in hits[:1]]
        missed_though_long += not hits and end - start > formula(threshold)
    for name, (start, end) in month.flapping.items():
        explained.update(
            one.id for one, began_at, _ in known if one.endpoint_id == name and start - 60 <= began_at <= end
        )
    others = [one for one in known if one[0].id not in explained]
    # The last that was sent before the verdict is the last SYN of the second look.
    unheard = TIMEOUT - SYN_AT[-1]
    silences = in_burst = 0
    for one, start, declared in others:
        path = month.path(one.endpoint_id)
        if path.is_silent(start, declared - unheard):
            silences += 1
        elif path.is_bad(start, declared - unheard):
            in_burst += 1
    return Score(
        threshold=threshold,
        real=len(month.real),
        found=found,
        missed=len(month.real) - found,
        missed_though_long=missed_though_long,
        false=len(others) - silences,
        in_burst=in_burst,
        silences=silences,
        slowest=max(delays),
    )


def seconds_of(at: datetime, began: datetime) -> float:
    return (at - began).total_seconds()


def formula(threshold: int) -> float:
    """The published detection delay at the defaults, in seconds."""
    return 60 + 21.5 + (threshold - 1) * (15 + 5) + 10


def merged(spans: Iterable[tuple[float, float]]) -> Spans:
    result: Spans = []
    for start, end in sorted(spans):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def _in(spans: Spans, starts: list[float], at: float) -> bool:
    number = bisect_right(starts, at) - 1
    return number >= 0 and at < spans[number][1]
