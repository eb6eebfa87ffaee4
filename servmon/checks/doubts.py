"""What may make a failure ours and not the target's."""

from __future__ import annotations

from dataclasses import dataclass

from servmon.checks.pulse import Pulse
from servmon.checks.witnesses import Witnesses


@dataclass(frozen=True, slots=True)
class Doubts:
    """Whether we are in time, and whether we are connected."""

    pulse: Pulse
    witnesses: Witnesses
