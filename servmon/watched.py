"""One endpoint under watch, and the settings that all of them are judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from servmon.checks.plan import Plan
from servmon.detection import maintenance, window
from servmon.detection.dependencies import Groups, groups_of
from servmon.detection.state import NEW, EndpointState, Policy
from servmon.model import DependencyRule, Endpoint, Occurrence, State, Status, StatusFilter, Suspect


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings every endpoint is judged by, where it does not override them. Intervals are seconds.

    ``dependencies`` give parents to all endpoints that they select, beside the endpoints' own ``depends_on``.
    """

    retry_interval: int = 15
    detection_threshold: int = 3
    recovery_threshold: int = 2
    verification_enabled: bool = True
    dependencies: tuple[DependencyRule, ...] = ()

    def policy(self, endpoint: Endpoint) -> Policy:
        """How ``endpoint`` is judged; its ``retry_interval`` is never above its interval."""
        return Policy(
            check_interval=endpoint.check_interval,
            retry_interval=min(endpoint.retry_interval or self.retry_interval, endpoint.check_interval),
            detection_threshold=endpoint.detection_threshold or self.detection_threshold,
            recovery_threshold=endpoint.recovery_threshold or self.recovery_threshold,
            severity=endpoint.severity,
            verify=self.verification_enabled,
            has_parents=bool(self.groups(endpoint)),
            detection_window=self._window(endpoint),
            degraded_outage_after=endpoint.degraded_outage_after,
            degraded_loss_percent=endpoint.options.get("degraded_loss_percent", 20),
        )

    def groups(self, endpoint: Endpoint) -> Groups:
        """The groups of parents of which ``endpoint`` needs one each: its own, and those that rules give it."""
        return groups_of(endpoint, self.dependencies)

    def _window(self, endpoint: Endpoint) -> int | None:
        if endpoint.detection_window is None:
            return None
        return max(endpoint.detection_window, endpoint.detection_threshold or self.detection_threshold)


@dataclass(slots=True)
class Watched:
    """One endpoint under watch: how it is asked, how it is judged, and what is known of it.

    ``blind`` says that nothing was learned of it for so long that it was told.
    """

    plan: Plan
    policy: Policy
    watched_at: datetime
    groups: Groups = ()
    state: EndpointState = NEW
    windows: Sequence[Occurrence] = ()
    blind: bool = False

    @property
    def status(self) -> Status:
        """The last check's; UNKNOWN where there was none."""
        return self.state.last.status if self.state.last else Status.UNKNOWN

    def is_covered(self, at: datetime) -> bool:
        """Whether a maintenance window is over it at that time."""
        return bool(self.windows) and maintenance.mode_at(self.windows, at) is not None

    def fits(self, wanted: StatusFilter, at: datetime) -> bool:
        """Whether it is as wanted at that time."""
        return (
            wanted.status in (None, self.status)
            and wanted.state in (None, self.state.state)
            and wanted.in_maintenance in (None, self.is_covered(at))
        )

    def suspect(self, at: datetime) -> Suspect | None:
        """How it fails, where it does and has no outage yet; what a window covers ``at`` that time does not count."""
        state, last = self.state, self.state.last
        if last is None or state.outage is not None:
            return None
        if state.state is not State.SUSPECTED and last.status is not Status.DOWN:
            return None
        if self.is_covered(at):
            return None
        failures = window.failures_in(state.marks) if state.marks else state.failures
        return Suspect(
            endpoint_id=self.plan.endpoint.id,
            since=state.first_failure_at or last.timestamp,
            failures=failures,
            failures_needed=0 if state.verifying else max(self.policy.detection_threshold - failures, 1),
            verifying=state.verifying,
            failure_kind=last.failure_kind,
            error_message=last.error_message,
        )
