"""What a second look found, and an outage's description made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from servmon.detection.state import EndpointState
from servmon.model import CheckResult


class Method(StrEnum):
    """How a verdict was reached: by a look of its own, by others of the site, or not at all since we were too slow."""

    LOOK = "second look"
    SAMPLE = "by sample"
    UNVERIFIED = "unverified"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class SecondLook:
    """The answer to the endpoint's own question by a fresh path, and what else was seen on the way.

    Only ``result`` confirms or refutes; ``explanations`` are sentences without an end ("host answers ping (12 ms)").
    """

    result: CheckResult
    explanations: tuple[str, ...] = ()
    method: Method = Method.LOOK


def evidence(look: SecondLook) -> dict[str, Any]:
    """A second look in plain JSON types."""
    result = look.result
    return {
        "verification": {
            "method": look.method.value,
            "status": result.status.value,
            "failure_kind": result.failure_kind.value if result.failure_kind else None,
            "error_message": result.error_message,
            "response_time": result.response_time,
            "at": result.timestamp.isoformat(),
            "explanations": list(look.explanations),
        }
    }


NOT_VERIFIED: Mapping[str, Any] = {"verification": Method.OFF.value}


def describe(state: EndpointState, look: SecondLook | None) -> str:
    """An outage in one sentence: what explains it, what failed, since when, and when it was last seen well."""
    shown = look.result if look else state.last
    what = (shown and shown.error_message) or (state.last and state.last.error_message) or "does not answer"
    since = f"since {state.first_failure_at:%Y-%m-%d %H:%M:%S} UTC" if state.first_failure_at else ""
    good = f"last good {_moment(state.last_good_at, state.first_failure_at)} UTC" if state.last_good_at else ""
    how = f"({look.method.value})" if look and look.method is not Method.LOOK else ""
    explained = look.explanations if look else ()
    what_and_how = f"{what} {how}".rstrip()
    return ", ".join(part for part in (*explained, what_and_how, since, good or "never seen up") if part)


def _moment(at: datetime, beside: datetime | None) -> str:
    """The time alone where the day is the other's."""
    return f"{at:%H:%M:%S}" if beside and at.date() == beside.date() else f"{at:%Y-%m-%d %H:%M:%S}"
