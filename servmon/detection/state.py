"""What is remembered of one endpoint between two checks, and how it is judged. Plain values."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from servmon.detection.recent import NOTHING_YET, Recent
from servmon.model import CheckResult, Outage, Severity, State, Transition

Transitions = tuple[Transition, ...]
NewId = Callable[[], str]
# When a counted check began, and whether it failed.
Mark = tuple[datetime, bool]
# Counters without any evidence for this many intervals say nothing about the present any more.
EVIDENCE_LASTS_INTERVALS = 3


@dataclass(frozen=True, slots=True)
class Policy:
    """How one endpoint is judged; the endpoint's own overrides over the settings. Intervals are seconds.

    With a ``detection_window`` of N, ``detection_threshold`` failures among the last N checks suffice; without one
    they have to be consecutive. ``degraded_outage_after`` is a number of degraded checks in a row. Where an endpoint
    ``has_parents`` its verdict may have to wait for theirs.
    """

    check_interval: float
    retry_interval: float
    detection_threshold: int = 3
    recovery_threshold: int = 2
    severity: Severity = Severity.MAJOR
    verify: bool = True
    has_parents: bool = False
    detection_window: int | None = None
    degraded_outage_after: int | None = None
    degraded_loss_percent: float = 20

    @property
    def evidence_lasts(self) -> timedelta:
        """For how long what was counted says something about the present."""
        return timedelta(seconds=EVIDENCE_LASTS_INTERVALS * self.check_interval)


# Not frozen, though nobody changes one: each check makes one, and freezing costs as much as all else of making it.
@dataclass(slots=True, unsafe_hash=True)
class EndpointState:
    """All that is remembered of one endpoint between two checks.

    ``failures``, ``good`` and ``degraded`` count consecutive checks; ``good`` only while an outage is open.
    ``marks`` are the checks a detection window looks at, from its first failure on. ``verifying`` is true from the
    threshold until the second look has answered. ``reduced``: some addresses of the name are dead, not all.
    """

    state: State = State.UNKNOWN
    since: datetime | None = None
    last: CheckResult | None = None
    evidence_at: datetime | None = None
    failures: int = 0
    good: int = 0
    first_failure_at: datetime | None = None
    first_good_at: datetime | None = None
    last_good_at: datetime | None = None
    verifying: bool = False
    outage: Outage | None = None
    recent: Recent = NOTHING_YET
    marks: tuple[Mark, ...] = ()
    degraded: int = 0
    reduced: bool = False
    before_suspected: State = State.UNKNOWN

    @property
    def is_steady(self) -> bool:
        """Whether it is UP and no check is being counted."""
        return (
            self.state is State.UP
            and self.first_failure_at is None
            and self.outage is None
            and not (self.marks or self.degraded)
        )

    @property
    def in_series(self) -> bool:
        """Whether failures are being counted, so that a check is one attempt without retries."""
        return self.state is State.SUSPECTED or self.state is State.DOWN

    @property
    def wants_retry_pace(self) -> bool:
        """Whether checks come at ``retry_interval``: while suspected, and from the first good check to recovery."""
        if self.state is State.DOWN:
            return self.good > 0 and not self.recent.flapping
        return self.state is State.SUSPECTED


NEW = EndpointState()


def new_id() -> str:
    """An id for an outage or a change (uuid4)."""
    return str(uuid.uuid4())
