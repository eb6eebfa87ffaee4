"""UDP: does anything answer a datagram?"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import socket
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, Field

from servmon.clock import SYSTEM_CLOCK
from servmon.errors import InvalidInputError
from servmon.model import FailureKind, Phases
from servmon.probes.addresses import host_and_port
from servmon.probes.base import Answer, Options, ProbeFailed, Target, safe_text
from servmon.probes.connection import connect_failure, open_socket
from servmon.probes.network import ProbeContext
from servmon.probes.ntp import TimeAnswer, TimeQuestion
from servmon.probes.pattern import compiled, search
from servmon.probes.readiness import Readiness
from servmon.probes.route import ConnectingOptions, check_route

_LARGEST_PAYLOAD = 65_507
_LARGEST_REPLY = 65_535
_SHOWN = 80


def _checked_hex(value: str) -> str:
    try:
        payload = bytes.fromhex(value)
    except ValueError as error:
        raise ValueError(f"{value[:40]!r} is not hexadecimal; pairs of digits such as 'e3 00 06' would be") from error
    if len(payload) > _LARGEST_PAYLOAD:
        raise ValueError(f"is {len(payload)} bytes; a datagram holds {_LARGEST_PAYLOAD}")
    return value


def _not_nothing(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty, and every reply holds that; leave it out where any reply is right")
    return value


def _checked_base64(value: str) -> str:
    try:
        payload = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{value[:40]!r} is not base64 (RFC 4648); '4wAG7A==' would be") from error
    if len(payload) > _LARGEST_PAYLOAD:
        raise ValueError(f"is {len(payload)} bytes; a datagram holds {_LARGEST_PAYLOAD}")
    return value


def _checked_text(value: str) -> str:
    if len(value.encode()) > _LARGEST_PAYLOAD:
        raise ValueError(f"is {len(value.encode())} bytes; a datagram holds {_LARGEST_PAYLOAD}")
    return value


def _checked_pattern(value: str) -> str:
    try:
        compiled(value)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is not a regular expression: {error}") from error
    return value


class UdpOptions(ConnectingOptions):
    """What is sent, and what the reply must hold. Any reply will do by default; without one nothing is proved.

    ``preset`` stands for all of them: ``ntp`` asks for the time, and may say how far the server's clock may be off.
    """

    send: Annotated[str, AfterValidator(_checked_text)] | None = None
    send_hex: Annotated[str, AfterValidator(_checked_hex)] | None = None
    send_base64: Annotated[str, AfterValidator(_checked_base64)] | None = None
    expect: (
        Annotated[str, Field(max_length=2000), AfterValidator(_not_nothing), AfterValidator(_checked_pattern)] | None
    ) = None
    expect_hex: Annotated[str, AfterValidator(_not_nothing), AfterValidator(_checked_hex)] | None = None
    preset: Literal["ntp"] | None = None
    max_offset_ms: float | None = Field(None, gt=0)
    max_stratum: int = Field(15, ge=1, le=15)


_PAYLOADS = ("send", "send_hex", "send_base64")
_EXPECTATIONS = ("expect", "expect_hex")
_OF_TIME = ("max_offset_ms", "max_stratum")


class _Reply(NamedTuple):
    datagram: bytes
    sent_wall: float
    elapsed_ms: float


class UdpProbe:
    """Send one datagram from a socket of its own and wait for a reply."""

    protocol: ClassVar[str] = "UDP"
    default_port: ClassVar[int | None] = None
    options: ClassVar[type[Options]] = UdpOptions
    takes_socket: ClassVar[bool] = True

    def validate(self, target: Target, options: UdpOptions) -> None:
        """Refuse options that exclude each other. Raises ``InvalidInputError``."""
        given = options.model_fields_set
        payloads = [name for name in _PAYLOADS if name in given]
        expectations = ["expected_response_pattern"] if target.pattern is not None else []
        expectations += [name for name in _EXPECTATIONS if name in given]
        if len(payloads) > 1:
            raise InvalidInputError.of(payloads[1], f"excludes {payloads[0]}: one of them says what is sent")
        if len(expectations) > 1:
            raise InvalidInputError.of(expectations[1], f"excludes {expectations[0]}: one of them says what must come")
        if options.preset and (others := payloads + expectations):
            raise InvalidInputError.of(others[0], f"means nothing beside preset, which says all of {options.preset}")
        if not options.preset and (others := [name for name in _OF_TIME if name in given]):
            raise InvalidInputError.of(others[0], 'means nothing without preset = "ntp"')
        check_route(target, options)

    async def check(self, target: Target, options: UdpOptions, context: ProbeContext) -> Answer:
        """Ask once. Raises ``ProbeFailed``: REFUSED at once where the port is closed, PATTERN for another reply.

        A time server whose clock cannot be trusted is CONTENT.
        """
        if options.preset == "ntp":
            return await _ask_the_time(target, options, context)
        payload = payload_of(options.send, options.send_hex, options.send_base64)
        address, reply = await _exchange(target, context, payload)
        details = {"address": address, "bytes": len(reply.datagram)}
        phases = Phases(dns_ms=context.dns_ms, first_byte_ms=reply.elapsed_ms)
        complaint = await _complaint(target, options, reply.datagram, context)
        if complaint is not None:
            raise ProbeFailed(
                FailureKind.PATTERN, complaint, response_ms=reply.elapsed_ms, phases=phases, details=details
            )
        return Answer(reply.elapsed_ms, phases, details)


async def _complaint(target: Target, options: UdpOptions, datagram: bytes, context: ProbeContext) -> str | None:
    """Why a reply is not the expected one, in words."""
    if options.expect_hex is not None and bytes.fromhex(options.expect_hex) not in datagram:
        return f"the reply {_in_hex(datagram)} does not hold the bytes {options.expect_hex}"
    pattern = target.pattern if options.expect is None else compiled(options.expect)
    if pattern is None:
        return None
    text = text_of(datagram)
    if await search(pattern, text, context):
        return None
    return f"the reply {safe_text(repr(text[:_SHOWN]))} does not match {pattern.pattern!r}"


def _in_hex(datagram: bytes) -> str:
    shown = datagram[: _SHOWN // 3].hex(" ")
    return f"{shown} …" if len(datagram) > _SHOWN // 3 else shown or "(empty)"


async def _ask_the_time(target: Target, options: UdpOptions, context: ProbeContext) -> Answer:
    question = TimeQuestion()
    address, reply = await _exchange(target, context, question.wire, question.is_answered_by)
    told = question.read(reply.datagram, reply.sent_wall, reply.elapsed_ms)
    details: dict[str, Any] = {"address": address, "stratum": told.stratum, "offset_ms": round(told.offset_ms, 3)}
    details["reference"] = told.reference
    phases = Phases(dns_ms=context.dns_ms, first_byte_ms=reply.elapsed_ms)
    complaint = _clock_complaint(told, options)
    if complaint is not None:
        message = f"{host_and_port(address, target.port or 0)}: {complaint}"
        raise ProbeFailed(FailureKind.CONTENT, message, response_ms=reply.elapsed_ms, phases=phases, details=details)
    return Answer(reply.elapsed_ms, phases, details)


def _clock_complaint(told: TimeAnswer, options: UdpOptions) -> str | None:
    if told.complaint is not None:
        return told.complaint
    if told.stratum > options.max_stratum:
        return f"its stratum is {told.stratum}, at most {options.max_stratum} was expected"
    if options.max_offset_ms is not None and abs(told.offset_ms) > options.max_offset_ms:
        way = "ahead of" if told.offset_ms > 0 else "behind"
        return f"its clock is {abs(told.offset_ms):.1f} ms {way} ours, at most {options.max_offset_ms:g} was expected"
    return None


@lru_cache(maxsize=4096)
def payload_of(send: str | None, send_hex: str | None, send_base64: str | None = None) -> bytes:
    """The datagram to send; empty where nothing is said."""
    if send_hex is not None:
        return bytes.fromhex(send_hex)
    return base64.b64decode(send_base64) if send_base64 is not None else (send or "").encode()


def text_of(datagram: bytes) -> str:
    """A reply as text: UTF-8 where it is that, else one character a byte."""
    try:
        return datagram.decode()
    except UnicodeDecodeError:
        return datagram.decode("latin-1")


Accept = Callable[[bytes], bool]


async def _exchange(
    target: Target, context: ProbeContext, payload: bytes, accept: Accept | None = None
) -> tuple[str, _Reply]:
    """The address asked and its reply; datagrams that ``accept`` does not take are passed over."""
    address, port = await context.resolve(target.host), target.port or 0
    place = host_and_port(address, port)
    async with context.slot(address):
        context.doing = f"waiting for a reply from {place}"
        try:
            with open_socket(address, socket.SOCK_DGRAM) as sock:
                # Connected, so that only this server's datagrams arrive, and its host's "port unreachable" too.
                context.route.prepare(sock)
                sock.connect((address, port))
                return address, await _reply(context.network.readiness, sock, payload, accept)
        except ConnectionRefusedError:
            message = f"nothing listens at {place}: its host says port unreachable"
            raise ProbeFailed(FailureKind.REFUSED, message) from None
        except OSError as error:
            raise connect_failure(error, place, context.doing) from None


async def _reply(readiness: Readiness, sock: socket.socket, payload: bytes, accept: Accept | None) -> _Reply:
    arrived: asyncio.Future[tuple[bytes, float]] = asyncio.get_running_loop().create_future()

    def ready() -> None:
        now = SYSTEM_CLOCK.monotonic()
        if arrived.done():
            return
        try:
            datagram = sock.recv(_LARGEST_REPLY)
        except BlockingIOError:
            pass  # a datagram with a wrong checksum woke us
        except OSError as error:
            arrived.set_exception(error)
        else:
            if accept is None or accept(datagram):
                arrived.set_result((datagram, now))

    number = sock.fileno()
    readiness.watch(number, ready, read=True)
    try:
        sent_wall, started = SYSTEM_CLOCK.wall(), SYSTEM_CLOCK.monotonic()
        sock.send(payload)
        datagram, ended = await arrived
    finally:
        readiness.forget(number)
    return _Reply(datagram, sent_wall, (ended - started) * 1000)
