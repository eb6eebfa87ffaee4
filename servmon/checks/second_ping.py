"""The second look at a host that does not answer pings: aioping, or where it is missing a fresh socket of our own."""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
from contextlib import suppress
from types import ModuleType
from typing import Any

from servmon.model import NO_PHASES, Phases
from servmon.probes.base import Answer
from servmon.probes.icmp import IcmpOptions, judge
from servmon.probes.icmp_series import PLAIN_PACKET, Series
from servmon.probes.network import ProbeContext
from servmon.probes.shared_socket import destination

PACKETS = 5
SECONDS_BETWEEN = 1.0
# Kept back from the time there is, so that the verdict is ours and in words.
MARGIN_SECONDS = 0.1

_PROTOCOL = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


def find_aioping() -> ModuleType | None:
    """The optional module, imported at its first use, or ``None`` where it is not installed."""
    try:
        return importlib.import_module("aioping")
    except ImportError:
        return None


async def ping_again(host: str, options: IcmpOptions, context: ProbeContext) -> Answer:
    """Ask ``host`` with five packets a second apart, and judge them as the check does. Raises ``ProbeFailed``."""
    address = await context.resolve(host)
    context.doing = f"waiting for echo replies from {address}"
    spread = (PACKETS - 1) * SECONDS_BETWEEN
    patience = max(context.attempt_seconds - MARGIN_SECONDS - spread, MARGIN_SECONDS)
    phases = NO_PHASES if context.dns_ms is None else Phases(dns_ms=context.dns_ms)
    kind = options.packet
    # aioping sends packets of one kind: where the question is another one, only ours asks it.
    aioping = find_aioping() if kind == PLAIN_PACKET else None
    if aioping is None:
        whole = patience + spread
        series = await context.network.icmp.ask(
            address, kind, packets=PACKETS, interval=SECONDS_BETWEEN, patience=whole
        )
        return judge(series, options, whole, phases)
    series = Series(destination(address), PACKETS, kind)
    pings = [_ping(aioping, series, number * SECONDS_BETWEEN, patience) for number in range(PACKETS)]
    async with asyncio.TaskGroup() as group:
        for ping in pings:
            group.create_task(ping)
    return judge(series, options, patience, phases)


async def _ping(aioping: Any, series: Series, wait: float, patience: float) -> None:
    """One packet over a connected socket of its own: the kernel lets only this host's packets in."""
    await asyncio.sleep(wait)
    to = series.to
    family = _FAMILY[to.version]
    series.sent += 1
    identifier = int.from_bytes(os.urandom(2), "big")
    with suppress(OSError), _open(family, _PROTOCOL[to.version]) as sock:
        sock.setblocking(False)
        sock.connect(to.socket_address(0))
        async with asyncio.timeout(patience):
            await aioping.send_one_ping(sock, to.socket_address(0), identifier, patience, family)
            seconds = await aioping.receive_one_ping(sock, identifier, patience)
        series.answer(1000 * seconds, None)


def _open(family: socket.AddressFamily, protocol: int) -> socket.socket:
    try:
        return socket.socket(family, socket.SOCK_RAW, protocol)
    except PermissionError:
        return socket.socket(family, socket.SOCK_DGRAM, protocol)
