"""Who is told, of what, when: ``[alert]`` and its rules. The ways out have theirs in ``channels``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import ConfigDict, Field, SecretStr

from servmon.model import Section, Severity

SERVICE_DOWN = "service_down"


class RuleSection(Section):
    """``[[alert.rules]]``: which endpoints' outages are told to whom. What is left out selects everything.

    Once any rule is written, what no rule selects is told to nobody.
    """

    name: str = Field(min_length=1, max_length=100)
    ids: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    severities: tuple[Severity, ...] = ()
    channels: tuple[str, ...] | None = None
    enabled: bool = True


class AlertSection(Section):
    """``[alert]``: the channels used where no rule says otherwise, and the pace of telling. Times are seconds."""

    notification_channels: tuple[str, ...] = ("email",)
    group_wait: int = Field(30, ge=0, le=600)
    group_interval: int = Field(300, ge=0, le=86_400)
    reminder_after: int = Field(3600, ge=0)
    storm_limit: int = Field(10, ge=1)
    fallback_channel: str | None = None
    dry_run: bool = False
    heartbeat_url: SecretStr | None = None
    heartbeat_interval: int = Field(60, ge=1)
    rules: tuple[RuleSection, ...] = ()


class ChannelSection(Section):
    """``[channels.NAME]``: one way out. ``kind`` says which; each kind's own keys stand with its class."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str = Field(min_length=1)
    # Told in its place while it does not get through.
    fallback: str | None = None

    def __repr_args__(self) -> Iterator[tuple[str, object]]:
        # Addresses and keys are nobody's business in a log.
        yield "kind", self.kind


Tls = Literal["starttls", "tls", "none"]
