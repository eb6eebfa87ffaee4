"""The last check of every endpoint as series with the names of blackbox_exporter, so that what is made for it fits.

Two of our own stand beside them: whether an outage is open, and whether a maintenance window is over the endpoint.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import datetime
from ipaddress import ip_address
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

from servmon.metrics import Exposition, labels
from servmon.model import AVAILABLE, CheckResult, CurrentStatus, Endpoint, FailureKind, Status
from servmon.services.live import LiveView
from servmon.tasks import in_turns

# blackbox_exporter's phases, and where ours stand in a check result.
_HTTP_PHASES = (
    ("resolve", attrgetter("phases.dns_ms")),
    ("connect", attrgetter("phases.connect_ms")),
    ("tls", attrgetter("phases.tls_ms")),
    ("processing", attrgetter("phases.first_byte_ms")),
    ("transfer", attrgetter("phases.transfer_ms")),
)
_ICMP_PHASES = (("resolve", attrgetter("phases.dns_ms")), ("rtt", attrgetter("response_time")))


# So many endpoints are written in one go.
PART = 250


class Last(NamedTuple):
    """An endpoint's last check and state beside its labels, without the closing brace: more may follow."""

    labels: str
    endpoint: Endpoint
    result: CheckResult
    state: CurrentStatus | None


Value: TypeAlias = Callable[[Last], float | None]


async def add_endpoints(exposition: Exposition, live: LiveView) -> None:
    """Every endpoint that was checked."""
    checked = [last async for last in _in_turns(live)]
    parts = [checked[start : start + PART] for start in range(0, len(checked), PART)]
    for name, meaning, value in _SERIES:
        async for part in in_turns(parts):
            exposition.gauges(name, meaning, _samples(part, value))
    for name, meaning, protocols, phases in _PHASES:
        async for part in in_turns(parts):
            exposition.gauges(name, meaning, _in_phases(part, protocols, phases))


async def _in_turns(live: LiveView) -> AsyncIterator[Last]:
    async for endpoint, result in in_turns(list(live.last_results())):
        named = {
            "endpoint": endpoint.id,
            "target": endpoint.url,
            "protocol": endpoint.protocol,
            "site": endpoint.site,
        }
        yield Last(labels(named)[:-1], endpoint, result, live.current(endpoint.id))


def _samples(checked: Sequence[Last], value: Value) -> Iterator[tuple[str, float]]:
    for last in checked:
        if (found := value(last)) is not None:
            yield last.labels + "}", found


def _detail(last: Last, name: str) -> Any:
    return (last.result.details or {}).get(name)


def _success(last: Last) -> float | None:
    return None if last.result.status is Status.UNKNOWN else last.result.status in AVAILABLE


def _duration(last: Last) -> float | None:
    return _seconds(last.result.response_time)


def _look_up(last: Last) -> float | None:
    return _seconds(last.result.phases.dns_ms)


def _status_code(last: Last) -> float | None:
    code = _detail(last, "status_code")
    return None if code is None else float(code)


def _redirects(last: Last) -> float | None:
    return None if _status_code(last) is None else len(_detail(last, "redirects") or ())


def _wrong_pattern(last: Last) -> float | None:
    return None if _status_code(last) is None else last.result.failure_kind is FailureKind.PATTERN


def _uses_tls(last: Last) -> float | None:
    # As for blackbox_exporter, it is what answered that counts: a redirect may have led to it.
    return None if _status_code(last) is None else last.result.phases.tls_ms is not None


def _certificate_ends(last: Last) -> float | None:
    certificate = _detail(last, "certificate")
    return datetime.fromisoformat(certificate["not_after"]).timestamp() if certificate else None


def _ip_version(last: Last) -> float | None:
    try:
        return ip_address(str(_detail(last, "address"))).version
    except ValueError:
        return None


def _loss(last: Last) -> float | None:
    percent = _detail(last, "loss_percent")
    return None if percent is None else percent / 100


def _outage_open(last: Last) -> float | None:
    return 1.0 if last.state is not None and last.state.outage_id is not None else None


def _in_maintenance(last: Last) -> float | None:
    return 1.0 if last.state is not None and last.state.in_maintenance else None


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


_SERIES: tuple[tuple[str, str, Value], ...] = (
    ("probe_success", "Whether the last check was good; absent where it could not be asked.", _success),
    ("probe_duration_seconds", "How long the last answer took.", _duration),
    ("probe_dns_lookup_time_seconds", "How long the name took to resolve.", _look_up),
    ("probe_ip_protocol", "The IP version of the address that was asked.", _ip_version),
    ("probe_http_status_code", "The status code of the last answer.", _status_code),
    ("probe_http_redirects", "How many redirects led to the last answer.", _redirects),
    ("probe_failed_due_to_regex", "Whether the last answer did not match what was expected.", _wrong_pattern),
    ("probe_http_ssl", "Whether the last answer came over TLS.", _uses_tls),
    ("probe_ssl_earliest_cert_expiry", "When the certificate ends, in seconds since the epoch.", _certificate_ends),
    ("servmon_packet_loss_ratio", "The share of the last check's packets that were lost.", _loss),
    ("servmon_outage_open", "1 while an outage is open; absent otherwise.", _outage_open),
    ("servmon_in_maintenance", "1 while a window is over the endpoint; absent otherwise.", _in_maintenance),
)


_PHASES = (
    ("probe_http_duration_seconds", "The phases of the last answer.", ("HTTP", "HTTPS"), _HTTP_PHASES),
    ("probe_icmp_duration_seconds", "The phases of the last answer.", ("ICMP",), _ICMP_PHASES),
)


def _in_phases(
    checked: Sequence[Last],
    protocols: Sequence[str],
    phases: Sequence[tuple[str, Callable[[CheckResult], float | None]]],
) -> Iterator[tuple[str, float]]:
    for last in checked:
        if last.endpoint.protocol not in protocols:
            continue
        for phase, read in phases:
            if (milliseconds := read(last.result)) is not None:
                yield f'{last.labels},phase="{phase}"}}', milliseconds / 1000
