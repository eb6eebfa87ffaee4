"""UDP: does anything answer a datagram?"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

from typing_extensions import override

from servmon.clock import SYSTEM_CLOCK
from servmon.errors import InvalidInputError
from servmon.model import FailureKind, Phases
from servmon.probes.asking import Asking
from servmon.probes.base import Answer, Conclude, GiveUp, Options, ProbeFailed, Target, safe_text, until_told
from servmon.probes.connection import open_socket
from servmon.probes.network import ProbeContext
from servmon.probes.ntp import TimeAnswer, TimeQuestion
from servmon.probes.pattern import compiled, search
from servmon.probes.route import check_route
from servmon.probes.udp_options import UdpOptions, payload_of

_LARGEST_REPLY = 65_535
_SHOWN = 80

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
        address = await context.resolve(target.host)
        asking = _Datagram(target, options, context, address)
        async with context.slot(address):
            conclude: Conclude = await until_told(asking.begin)
        reply, pattern = asking.reply(), _pattern_of(target, options)
        if pattern is not None and not await search(pattern, text := text_of(reply.datagram), context):
            complaint = f"the reply {safe_text(repr(text[:_SHOWN]))} does not match {pattern.pattern!r}"
            raise asking.failed(FailureKind.PATTERN, complaint)
        return conclude()

    def begin(
        self, target: Target, options: UdpOptions, context: ProbeContext, told: Callable[[Conclude], None]
    ) -> GiveUp | None:
        """Ask without a task, where nothing is to be resolved, nobody to be waited for and no text to be searched."""
        address, slots = context.known_address(target.host), context.network.slots
        if address is None or _pattern_of(target, options) is not None or not slots.take(address):
            return None
        return _Datagram(target, options, context, address, partial(slots.give_back, address)).begin(told)


def _pattern_of(target: Target, options: UdpOptions) -> re.Pattern[str] | None:
    return target.pattern if options.expect is None else compiled(options.expect)


def _in_hex(datagram: bytes) -> str:
    shown = datagram[: _SHOWN // 3].hex(" ")
    return f"{shown} …" if len(datagram) > _SHOWN // 3 else shown or "(empty)"


def _clock_complaint(told: TimeAnswer, options: UdpOptions) -> str | None:
    if told.complaint is not None:
        return told.complaint
    if told.stratum > options.max_stratum:
        return f"its stratum is {told.stratum}, at most {options.max_stratum} was expected"
    if options.max_offset_ms is not None and abs(told.offset_ms) > options.max_offset_ms:
        way = "ahead of" if told.offset_ms > 0 else "behind"
        return f"its clock is {abs(told.offset_ms):.1f} ms {way} ours, at most {options.max_offset_ms:g} was expected"
    return None


def text_of(datagram: bytes) -> str:
    """A reply as text: UTF-8 where it is that, else one character a byte."""
    try:
        return datagram.decode()
    except UnicodeDecodeError:
        return datagram.decode("latin-1")


class _Datagram(Asking):
    """One datagram on its way from a socket of its own, and what came of it."""

    __slots__ = ("_options", "_question", "_reply", "_sent_at", "_sent_wall", "_socket")

    def __init__(
        self,
        target: Target,
        options: UdpOptions,
        context: ProbeContext,
        address: str,
        leave: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(context, address, target.port or 0, leave)
        self._options = options
        self._question = TimeQuestion() if options.preset == "ntp" else None
        self._socket: socket.socket | None = None
        self._reply = _Reply(b"", 0.0, 0.0)

    def reply(self) -> _Reply:
        """The reply. Raises ``ProbeFailed``, and ``TimeoutError`` where none came."""
        if isinstance(self._error, ConnectionRefusedError):
            message = f"nothing listens at {self._place}: its host says port unreachable"
            raise ProbeFailed(FailureKind.REFUSED, message)
        self._raise_failure()
        return self._reply

    @override
    def conclude(self) -> Answer:
        """What the reply says, but for its text. Raises as ``UdpProbe.check`` does."""
        reply, options = self.reply(), self._options
        if self._question is not None:
            told = self._question.read(reply.datagram, reply.sent_wall, reply.elapsed_ms)
            details = self._details() | {"stratum": told.stratum, "offset_ms": round(told.offset_ms, 3)}
            details["reference"] = told.reference
            if (complaint := _clock_complaint(told, options)) is not None:
                raise self.failed(FailureKind.CONTENT, f"{self._place}: {complaint}", details)
            return Answer(reply.elapsed_ms, self._phases(), details)
        if options.expect_hex is not None and bytes.fromhex(options.expect_hex) not in reply.datagram:
            complaint = f"the reply {_in_hex(reply.datagram)} does not hold the bytes {options.expect_hex}"
            raise self.failed(FailureKind.PATTERN, complaint)
        return Answer(reply.elapsed_ms, self._phases(), self._details())

    def failed(self, kind: FailureKind, complaint: str, details: dict[str, Any] | None = None) -> ProbeFailed:
        """The finding that it answered, but not as it should."""
        return ProbeFailed(
            kind,
            complaint,
            response_ms=self._reply.elapsed_ms,
            phases=self._phases(),
            details=self._details() if details is None else details,
        )

    @override
    def _set_out(self) -> None:
        options, question = self._options, self._question
        self._context.doing = f"waiting for a reply from {self._place}"
        payload = payload_of(options.send, options.send_hex, options.send_base64) if question is None else question.wire
        sock = self._socket = open_socket(self._address, socket.SOCK_DGRAM)
        # Connected, so that only this server's datagrams arrive, and its host's "port unreachable" too.
        self._context.route.prepare(sock)
        sock.connect((self._address, self._port))
        self._context.network.readiness.watch(sock.fileno(), self._on_readable, read=True)
        self._sent_wall, self._sent_at = SYSTEM_CLOCK.wall(), SYSTEM_CLOCK.monotonic()
        sock.send(payload)

    @override
    def _drop(self) -> None:
        if self._socket is not None:
            self._context.network.readiness.forget(self._socket.fileno())
            self._socket.close()

    def _on_readable(self) -> None:
        now = SYSTEM_CLOCK.monotonic()
        if self._socket is None or self._waiting is None:
            return
        try:
            datagram = self._socket.recv(_LARGEST_REPLY)
        except BlockingIOError:
            return  # a datagram with a wrong checksum woke us
        except OSError as error:
            self._end(error.with_traceback(None))
            return
        if self._question is None or self._question.is_answered_by(datagram):
            self._reply = _Reply(datagram, self._sent_wall, (now - self._sent_at) * 1000)
            self._end()

    def _phases(self) -> Phases:
        return Phases(dns_ms=self._context.dns_ms, first_byte_ms=self._reply.elapsed_ms)

    def _details(self) -> dict[str, Any]:
        if self._question is not None:
            return {"address": self._address}
        return {"address": self._address, "bytes": len(self._reply.datagram)}
