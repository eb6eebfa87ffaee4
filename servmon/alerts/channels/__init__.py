"""The ways out, one file a kind. A new kind is entered in the list here, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from servmon.alerts.channels.alertmanager import Alertmanager
from servmon.alerts.channels.apprise import Apprise
from servmon.alerts.channels.base import Channel
from servmon.alerts.channels.exec import Exec
from servmon.alerts.channels.installed import installed_channels
from servmon.alerts.channels.pagerduty import PagerDuty
from servmon.alerts.channels.smtp import Smtp
from servmon.alerts.channels.webhook import Webhook
from servmon.alerts.channels.wording import Worded
from servmon.alerts.links import Links
from servmon.alerts.settings import ChannelSection

_OURS: tuple[Any, ...] = (Smtp, Webhook, PagerDuty, Alertmanager, Exec, Apprise)
_KINDS: tuple[Any, ...] = (*_OURS, *installed_channels(_OURS))
SETTINGS: Mapping[str, type[ChannelSection]] = {kind.kind: kind.settings_class for kind in _KINDS}


def open_channel(settings: ChannelSection, links: Links | None = None) -> Channel:
    """The way out that ``settings`` describe, in its words; it holds nothing open between messages.

    With ``links`` its messages have one by which what is down is acknowledged.
    """
    made: Channel = next(kind for kind in _KINDS if kind.kind == settings.kind)(settings)
    return Worded(made, settings, links)


def open_channels(
    sections: Mapping[str, ChannelSection], fallback: str | None, links: Links | None = None
) -> dict[str, tuple[Channel, str | None]]:
    """Every way out by name, with the name of its fallback: its own, else ``fallback`` unless that is itself."""
    return {
        name: (open_channel(section, links), section.fallback or (fallback if fallback != name else None))
        for name, section in sections.items()
    }
