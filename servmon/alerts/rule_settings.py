"""``[[alert.rules]]``: what is told of which endpoints to whom. Which keys a rule takes depends on its kind."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from servmon.model import EventKind, Section, Severity


class RuleKind(StrEnum):
    """What a rule looks at."""

    SERVICE_DOWN = "service_down"
    RESPONSE_TIME = "response_time"
    MULTIPLE_SERVICES_DOWN = "multiple_services_down"
    ACTIVE_OUTAGES = "active_outages"
    LONG_OUTAGE = "long_outage"


# The keys that every kind has.
FOR_ALL = frozenset({"name", "kind", "ids", "tags", "sites", "severities", "channels", "enabled"})
# The keys of each kind, beside those that all have.
KEYS: Mapping[RuleKind, frozenset[str]] = {
    RuleKind.SERVICE_DOWN: frozenset({"escalation"}),
    RuleKind.RESPONSE_TIME: frozenset({"threshold_ms", "statistic", "window", "severity", "escalation"}),
    RuleKind.MULTIPLE_SERVICES_DOWN: frozenset({"count", "share", "per", "severity"}),
    RuleKind.ACTIVE_OUTAGES: frozenset({"count", "severity"}),
    RuleKind.LONG_OUTAGE: frozenset({"after", "escalation"}),
}
_TAKEN = frozenset(kind.value for kind in EventKind)


class EscalationStep(Section):
    """Whom to tell ``after`` so many seconds in which nobody saw to what was told at once."""

    after: int = Field(ge=1, le=2_592_000)
    channels: tuple[str, ...] = Field(min_length=1)


def _in_order(steps: tuple[EscalationStep, ...] | None) -> tuple[EscalationStep, ...] | None:
    times = [step.after for step in steps or ()]
    if any(later <= earlier for earlier, later in pairwise(times)):
        raise ValueError("each step must come later than the one before")
    return steps


Steps = Annotated[tuple[EscalationStep, ...], AfterValidator(_in_order)]


class RuleSection(Section):
    """One rule. What its selection (``ids``, ``tags``, ``sites``, ``severities``) leaves out selects everything.

    Thresholds that are left out are those of ``[alert]``; ``window`` and ``after`` are seconds, ``share`` is percent.
    """

    name: str = Field(min_length=1, max_length=100)
    kind: RuleKind = RuleKind.SERVICE_DOWN
    ids: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    severities: tuple[Severity, ...] = ()
    threshold_ms: float | None = Field(None, gt=0, le=3_600_000, allow_inf_nan=False)
    statistic: Literal["average", "p95"] = "average"
    window: int = Field(300, ge=10, le=86_400)
    count: int | None = Field(None, ge=1, le=1_000_000)
    share: float | None = Field(None, gt=0, le=100, allow_inf_nan=False)
    per: Literal["all", "site", "tag"] = "all"
    after: int | None = Field(None, ge=1, le=31_536_000)
    severity: Severity | None = None
    escalation: Steps | None = None
    channels: tuple[str, ...] | None = None
    enabled: bool = True

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if name in _TAKEN or name.startswith("flapping ") or not name.isprintable() or name != name.strip():
            raise ValueError(f"must be printable text that is not a name of servmon's own, as {name!r} is")
        return name

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if odd := sorted(self.model_fields_set - FOR_ALL - KEYS[self.kind]):
            known = ", ".join(sorted(KEYS[self.kind])) or "none of its own"
            raise ValueError(f"{odd[0]}: is no key of a rule of the kind {self.kind.value}, which has {known}")
        if self.count is not None and self.share is not None:
            raise ValueError("count and share exclude each other: give one of them")
        if self.kind is RuleKind.MULTIPLE_SERVICES_DOWN and self.count == 1:
            raise ValueError("count: must be at least 2 for several services")
        return self

    @property
    def is_unwritten(self) -> bool:
        """Whether nobody wrote it: then it says more of what people hear of anyway, and nothing else."""
        return UNWRITTEN.get(self.kind) is self


# What is told where no rule of the kind is written.
UNWRITTEN: Mapping[RuleKind, RuleSection] = {
    kind: RuleSection(name=kind.value, kind=kind) for kind in (RuleKind.MULTIPLE_SERVICES_DOWN, RuleKind.LONG_OUTAGE)
}
