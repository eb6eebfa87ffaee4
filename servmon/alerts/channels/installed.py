"""Ways out that other packages bring: the entry points of the group ``servmon.channels``.

As with probes, a package whose channel cannot be used ends the start in one sentence: outages of which nobody hears
would be worse.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

from servmon.alerts.channels.base import Channel
from servmon.alerts.settings import ChannelSection
from servmon.probes.installed import broken, entries_of, load_entry, package_of

GROUP = "servmon.channels"
_KIND = re.compile(r"[a-z][a-z0-9_-]{0,31}")


def installed_channels(ours: Iterable[type[Channel]]) -> tuple[type[Channel], ...]:
    """The kinds that installed packages offer. Raises ``StartError`` naming the package of one that is broken."""
    taken = {channel.kind: "servmon itself" for channel in ours}
    found: list[type[Channel]] = []
    for entry in entries_of(GROUP):
        channel = load_entry("channel", entry)
        problem = next(_problems(channel, taken), None)
        if problem is not None:
            raise broken("channel", entry, problem)
        taken[channel.kind] = package_of(entry)
        found.append(channel)
    return tuple(found)


def _problems(channel: Any, taken: dict[str, str]) -> Iterator[str]:
    if not inspect.isclass(channel) or not issubclass(channel, Channel):
        yield "it must be a class derived from servmon.alerts.channels.base.Channel"
        return
    kind, section = getattr(channel, "kind", None), getattr(channel, "settings_class", None)
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        yield 'its "kind" must be a word in small letters, as "printer"'
    elif kind in taken:
        yield f"its kind {kind} is that of {taken[kind]}"
    if not inspect.isclass(section) or not issubclass(section, ChannelSection):
        yield 'its "settings_class" must be a class derived from servmon.alerts.settings.ChannelSection'
    if not inspect.iscoroutinefunction(channel.send) or inspect.isabstract(channel):
        yield 'its "send" must be an async method'
