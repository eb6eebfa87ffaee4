"""What a probe is: code that asks one protocol once and says what it learned."""

from __future__ import annotations

import asyncio
import errno
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from servmon.model import NO_PHASES, FailureKind, Phases
from servmon.probes.endpoint_fields import Line

if TYPE_CHECKING:
    from servmon.probes.network import ProbeContext

T = TypeVar("T")

MESSAGE_LIMIT = 500

_KINDS: Mapping[int, FailureKind] = {
    errno.ECONNREFUSED: FailureKind.REFUSED,
    errno.ECONNRESET: FailureKind.RESET,
    errno.ECONNABORTED: FailureKind.RESET,
    errno.EPIPE: FailureKind.RESET,
    errno.EHOSTUNREACH: FailureKind.UNREACHABLE,
    errno.ENETUNREACH: FailureKind.UNREACHABLE,
    errno.EHOSTDOWN: FailureKind.UNREACHABLE,
    errno.ETIMEDOUT: FailureKind.TIMEOUT,
}
_WORDS: Mapping[FailureKind, str] = {
    FailureKind.REFUSED: "connection refused",
    FailureKind.RESET: "connection reset",
    FailureKind.UNREACHABLE: "unreachable",
    FailureKind.TIMEOUT: "timed out",
}
# What the system says of ways that it does not have, in words that tell where they were wished for.
_NO_SUCH_WAY = {
    errno.EADDRNOTAVAIL: "it does not have this source address, or no port left",
    errno.ENODEV: "it has no such network interface",
}
# Control characters, and what turns the direction of text round or cannot be seen.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


_WEB_ADDRESS = re.compile(r"https?://[^\s\x00-\x1f\x7f]+")


def _checked_web_address(value: str) -> str:
    if not _WEB_ADDRESS.fullmatch(value):
        raise ValueError("must be a URL that a browser can open; https://wiki.example/runbook would be one")
    return value


class Options(BaseModel):
    """Base of a protocol's own options; they stand flat beside an endpoint's fields and never bear a field's name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Whose a secret option is: without that option it is nobody's.
    secrets_of: ClassVar[Mapping[str, str]] = {}
    # Of an option that is a table, the names of the entries that are secrets.
    secret_entries: ClassVar[Mapping[str, re.Pattern[str]]] = {}

    # For the people whom a message reaches; the probe makes nothing of them.
    runbook_url: Annotated[str, Field(max_length=2000), AfterValidator(_checked_web_address)] | None = None
    owner: Line | None = None
    contact: Line | None = None
    circuit_id: Line | None = None
    # What a firewall must keep away, or a server that is to be gone, must not answer.
    inverted: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """Where one endpoint points and what it must answer; parsed once when the endpoint is loaded, never per check.

    ``port`` is ``None`` for protocols without ports; ``path`` is what followed the authority in the URL
    (``/name?type=A``), ``""`` where nothing did.
    """

    url: str
    host: str
    port: int | None = None
    path: str = ""
    expected_status_code: int | None = None
    pattern: re.Pattern[str] | None = None


# Not frozen, though nobody changes one: freezing costs twice as much as all else of making it.
@dataclass(slots=True, unsafe_hash=True)
class Answer:
    """What a successful attempt learned. ``degraded`` says in words why UP is too much praise, if it is."""

    response_ms: float | None
    phases: Phases = NO_PHASES
    details: Mapping[str, Any] | None = None
    degraded: str | None = None


class ProbeFailed(Exception):  # noqa: N818 - it is a finding about the target, not an error of ours
    """The target did not do what was expected. ``response_ms`` is set where it answered all the same."""

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        response_ms: float | None = None,
        phases: Phases = NO_PHASES,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        self.kind = kind
        self.message = safe_text(message)
        self.response_ms = response_ms
        self.phases = phases
        self.details = details
        super().__init__(self.message)


# Gives what an attempt learned, or raises as ``Probe.check`` does.
Conclude = Callable[[], Answer]
# Ends an attempt that nobody waits for any more.
GiveUp = Callable[[], None]


class Probe(Protocol):
    """One protocol. Knows nothing of retries, timeouts, state or storage; the runner cuts it off at the deadline.

    ``takes_socket`` says whether each check opens a socket of its own, so that the global cap counts it.
    An ``OSError`` may escape: the runner turns it into words with ``failure_from``. A probe may also have
    ``validate(target, options)``, called when an endpoint is made, which raises ``InvalidInputError`` for what no
    single value can show (two options that exclude each other), and ``from_file_only = True`` where endpoints of its
    protocol may come from the configuration file alone, and ``begin`` (see ``Begin``).
    """

    protocol: ClassVar[str]
    default_port: ClassVar[int | None]
    options: ClassVar[type[Options]]
    takes_socket: ClassVar[bool]

    async def check(self, target: Target, options: Any, context: ProbeContext) -> Answer:
        """Ask once. Returns what was learned or raises ``ProbeFailed``."""
        ...


class Begin(Protocol):
    """Asks once as ``Probe.check`` does, but without a task, which for a single question costs as much as the question.

    Returns at once; ``told`` is called once, at the latest after ``context.attempt_seconds``, and may be called before
    that. What it returns ends the attempt, and then nobody is told. ``None`` means that only ``check`` can ask this.
    """

    def __call__(
        self, target: Target, options: Any, context: ProbeContext, told: Callable[[Conclude], None], /
    ) -> GiveUp | None:
        """Begin to ask. Raises as ``check`` does where it fails at once."""
        ...


async def until_told(begin: Callable[[Callable[[T], None]], GiveUp]) -> T:
    """What ``begin`` tells the callable that it gets. Who is cancelled meanwhile, or heard, gives up the asking."""
    ended: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def tell(news: T) -> None:
        if not ended.done():
            ended.set_result(news)

    give_up = begin(tell)
    try:
        return await ended
    finally:
        give_up()


def safe_text(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """``text`` with control characters escaped and cut at ``limit`` characters: banners are a stranger's data."""
    shown = _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode(), text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def failure_from(error: OSError, doing: str) -> ProbeFailed:
    """The finding that an operating system error stands for, with what was being done when it came."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return ProbeFailed(FailureKind.TLS, f"certificate not accepted: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return ProbeFailed(FailureKind.TLS, f"TLS failed while {doing}: {error.reason or error}")
    kind = _KINDS.get(error.errno or 0)
    if kind is None and isinstance(error, ConnectionError):
        kind = FailureKind.RESET  # asyncio raises some of them without a number
    if kind is None:
        # What is left (EMFILE, ENOBUFS, EACCES, EADDRNOTAVAIL …) is this machine's fault, not the target's.
        why = _NO_SUCH_WAY.get(error.errno or 0) or error.strerror or error
        return ProbeFailed(FailureKind.LOCAL, f"this machine could not go on while {doing}: {why}")
    return ProbeFailed(kind, f"{_WORDS[kind]} while {doing}")
