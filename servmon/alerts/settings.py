"""Who is told, of what, when: ``[alert]`` and its rules. The ways out have theirs in ``channels``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import AfterValidator, ConfigDict, Field, SecretStr, field_validator
from yarl import URL

from servmon.alerts.quiet_hours import QuietHours
from servmon.alerts.rule_settings import UNWRITTEN, EscalationStep, RuleKind, RuleSection, Steps
from servmon.model import AlertThresholds, OrFile, Section, Severity

__all__ = ["AlertSection", "ChannelSection", "EscalationStep", "QuietHours", "RuleKind", "RuleSection", "Url"]


def _checked_url(secret: SecretStr) -> SecretStr:
    try:
        url = URL(secret.get_secret_value())
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("must be an http or https URL such as https://hooks.isp.example/servmon")
    if url.user or url.password:
        raise ValueError("must not hold a user or password; put what the receiver asks for into headers")
    return secret


# A Jinja2 template; it is tried when it is read.
Words = Annotated[str | None, OrFile()]
# The addresses of many receivers are secrets.
Url = Annotated[SecretStr, AfterValidator(_checked_url)]


class AlertSection(AlertThresholds):
    """``[alert]``: the channels used where no rule says otherwise, the pace of telling, and from where on.

    Times are seconds where the name does not say otherwise.
    """

    notification_channels: tuple[str, ...] = ("email",)
    group_wait: int = Field(30, ge=0, le=600)
    group_interval: int = Field(300, ge=0, le=86_400)
    reminder_after: int = Field(3600, ge=0)
    end_grace: int = Field(300, ge=0, le=1800)
    storm_limit: int = Field(10, ge=1)
    certificate_days: tuple[Annotated[int, Field(ge=1, le=365)], ...] = (30, 14, 7, 3, 1)
    fallback_channel: str | None = None
    dry_run: bool = False
    heartbeat_url: SecretStr | None = None
    heartbeat_interval: int = Field(60, ge=1)
    escalation: Steps = ()
    quiet_hours: tuple[QuietHours, ...] = ()
    rules: tuple[RuleSection, ...] = ()

    @field_validator("rules")
    @classmethod
    def _have_names_of_their_own(cls, rules: tuple[RuleSection, ...]) -> tuple[RuleSection, ...]:
        names = [rule.name for rule in rules]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two rules are called {twice!r}; each needs a name of its own")
        return rules

    @field_validator("heartbeat_url")
    @classmethod
    def _is_url(cls, url: SecretStr | None) -> SecretStr | None:
        return _checked_url(url) if url else None

    def rules_of(self, kind: RuleKind) -> tuple[RuleSection, ...]:
        """The enabled rules of a kind, in their order; where none of it is written, the one that holds then."""
        written = [rule for rule in self.rules if rule.kind is kind]
        if not written:
            return (UNWRITTEN[kind],) if kind in UNWRITTEN else ()
        return tuple(rule for rule in written if rule.enabled)

    def quiet_until(self, severity: Severity, now: datetime) -> datetime | None:
        """When the quiet hours end that hold now for this severity, the last of them."""
        ends = [end for hours in self.quiet_hours if (end := hours.until(severity, now)) is not None]
        return max(ends, default=None)

    @property
    def chooses(self) -> bool:
        """Whether rules choose whose outages are told; what none of them selects is then told to nobody."""
        return any(rule.kind is RuleKind.SERVICE_DOWN for rule in self.rules)


class ChannelSection(Section):
    """``[channels.NAME]``: one way out. ``kind`` says which; each kind's own keys stand with its class."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str = Field(min_length=1)
    # Told in its place while it does not get through.
    fallback: str | None = None
    # Words in the place of ours.
    subject: Words = None
    text: Words = None
    html: Words = None
    # Characters; what is longer is cut, and says so.
    subject_limit: int | None = Field(None, ge=20, le=1000)
    text_limit: int | None = Field(None, ge=200)

    shows_html: ClassVar[bool] = False

    @property
    def servers(self) -> frozenset[str]:
        """The hosts that it depends on, as they are written; none of them is for other eyes, they may be secrets."""
        return frozenset()

    def __repr_args__(self) -> Iterator[tuple[str, object]]:
        # Addresses and keys are nobody's business in a log.
        yield "kind", self.kind
