"""How often, how long and how often again, where an endpoint does not say otherwise."""

from __future__ import annotations

import math

from pydantic import Field

from servmon.model import Section

# Longer would mean an outage noticed next month; and no date arithmetic can overflow with it.
LONGEST_INTERVAL_SECONDS = 31 * 86_400
# A check may use this share of the time to its next due moment.
DEADLINE_SHARE = 0.8
# Between two attempts of one check.
RETRY_PAUSE_SECONDS = 0.5


class ServiceSection(Section):
    """``[service]``: the defaults of every endpoint's checks. Durations are seconds."""

    check_interval: int = Field(60, ge=1, le=LONGEST_INTERVAL_SECONDS)
    check_timeout: float = Field(5, gt=0, le=300, allow_inf_nan=False)
    check_retries: int = Field(3, ge=0, le=20)
    retry_interval: int = Field(15, ge=1, le=LONGEST_INTERVAL_SECONDS)
    max_sockets: int = Field(5000, ge=1, le=1_000_000)
    canary_names: tuple[str, ...] = ()


def attempts_that_fit(check_interval: float, timeout: float) -> int:
    """How many attempts of ``timeout`` seconds end before a check's deadline; 0 where even the first is cut short."""
    room = DEADLINE_SHARE * check_interval
    return math.floor((room + RETRY_PAUSE_SECONDS) / (timeout + RETRY_PAUSE_SECONDS) + 1e-9)
