"""How many checks decide, where an endpoint does not say otherwise."""

from __future__ import annotations

from pydantic import Field

from servmon.model import Section


class OutageSection(Section):
    """``[outage]``: how many failed checks declare an outage, how many good ones end it."""

    detection_threshold: int = Field(3, ge=1, le=1000)
    verification_enabled: bool = True
    recovery_threshold: int = Field(2, ge=1, le=1000)
