"""TCP: can a connection be opened, and does who answers there say what is expected?"""

from __future__ import annotations

import ssl
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from servmon.clock import SYSTEM_CLOCK
from servmon.errors import InvalidInputError
from servmon.model import Phases
from servmon.probes.addresses import host_and_port
from servmon.probes.base import Answer, Options, ProbeFailed, Target
from servmon.probes.connection import Connected, connect
from servmon.probes.conversation import TEXT_LIMIT, Conversation
from servmon.probes.dialogue import Step, offers_starttls, preset_steps
from servmon.probes.network import ProbeContext
from servmon.probes.route import check_route
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
        steps = preset_steps(options.preset, starttls=options.starttls) if options.preset else options.steps
        async with context.slot(address):
            connected = await connect(context, address, target.port or 0)
            if steps or options.tls:
                return await _talk(connected, target, options, steps, context)
            connected.sock.close()
        phases = Phases(dns_ms=context.dns_ms, connect_ms=connected.connect_ms)
        return Answer(connected.connect_ms, phases, {"address": address})


async def _talk(
    connected: Connected, target: Target, options: TcpOptions, steps: tuple[Step, ...], context: ProbeContext
) -> Answer:
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
