"""What people say of an endpoint, whatever its protocol: each field, and what may stand in it."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from servmon.model import Severity

LONGEST_INTERVAL_SECONDS = 31 * 86_400
LONGEST_TIMEOUT_SECONDS = 300
# Of tags, of groups that are depended on, and of endpoints in such a group.
MOST_ENTRIES = 100

# Words that stand where an id would in the API's routes.
RESERVED_IDS = frozenset({"status", "summary", "active", "bulk", "dependencies", "check", "events"})

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def _checked_id(value: str) -> str:
    if not _ID.fullmatch(value):
        raise ValueError(
            "must be 1 to 128 letters, digits, dots, underscores or hyphens, the first a letter or digit"
            " ([A-Za-z0-9][A-Za-z0-9._-]{0,127})"
        )
    if value in RESERVED_IDS:
        raise ValueError(f"{value!r} is a word of the API's routes ({', '.join(sorted(RESERVED_IDS))}); take another")
    return value


def _checked_line(value: str) -> str:
    if not value.strip() or _CONTROL.search(value):
        raise ValueError("must hold a visible character, and no control characters or line ends")
    return value


def _checked_pattern(value: str) -> str:
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is not a regular expression: {error}") from error
    return value


def _not_empty(group: tuple[str, ...]) -> tuple[str, ...]:
    if not group:
        raise ValueError("is an empty group; it needs the id of at least one endpoint")
    return group


def _in_capitals(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _short(value: Any) -> Any:
    """Refuses a list before its entries are looked at: each wrong one would be told of."""
    if isinstance(value, (list, tuple)) and len(value) > MOST_ENTRIES:
        raise ValueError(f"must have at most {MOST_ENTRIES} entries")
    # Strict mode takes no list for a tuple behind a validator.
    return tuple(value) if isinstance(value, list) else value


def _in_groups(value: Any) -> Any:
    """``["a", ["b", "c"]]`` means a and (b or c)."""
    groups = _short(value)
    if not isinstance(groups, tuple):
        return value
    return tuple(
        (group,) if isinstance(group, str) else tuple(group) if isinstance(group, list) else group for group in groups
    )


Id = Annotated[str, AfterValidator(_checked_id)]
Line = Annotated[str, Field(max_length=200), AfterValidator(_checked_line)]
Tags = Annotated[tuple[Line, ...], BeforeValidator(_short)]
Group = Annotated[tuple[Id, ...], BeforeValidator(_short), AfterValidator(_not_empty)]
Groups = Annotated[tuple[Group, ...], BeforeValidator(_in_groups)]


class EndpointFields(BaseModel):
    """Every field of an endpoint that people set, whatever its protocol. ``None`` and missing mean the same."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    id: Id | None = None
    name: Line | None = None
    url: str
    protocol: str | None = None
    check_interval: int | None = Field(None, ge=1, le=LONGEST_INTERVAL_SECONDS)
    timeout: float | None = Field(None, gt=0, le=LONGEST_TIMEOUT_SECONDS)
    retries: int | None = Field(None, ge=0, le=20)
    expected_status_code: int | None = Field(None, ge=100, le=599)
    expected_response_pattern: Annotated[str, Field(max_length=2000), AfterValidator(_checked_pattern)] | None = None
    is_active: bool = True
    retry_interval: int | None = Field(None, ge=1, le=LONGEST_INTERVAL_SECONDS)
    detection_threshold: int | None = Field(None, ge=1, le=1000)
    detection_window: int | None = Field(None, ge=2, le=1000)
    recovery_threshold: int | None = Field(None, ge=1, le=1000)
    degraded_outage_after: int | None = Field(None, ge=1, le=1000)
    severity: Annotated[Severity, BeforeValidator(_in_capitals)] = Severity.MAJOR
    degraded_threshold_ms: float | None = Field(None, gt=0)
    depends_on: Groups = ()
    tags: Tags = ()
    site: Line | None = None
