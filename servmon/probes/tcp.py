"""TCP: can a connection be opened, and does who answers there say what is expected?"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import cached_property, partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field
from typing_extensions import override

from servmon.clock import SYSTEM_CLOCK
from servmon.errors import InvalidInputError
from servmon.model import Phases
from servmon.probes.addresses import host_and_port
from servmon.probes.asking import Asking
from servmon.probes.base import Answer, Conclude, GiveUp, Options, ProbeFailed, Target, until_told
from servmon.probes.connection import Connected, connect
from servmon.probes.conversation import TEXT_LIMIT, Conversation
from servmon.probes.dialogue import Step, offers_starttls, preset_steps
from servmon.probes.network import ProbeContext
from servmon.probes.route import check_route
from servmon.probes.stream import Stream
from servmon.probes.tls import TLS_OPTIONS, TlsOptions, certificate_facts, check_tls, server_name, tls_context

_MAX_STEPS = 50


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class TcpOptions(TlsOptions):
    """What is said over the connection; without any of these it is opened, and closed again.

    ``tls`` begins with TLS, ``starttls`` has a ready-made dialogue (``preset``) go over to it.
    """

    preset: Literal["smtp", "imap", "pop3", "ftp", "ssh"] | None = None
    steps: Annotated[tuple[Step, ...], BeforeValidator(_as_tuple), Field(max_length=_MAX_STEPS)] = ()
    tls: bool = False
    starttls: bool = False
    answer_limit: int = Field(default=TEXT_LIMIT, ge=64, le=1 << 20)

    @cached_property
    def talks(self) -> bool:
        """Whether anything is said."""
        return bool(self.preset or self.steps or self.tls)


class TcpProbe:
    """Open a connection, hold the dialogue if there is one, and close it again."""

    protocol: ClassVar[str] = "TCP"
    default_port: ClassVar[int | None] = None
    options: ClassVar[type[Options]] = TcpOptions
    takes_socket: ClassVar[bool] = True

    def validate(self, target: Target, options: TcpOptions) -> None:
        """Refuse options that exclude each other. Raises ``InvalidInputError``."""
        given, begun = options.model_fields_set, [step for step in options.steps if step.starttls]
        if options.preset and options.steps:
            raise InvalidInputError.of("steps", "excludes preset: one of them says what is said")
        if "answer_limit" in given and not (options.preset or options.steps):
            raise InvalidInputError.of("answer_limit", "means nothing without preset or steps, since nothing is read")
        if options.starttls and not (options.preset and offers_starttls(options.preset)):
            raise InvalidInputError.of(
                "starttls", "needs a preset that knows it (smtp, imap, pop3, ftp); in steps it is a step of its own"
            )
        if options.tls and (options.starttls or begun):
            raise InvalidInputError.of("tls", "excludes starttls: TLS begins once, at the start or later")
        if len(begun) > 1:
            raise InvalidInputError.of("steps", "has starttls twice; TLS begins once")
        if not (options.tls or options.starttls or begun) and (
            others := [name for name in TLS_OPTIONS if name in given]
        ):
            raise InvalidInputError.of(others[0], "means nothing without tls or starttls")
        check_route(target, options)
        check_tls(options)

    async def check(self, target: Target, options: TcpOptions, context: ProbeContext) -> Answer:
        """Connect once. Raises ``ProbeFailed``: REFUSED, RESET, UNREACHABLE; silence ends at the runner's limit.

        Where there is a dialogue also PATTERN, PROTOCOL and TLS.
        """
        address = await context.resolve(target.host)
        async with context.slot(address):
            if options.talks:
                return await _talk(await connect(context, address, target.port or 0), target, options, context)
            conclude: Conclude = await until_told(_Touch(context, address, target.port or 0).begin)
            return conclude()

    def begin(
        self, target: Target, options: TcpOptions, context: ProbeContext, told: Callable[[Conclude], None]
    ) -> GiveUp | None:
        """Connect without a task, where nothing is said, nothing to be resolved and nobody to be waited for."""
        address = context.known_address(target.host)
        if options.talks or address is None or not context.network.slots.take(address):
            return None
        leave = partial(context.network.slots.give_back, address)
        return _Touch(context, address, target.port or 0, leave).begin(told)


class _Touch(Asking):
    """A connection that is opened and closed again."""

    __slots__ = ("_stream",)

    def __init__(self, context: ProbeContext, address: str, port: int, leave: Callable[[], None] | None = None) -> None:
        super().__init__(context, address, port, leave)
        self._stream = Stream(context.network.readiness, self._end, _hear_nothing, self._end)

    @override
    def conclude(self) -> Answer:
        self._raise_failure()
        opened_at, connected_at = self._stream.opened_at, self._stream.connected_at
        connect_ms = ((connected_at or opened_at) - opened_at) * 1000
        phases = Phases(dns_ms=self._context.dns_ms, connect_ms=connect_ms)
        return Answer(connect_ms, phases, {"address": self._address})

    @override
    def _set_out(self) -> None:
        self._context.doing = f"connecting to {self._place}"
        self._stream.open(self._address, self._port, self._context.route)

    @override
    def _drop(self) -> None:
        self._stream.close()


def _hear_nothing(_octets: bytes) -> None:
    """What is sent to who only connects."""


async def _talk(connected: Connected, target: Target, options: TcpOptions, context: ProbeContext) -> Answer:
    steps = preset_steps(options.preset, starttls=options.starttls) if options.preset else options.steps
    began_at = SYSTEM_CLOCK.monotonic()
    place = host_and_port(context.address or target.host, target.port or 0)
    name = server_name(options, target.host)
    conversation = Conversation(connected.sock, place, name, context, options.answer_limit)
    try:
        await _converse(conversation, options, steps, tls_context(options.tls_settings, None))
    except ProbeFailed as failed:
        failed.phases = _phases(conversation, connected, context)
        failed.details = _details(conversation, context)
        raise
    finally:
        conversation.close()
    response_ms = connected.connect_ms + (SYSTEM_CLOCK.monotonic() - began_at) * 1000
    return Answer(response_ms, _phases(conversation, connected, context), _details(conversation, context))


async def _converse(
    conversation: Conversation, options: TcpOptions, steps: tuple[Step, ...], tls: ssl.SSLContext
) -> None:
    await conversation.begin(tls if options.tls else None)
    for step in steps:
        await conversation.follow(step, tls)


def _phases(conversation: Conversation, connected: Connected, context: ProbeContext) -> Phases:
    return Phases(
        dns_ms=context.dns_ms,
        connect_ms=connected.connect_ms,
        tls_ms=conversation.tls_ms,
        first_byte_ms=conversation.first_byte_ms,
    )


def _details(conversation: Conversation, context: ProbeContext) -> dict[str, Any]:
    details: dict[str, Any] = {"address": context.address}
    if conversation.banner:
        details["banner"] = conversation.banner
    if conversation.tls_version:
        details["tls_version"] = conversation.tls_version
    return details | certificate_facts(conversation.certificate)
