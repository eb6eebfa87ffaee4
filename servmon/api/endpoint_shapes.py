"""How a service endpoint and what is known of it now look in JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NotRequired

from pydantic import ConfigDict

# pydantic reads no other TypedDict before Python 3.12.
from typing_extensions import TypedDict

from servmon.api.shapes import Written, written
from servmon.model import CurrentStatus, Endpoint, FailureKind, Severity, State, Status
from servmon.probes.specification import describe_endpoint

# Some 15 MB.
MOST_TEXTS = 20_000


class CurrentStatusShape(TypedDict):
    """``status`` is the last check's, ``state`` the machine's, in which it is ``since`` then."""

    endpoint_id: str
    status: Status
    state: State
    since: datetime | None
    timestamp: datetime | None
    response_time: float | None
    error_message: str | None
    failure_kind: FailureKind | None
    consecutive_failures: int
    in_maintenance: bool
    outage_id: str | None


class EndpointShape(TypedDict):
    """A service endpoint. The options of its protocol stand beside these fields; secret ones read ``***``.

    ``revived`` is true where the id was that of a deleted endpoint, whose history came back with it. ``now`` stands in
    lists that were asked for it; it is null where the endpoint is not active.
    """

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    id: str
    name: str
    url: str
    protocol: str
    check_interval: int
    timeout: float
    retries: int
    expected_status_code: int | None
    expected_response_pattern: str | None
    is_active: bool
    retry_interval: int | None
    detection_threshold: int | None
    detection_window: int | None
    recovery_threshold: int | None
    degraded_outage_after: int | None
    severity: Severity
    degraded_threshold_ms: float | None
    depends_on: list[list[str]]
    tags: list[str]
    site: str | None
    key: int
    source: str
    revision: int
    created_at: datetime | None
    updated_at: datetime | None
    archived_at: datetime | None
    now: NotRequired[CurrentStatusShape | None]
    revived: NotRequired[bool]


def endpoint_shape(endpoint: Endpoint) -> EndpointShape:
    """A service endpoint with its protocol's options beside its fields."""
    described: Any = describe_endpoint(endpoint)
    shape: EndpointShape = described
    return shape


class EndpointTexts:
    """Endpoints as lists show them, each written once for as long as memory holds the same one.

    To describe and write a thousand takes 12 ms of the loop, and dashboards ask for the same again and again.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[Endpoint, Written]] = {}

    def with_now(self, endpoint: Endpoint, current: CurrentStatus | None) -> Any:
        """``endpoint_shape`` of it with how it is now, as JSON text."""
        present = written(current_status_shape(current) if current else None)
        return Written(f'{self.of(endpoint)[:-1]}, "now": {present}}}')

    def of(self, endpoint: Endpoint) -> Any:
        """``endpoint_shape`` of it, as JSON text."""
        known = self._known.get(endpoint.id)
        if known is None or known[0] is not endpoint:
            if len(self._known) >= MOST_TEXTS:
                self._known.clear()
            known = self._known[endpoint.id] = endpoint, written(endpoint_shape(endpoint))
        return known[1]


def current_status_shape(current: CurrentStatus) -> CurrentStatusShape:
    """What is known of an endpoint now."""
    return {
        "endpoint_id": current.endpoint_id,
        "status": current.status,
        "state": current.state,
        "since": current.since,
        "timestamp": current.timestamp,
        "response_time": current.response_time,
        "error_message": current.error_message,
        "failure_kind": current.failure_kind,
        "consecutive_failures": current.consecutive_failures,
        "in_maintenance": current.in_maintenance,
        "outage_id": current.outage_id,
    }
