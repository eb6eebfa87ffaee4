"""TCP: can a connection be opened?"""

from __future__ import annotations

from typing import ClassVar

from servmon.model import Phases
from servmon.probes.base import Answer, Options, Target
from servmon.probes.connection import connect
from servmon.probes.network import ProbeContext


class TcpOptions(Options):
    """None beyond those that every endpoint has."""


class TcpProbe:
    """Open a connection and close it again."""

    protocol: ClassVar[str] = "TCP"
    default_port: ClassVar[int | None] = None
    options: ClassVar[type[Options]] = TcpOptions
    takes_socket: ClassVar[bool] = True

    async def check(self, target: Target, _options: TcpOptions, context: ProbeContext) -> Answer:
        """Connect once. Raises ``ProbeFailed``: REFUSED, RESET, UNREACHABLE; silence ends at the runner's limit."""
        address = await context.resolve(target.host)
        async with context.slot(address):
            connected = await connect(context, address, target.port or 0)
            connected.sock.close()
        phases = Phases(dns_ms=context.dns_ms, connect_ms=connected.connect_ms)
        return Answer(connected.connect_ms, phases, {"address": address})
