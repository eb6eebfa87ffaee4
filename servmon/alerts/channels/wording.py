"""A channel's own words, and what is too long for it: around each way out, whichever kind it is.

Jinja2 is loaded only where a channel has a template. A template that fails while a message is sent does not hold it up:
it goes out in our words and says why.
"""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from servmon.alerts.alert import NOTICES, MessageKind, Notification
from servmon.alerts.channels.base import Channel
from servmon.alerts.content import DELAYED, REMARKS
from servmon.alerts.lines import SUBJECT_LIMIT, late_subject, one_line
from servmon.alerts.links import Links
from servmon.alerts.settings import ChannelSection
from servmon.errors import StartError
from servmon.probes.base import safe_text

if TYPE_CHECKING:
    from servmon.alerts.templates import Template

_log = structlog.get_logger(__name__)

_KEYS = ("subject", "text", "html")
# Ours alone: a template for one outage would lose what stands in them.
_OURS = frozenset({MessageKind.SUMMARY})
_REASON_LIMIT = 200
_BODY = re.compile(r"<body[^>]*>", re.IGNORECASE)
# Off the loop, which no template may hold, and not among the threads that look up names.
_threads = ThreadPoolExecutor(1, "templates")


class Worded(Channel):
    """Sends over another channel, in the words its settings give."""

    def __init__(self, channel: Channel, settings: ChannelSection, links: Links | None = None) -> None:
        self.inner = channel
        self._links = links
        self._templates = _compiled(settings)
        self._subject_limit = settings.subject_limit or SUBJECT_LIMIT
        self._text_limit = settings.text_limit

    @property
    def text_limit(self) -> int:
        """The settings', else the channel's own."""
        return self._text_limit or self.inner.text_limit

    @property
    def receivers(self) -> tuple[str, ...]:
        """The channel's own."""
        return self.inner.receivers

    async def send(self, notification: Notification) -> None:
        """Send in this channel's words. Raises ``ChannelError``."""
        if self._links is not None:
            notification = self._links.in_message(notification)
        if self._templates and notification.kind not in _OURS:
            loop = asyncio.get_running_loop()
            notification = await loop.run_in_executor(_threads, self._say, notification)
        subject = one_line(notification.subject, self._subject_limit)
        await self.inner.send(replace(notification, subject=subject, body=cut(notification, self.text_limit)))

    def _say(self, notification: Notification) -> Notification:
        """The message in the templates' words, or where one fails in ours; blocks for some seconds at most."""
        from servmon.alerts.template_values import values_of  # noqa: PLC0415
        from servmon.alerts.templates import BadTemplateError  # noqa: PLC0415 - Jinja2, where it is used

        said: dict[str, str] = {}
        key = ""
        try:
            values = values_of(notification)
            for key, template in self._templates.items():
                said[key] = template.render(values)
        except (BadTemplateError, ValueError, TypeError, KeyError, AttributeError) as fault:
            # Beside the template's own faults: content that an older servmon stored in another shape.
            why = safe_text(str(fault), limit=_REASON_LIMIT)
            _log.warning("template failed, sent in our words", channel=notification.channel, template=key, problem=why)
            remark = f"The template {key!r} of this channel could not be used, so these are our own words: {why}"
            return replace(notification, body=f"{notification.body}\n{remark}\n")
        return _with(notification, said, self._subject_limit)


def _with(notification: Notification, said: Mapping[str, str], subject_limit: int) -> Notification:
    """The message with these words in the place of ours; what is late still says so."""
    remarks = notification.content.get(REMARKS, ())
    if (subject := " ".join(said.get("subject", "").split())) and (late := notification.content.get(DELAYED)):
        subject = late_subject(subject, late, subject_limit)
    body = notification.body
    if "text" in said:
        above = "".join(f"{remark}\n" for remark in remarks)
        body = f"{above}\n{_lines(said['text'])}" if above else _lines(said["text"])
    page = said.get("html")
    if page is not None and remarks:
        above = "".join(f"<p>{html.escape(remark)}</p>" for remark in remarks)
        start = found.end() if (found := _BODY.search(page)) else 0
        page = f"{page[:start]}{above}{page[start:]}"
    return replace(notification, subject=subject or notification.subject, body=body, html=page)


def _lines(text: str) -> str:
    """``text`` without control characters but for its line ends, of which it has one at its end."""
    return "\n".join(one_line(line, limit=len(line) + 1) for line in text.rstrip().split("\n")) + "\n"


def cut(notification: Notification, limit: int) -> str:
    """The text, at most ``limit`` characters of it, with a note of how much was cut and where it can be read."""
    text = notification.body
    if len(text) <= limit:
        return text
    where = ""
    if notification.kind not in NOTICES | {MessageKind.TEST, MessageKind.SUMMARY}:
        where = f"; the whole text: GET /alerts/{notification.alert_id}"
    note = "\n… cut here: {} more characters in {} more lines" + where + "\n"
    kept = text[: max(limit - len(note) - 20, 0)]
    if "\n" in kept[len(kept) // 2 :]:
        kept = kept[: kept.rindex("\n")]
    left = text[len(kept) :].strip("\n")
    return kept + note.format(f"{len(left):,}", left.count("\n") + 1)


def wording_problems(settings: ChannelSection) -> Iterator[tuple[str, str]]:
    """What is wrong with the templates of a channel, each with its key."""
    if settings.html is not None and not settings.shows_html:
        yield "html", f"is for mails; a channel of the kind {settings.kind} has subject and text"
        return
    for key, source in _sources(settings):
        if (problem := _problem_of(key, source)) is not None:
            yield key, problem


def _problem_of(key: str, source: str) -> str | None:
    from servmon.alerts.template_values import samples, values_of  # noqa: PLC0415
    from servmon.alerts.templates import BadTemplateError, Template  # noqa: PLC0415 - Jinja2, where it is used

    kind = ""
    try:
        template = Template(source, html=key == "html")
        for sample in samples():
            kind = sample.kind.value
            template.render(values_of(sample))
    except BadTemplateError as fault:
        return f"{fault} (a message of the kind {kind!r})" if kind else str(fault)
    return None


def _sources(settings: ChannelSection) -> Iterable[tuple[str, str]]:
    return ((key, source) for key in _KEYS if (source := getattr(settings, key)) is not None)


def _compiled(settings: ChannelSection) -> Mapping[str, Template]:
    """Raises ``StartError`` where one cannot be used; whoever loads a file has asked ``wording_problems`` before."""
    sources = dict(_sources(settings))
    if not sources:
        return {}
    from servmon.alerts.templates import BadTemplateError, Template  # noqa: PLC0415 - Jinja2, where it is used

    try:
        return {key: Template(source, html=key == "html") for key, source in sources.items()}
    except BadTemplateError as fault:
        raise StartError(f"a template of a channel cannot be used: {fault}") from None
