"""What if: stored results of one endpoint through the same machine, judged by other settings.

Pure. What cannot be known from results is said: a second look that is on record is taken as it was, any other one is
taken to have found what the next check found; and checks came at the pace of the settings that were in force.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from servmon.detection import machine
from servmon.detection.state import NEW, EndpointState, Policy
from servmon.detection.verdict import SecondLook
from servmon.errors import InvalidInputError, Problem
from servmon.model import AVAILABLE, CheckResult, CheckSource, Outage, Status

# A check that comes later says nothing about what a second look would have found.
NEXT_WITHIN_INTERVALS = 3


class WhatIf(BaseModel):
    """The settings that can be tried on stored results; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    detection_threshold: int | None = Field(None, ge=1, le=1000)
    recovery_threshold: int | None = Field(None, ge=1, le=1000)
    detection_window: int | None = Field(None, ge=2, le=1000)
    degraded_outage_after: int | None = Field(None, ge=1, le=1000)
    degraded_loss_percent: float | None = Field(None, ge=0, le=100)
    verification_enabled: bool | None = None


def read_options(options: Iterable[str]) -> dict[str, Any]:
    """What ``NAME=VALUE`` words ask to try. Raises ``InvalidInputError`` naming every wrong one."""
    given: dict[str, str] = {}
    problems = []
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            problems.append(Problem(option, "must be NAME=VALUE, such as detection_threshold=5"))
        elif name not in WhatIf.model_fields:
            problems.append(Problem(name, f"cannot be tried on stored results; {', '.join(WhatIf.model_fields)} can"))
        else:
            given[name] = value
    if problems:
        raise InvalidInputError(problems)
    try:
        return WhatIf.model_validate(given).model_dump(exclude_none=True)
    except ValidationError as error:
        raise InvalidInputError(
            Problem(".".join(map(str, one["loc"])), one["msg"][:1].lower() + one["msg"][1:]) for one in error.errors()
        ) from None


def tried(policy: Policy, options: Mapping[str, Any]) -> Policy:
    """``policy`` with what is to be tried."""
    renamed = {("verify" if name == "verification_enabled" else name): value for name, value in options.items()}
    after = replace(policy, **renamed)
    if after.detection_window is not None and after.detection_window < after.detection_threshold:
        return replace(after, detection_window=after.detection_threshold)
    return after


@dataclass(frozen=True, slots=True)
class Declared:
    """An outage that would have been declared, and the real one that it meets, if there is one."""

    outage: Outage
    real: Outage | None = None

    @property
    def later_seconds(self) -> float | None:
        """How much later than really; negative is earlier. ``None`` without a real one."""
        return (self.outage.declared_at - self.real.declared_at).total_seconds() if self.real else None


@dataclass(frozen=True, slots=True)
class Simulation:
    """``false`` ones among ``declared`` meet no real outage; ``missed`` are real ones that would not have been."""

    checks: int
    first: datetime | None
    last: datetime | None
    declared: tuple[Declared, ...]
    missed: tuple[Outage, ...]
    second_looks: int
    looks_not_on_record: int

    @property
    def false(self) -> tuple[Declared, ...]:
        """Those that no real outage explains."""
        return tuple(one for one in self.declared if one.real is None)


def simulate(
    results: Sequence[CheckResult],
    policy: Policy,
    real: Sequence[Outage],
    muted: Callable[[datetime], bool] = lambda _at: False,
) -> Simulation:
    """Judge ``results``, oldest first, by ``policy``, and hold what would have been declared against ``real``."""
    looks = _Looks(real, policy)
    counted = [one for one in results if one.source is CheckSource.SCHEDULE]
    outages: dict[str, Outage] = {}
    state: EndpointState = NEW
    for number, result in enumerate(counted):
        state, transitions = machine.step(state, result, policy, muted=muted(result.timestamp))
        outages |= {one.outage.id: one.outage for one in transitions if one.outage}
        if state.verifying:
            look = looks.at(result, counted[number + 1] if number + 1 < len(counted) else None)
            state, transitions = machine.verified(state, look, policy)
            outages |= {one.outage.id: one.outage for one in transitions if one.outage}
    declared = tuple(_held_against(real, outages.values()))
    met = {one.real.id for one in declared if one.real}
    return Simulation(
        checks=len(counted),
        first=counted[0].timestamp if counted else None,
        last=counted[-1].timestamp if counted else None,
        declared=declared,
        missed=tuple(one for one in real if one.id not in met),
        second_looks=looks.made,
        looks_not_on_record=looks.not_on_record,
    )


class _Looks:
    """What second looks found, as far as that is known."""

    def __init__(self, real: Sequence[Outage], policy: Policy) -> None:
        self._real = real
        self._patience = timedelta(seconds=NEXT_WITHIN_INTERVALS * policy.check_interval)
        self.made = 0
        self.not_on_record = 0

    def at(self, failed: CheckResult, following: CheckResult | None) -> SecondLook:
        self.made += 1
        if any(_covers(outage, failed.timestamp) for outage in self._real):
            return SecondLook(failed)  # what was declared then was verified then
        self.not_on_record += 1
        known = following is not None and following.timestamp - failed.timestamp <= self._patience
        if following is None or not known or following.status not in AVAILABLE:
            return SecondLook(failed)
        return SecondLook(replace(following, status=Status.UP, timestamp=failed.timestamp))


def _covers(outage: Outage, at: datetime) -> bool:
    return outage.start_time <= at and (outage.resolved_at is None or at <= outage.resolved_at)


def _held_against(real: Sequence[Outage], outages: Iterable[Outage]) -> Iterator[Declared]:
    for outage in sorted(outages, key=lambda one: one.start_time):
        met = (one for one in real if _overlap(outage, one))
        yield Declared(outage, min(met, key=lambda one: abs(one.start_time - outage.start_time), default=None))


def _overlap(one: Outage, other: Outage) -> bool:
    return (other.resolved_at is None or one.start_time <= other.resolved_at) and (
        one.resolved_at is None or other.start_time <= one.resolved_at
    )
