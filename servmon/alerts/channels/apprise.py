"""``kind = "apprise"``: the services that the library Apprise knows, some 170, each by a URL of its own.

Apprise blocks, so each URL is told in a thread of its own, which hangs for nobody else. It is loaded where a channel of
this kind is, and nowhere else; its log is not ours, since addresses stand in it, and those are secrets.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator
from yarl import URL

from servmon.alerts.alert import ENDS, NOTICES, MessageKind, Notification
from servmon.alerts.channels.base import DEADLINE_SECONDS, TEXT_LIMIT, Channel, ChannelError
from servmon.alerts.channels.reach import Networks, Reach
from servmon.alerts.lines import SUBJECT_LIMIT
from servmon.alerts.settings import ChannelSection
from servmon.model import Severity

# So many threads may hang in one channel's URLs; beyond them no more are started.
MOST_THREADS = 16
_ANSWERED = re.compile(r"error=(\d{3})\b")
_TYPES: Mapping[Severity, str] = {
    Severity.CRITICAL: "failure",
    Severity.MAJOR: "failure",
    Severity.MINOR: "warning",
    Severity.WARNING: "warning",
}
# What rings for many, or shows a link as something else, in the chats that have such a markup.
_MENTION = re.compile(r"(?<![\w.+-])@(?=\w)|<(?=[!@#/\w])|\](?=\()")
_UNSEEN = "\u200b"
_thread = threading.local()


class AppriseSection(ChannelSection):
    """Whom Apprise tells. Addresses that are not public are refused unless ``allow_networks`` names their network."""

    kind: Literal["apprise"] = "apprise"
    urls: tuple[SecretStr, ...] = Field(min_length=1)
    allow_networks: Networks = ()

    @property
    def servers(self) -> frozenset[str]:
        """The hosts of those services that have one of one's own."""
        return frozenset(URL(url.get_secret_value()).host or "" for url in self.urls if _has_host(url))

    def places(self) -> Iterator[tuple[str, str]]:
        """Each URL that leads to a server which the user names, as it may be shown, with that server's name."""
        for number, url in enumerate(self.urls, 1):
            if server := _own_server(url):
                yield f"number {number} ({_schema(url)})", server

    @field_validator("urls")
    @classmethod
    def _are_known(cls, urls: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for number, url in enumerate(urls, 1):
            if _service(url) is None:
                raise ValueError(
                    f"number {number} ({_schema(url)}) is no URL that Apprise takes; its documentation shows each "
                    "service's, as tgram://TOKEN/CHAT"
                )
        return urls


class Apprise(Channel):
    """Tells each URL; one that has a message is not told again while others are still tried."""

    kind = "apprise"
    settings_class = AppriseSection

    def __init__(self, settings: AppriseSection) -> None:
        self._urls = settings.urls
        self._reach = Reach(settings.allow_networks)
        self._names = [_name(number, url) for number, url in enumerate(settings.urls)]
        self._threads = 0
        self._text_limit = min(map(_longest, settings.urls))

    @property
    def text_limit(self) -> int:
        """What the tightest of the services takes."""
        return self._text_limit

    @property
    def receivers(self) -> tuple[str, ...]:
        """Each URL is one."""
        return tuple(self._names)

    async def send(self, notification: Notification) -> None:
        """Tell every URL that has not got the message. Raises ``ChannelError`` where one was not told."""
        owed = [number for number, name in enumerate(self._names) if name not in notification.served]
        if not owed:
            return
        told = {self._start(number, notification): number for number in owed}
        done, _ = await asyncio.wait(told, timeout=DEADLINE_SECONDS)
        problems, served = [], []
        for future, number in told.items():
            problem = future.result() if future in done else f"did not answer within {DEADLINE_SECONDS:.0f} s"
            if problem is None:
                served.append(self._names[number])
            else:
                problems.append(f"number {number + 1} ({_schema(self._urls[number])}) {problem}")
        if problems:
            raise ChannelError("; ".join(problems), served=served)

    def _start(self, number: int, notification: Notification) -> asyncio.Future[str | None]:
        """Tell one URL in a thread, which nobody waits for at the end: what went wrong, if anything did."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str | None] = loop.create_future()
        if self._threads >= MOST_THREADS:
            future.set_result(f"is not tried: {self._threads} earlier tries still hang")
            return future
        self._threads += 1

        def settle(problem: str | None) -> None:
            self._threads -= 1
            if not future.done():
                future.set_result(problem)

        def work() -> None:
            problem: str | None = "failed within Apprise"
            try:
                problem = _tell(self._urls[number], notification, self._reach)
            finally:
                with suppress(RuntimeError):  # the loop has ended meanwhile
                    loop.call_soon_threadsafe(settle, problem)

        threading.Thread(target=work, name="apprise", daemon=True).start()
        return future


def _tell(url: SecretStr, notification: Notification, reach: Reach) -> str | None:
    """Tell one URL; blocks. What went wrong, without anything of the URL in it."""
    library = _library()
    teller = library.Apprise()
    teller.add(_service(url))
    refused: list[str] = []
    with _guarded(reach, refused):
        result = teller.notify(
            title=_harmless(notification.subject),
            body=_harmless(notification.body),
            body_format=library.NotifyFormat.TEXT,
            notify_type=_type_of(notification),
        )
    if result:
        return None
    if refused:
        return refused[0]
    answered = [found[1] for entry in result.logs() if (found := _ANSWERED.search(entry.message))]
    return f"answered {answered[-1]}" if answered else "could not be told"


def _type_of(notification: Notification) -> str:
    if notification.kind in ENDS:
        return "success"
    if notification.kind in NOTICES or notification.kind is MessageKind.TEST:
        return "info"
    return _TYPES[notification.severity]


def _harmless(text: str) -> str:
    """``text`` that mentions nobody and hides no link in a chat; it reads the same."""
    return _MENTION.sub(lambda found: found[0] + _UNSEEN, text)


@cache
def _library() -> Any:
    """Apprise with all it knows, loaded: it takes a second, and memory, of those alone who use it."""
    with warnings.catch_warnings():
        # What it imports is its own affair.
        warnings.simplefilter("ignore")
        import apprise  # noqa: PLC0415 - see above

        apprise.Apprise.instantiate("json://localhost")
    log = logging.getLogger("apprise")
    log.propagate = False
    log.addHandler(logging.NullHandler())
    sys.addaudithook(_watch)
    return apprise


def _service(url: SecretStr) -> Any:
    """The service that a URL stands for, new; ``None`` where Apprise knows none."""
    library = _library()
    # Without a time limit of its own it works in the thread that calls it, which is ours.
    asset = library.AppriseAsset(
        app_id="servmon", app_desc="servmon", async_mode=False, service_timeout=0, storage_mode="memory"
    )
    found = library.Apprise.instantiate(url.get_secret_value(), asset=asset, suppress_exceptions=True)
    if found is not None and "overflow=" not in url.get_secret_value():
        # Two messages are better than the half of one.
        found.overflow_mode = library.OverflowMode.SPLIT
    return found


def _own_server(url: SecretStr) -> str | None:
    """The server of a URL, where its service knows no other words in that place: a token is not for a resolver."""
    service = _service(url)
    if all("{host}" in template for template in service.templates) or getattr(service, "mode", None) == "private":
        server: str | None = getattr(service, "smtp_host", None) or service.host
        return server
    return None


def _longest(url: SecretStr) -> int:
    service = _service(url)
    titled = 0 if service.title_maxlen > 0 else SUBJECT_LIMIT
    return max(min(int(service.body_maxlen) - titled, TEXT_LIMIT), SUBJECT_LIMIT)


def _has_host(url: SecretStr) -> bool:
    try:
        return bool(URL(url.get_secret_value()).host)
    except ValueError:
        return False


def _name(number: int, url: SecretStr) -> str:
    """What tells a URL from another one in its place later on, and too little to guess a secret by."""
    return f"{number + 1}-{sha256(url.get_secret_value().encode()).hexdigest()[:4]}"


def _schema(url: SecretStr) -> str:
    """The word before the ``://``, the only part of a URL that may be shown."""
    schema, mark, _ = url.get_secret_value().partition("://")
    return f"{schema}://" if mark and re.fullmatch(r"[A-Za-z0-9+.-]{1,20}", schema) else "without a schema"


@contextmanager
def _guarded(reach: Reach, refused: list[str]) -> Iterator[None]:
    """Whatever this thread connects to meanwhile must be within ``reach``; what is not is noted in ``refused``."""

    def check(address: Any) -> None:
        # A tuple of address and port, or the path of a socket on this machine.
        try:
            reach.check(str(address[0]) if isinstance(address, tuple) else "a local socket")
        except OSError as error:
            refused.append(f"was not told: {error.strerror}")
            raise

    _thread.check = check
    try:
        yield
    finally:
        del _thread.check


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Called by Python for what any thread does: the only place where every connection of any library is seen."""
    if event in ("socket.connect", "socket.sendto"):
        check: Callable[[Any], None] | None = getattr(_thread, "check", None)
        if check is not None:
            check(arguments[1])
