"""UDP: does anything answer a datagram?"""

from __future__ import annotations

import asyncio
import re
import socket
from functools import lru_cache
from typing import Annotated, ClassVar, NamedTuple

from pydantic import AfterValidator, Field

from servmon.clock import SYSTEM_CLOCK
from servmon.errors import InvalidInputError
from servmon.model import FailureKind, Phases
from servmon.probes.addresses import host_and_port
from servmon.probes.base import Answer, Options, ProbeFailed, Target, safe_text
from servmon.probes.connection import connect_failure, open_socket
from servmon.probes.network import ProbeContext
from servmon.probes.pattern import compiled, search

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


class UdpOptions(Options):
    """What is sent, and what the reply must hold. Any reply will do by default; without one nothing is proved."""

    send: Annotated[str, AfterValidator(_checked_text)] | None = None
    send_hex: Annotated[str, AfterValidator(_checked_hex)] | None = None
    expect: Annotated[str, Field(max_length=2000), AfterValidator(_checked_pattern)] | None = None


class _Reply(NamedTuple):
    datagram: bytes
    elapsed_ms: float


class UdpProbe:
    """Send one datagram from a socket of its own and wait for a reply."""

    protocol: ClassVar[str] = "UDP"
    default_port: ClassVar[int | None] = None
    options: ClassVar[type[Options]] = UdpOptions
    takes_socket: ClassVar[bool] = True

    def validate(self, target: Target, options: UdpOptions) -> None:
        """Refuse options that exclude each other. Raises ``InvalidInputError``."""
        if options.send is not None and options.send_hex is not None:
            raise InvalidInputError.of("send_hex", "excludes send: one of them says what is sent")
        if options.expect is not None and target.pattern is not None:
            raise InvalidInputError.of("expect", "excludes expected_response_pattern: one of them says what must come")

    async def check(self, target: Target, options: UdpOptions, context: ProbeContext) -> Answer:
        """Ask once. Raises ``ProbeFailed``: REFUSED at once where the port is closed, PATTERN for another reply."""
        address = await context.resolve(target.host)
        async with context.slot(address):
            reply = await _exchange(context, address, target.port or 0, payload_of(options.send, options.send_hex))
        phases = Phases(dns_ms=context.dns_ms, first_byte_ms=reply.elapsed_ms)
        details = {"address": address, "bytes": len(reply.datagram)}
        pattern = target.pattern if options.expect is None else compiled(options.expect)
        if pattern is not None:
            text = text_of(reply.datagram)
            if not await search(pattern, text, context):
                raise ProbeFailed(
                    FailureKind.PATTERN,
                    f"the reply {safe_text(repr(text[:_SHOWN]))} does not match {pattern.pattern!r}",
                    response_ms=reply.elapsed_ms,
                    phases=phases,
                    details=details,
                )
        return Answer(reply.elapsed_ms, phases, details)


@lru_cache(maxsize=4096)
def payload_of(send: str | None, send_hex: str | None) -> bytes:
    """The datagram to send; empty where nothing is said."""
    return bytes.fromhex(send_hex) if send_hex is not None else (send or "").encode()


def text_of(datagram: bytes) -> str:
    """A reply as text: UTF-8 where it is that, else one character a byte."""
    try:
        return datagram.decode()
    except UnicodeDecodeError:
        return datagram.decode("latin-1")


async def _exchange(context: ProbeContext, address: str, port: int, payload: bytes) -> _Reply:
    place = host_and_port(address, port)
    context.doing = f"waiting for a reply from {place}"
    try:
        with open_socket(address, socket.SOCK_DGRAM) as sock:
            # Connected, so that only this server's datagrams arrive, and its host's "port unreachable" too.
            sock.connect((address, port))
            return await _reply(sock, payload)
    except ConnectionRefusedError:
        raise ProbeFailed(FailureKind.REFUSED, f"nothing listens at {place}: its host says port unreachable") from None
    except OSError as error:
        raise connect_failure(error, place, context.doing) from None


async def _reply(sock: socket.socket, payload: bytes) -> _Reply:
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[tuple[bytes, float]] = loop.create_future()
    loop.add_reader(sock, _on_readable, sock, arrived)
    try:
        started = SYSTEM_CLOCK.monotonic()
        sock.send(payload)
        datagram, ended = await arrived
    finally:
        loop.remove_reader(sock)
    return _Reply(datagram, (ended - started) * 1000)


def _on_readable(sock: socket.socket, arrived: asyncio.Future[tuple[bytes, float]]) -> None:
    now = SYSTEM_CLOCK.monotonic()
    if arrived.done():
        return
    try:
        arrived.set_result((sock.recv(_LARGEST_REPLY), now))
    except BlockingIOError:
        pass  # a datagram with a wrong checksum woke us
    except OSError as error:
        arrived.set_exception(error)
