"""How many checks decide, where an endpoint does not say otherwise."""

from __future__ import annotations

from ipaddress import ip_address

from pydantic import Field, field_validator

from servmon.model import Section

# Stands for the default gateways and the system's resolvers.
AUTO = "auto"


class OutageSection(Section):
    """``[outage]``: how many failed checks declare an outage, how many good ones end it, and who shows that we see."""

    detection_threshold: int = Field(3, ge=1, le=1000)
    verification_enabled: bool = True
    recovery_threshold: int = Field(2, ge=1, le=1000)
    witnesses: tuple[str, ...] = (AUTO,)

    @field_validator("witnesses")
    @classmethod
    def _are_addresses(cls, witnesses: tuple[str, ...]) -> tuple[str, ...]:
        for witness in witnesses:
            try:
                if witness != AUTO:
                    ip_address(witness)
            except ValueError:
                raise ValueError(f'{witness!r} is not an IP address; "auto" or 192.0.2.1 would be right') from None
        return witnesses
