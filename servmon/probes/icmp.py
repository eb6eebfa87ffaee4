"""ICMP: does the host answer pings, how fast, and how many of them?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from itertools import pairwise
from statistics import fmean, median
from typing import Any, ClassVar

from pydantic import Field

from servmon.clock import SYSTEM_CLOCK
from servmon.errors import InvalidInputError
from servmon.model import NO_PHASES, FailureKind, Phases
from servmon.probes.base import Answer, Conclude, GiveUp, Options, ProbeFailed, Target, until_told
from servmon.probes.icmp_packet import COOKIE_SIZE, MAX_PAYLOAD
from servmon.probes.icmp_series import Packet, Series
from servmon.probes.network import ProbeContext
from servmon.probes.route import ConnectingOptions, check_route

# Kept back from an attempt's time, so that the verdict is ours and in words before the runner cuts us off.
_MARGIN_SECONDS = 0.02


class IcmpOptions(ConnectingOptions):
    """How many packets a check sends, of what kind, and how much loss is too much."""

    packets: int = Field(default=5, ge=1, le=20)
    packet_interval_ms: int = Field(default=200, ge=1, le=10_000)
    payload_size: int = Field(default=56, ge=COOKIE_SIZE, le=MAX_PAYLOAD)
    ttl: int | None = Field(default=None, ge=1, le=255)
    dont_fragment: bool = False
    degraded_loss_percent: float = Field(default=20, ge=0, le=100)
    max_loss_percent: float = Field(default=100, ge=0, le=100)

    @cached_property
    def packet(self) -> Packet:
        """What kind of packet that makes."""
        return Packet(self.payload_size, self.ttl, self.dont_fragment, self.route)


class IcmpProbe:
    """Send a few echo requests and judge the share that is answered.

    ``response_ms`` is the median round trip of the answered packets, so that one straggler does not count as slowness.
    """

    protocol: ClassVar[str] = "ICMP"
    default_port: ClassVar[int | None] = None
    options: ClassVar[type[Options]] = IcmpOptions
    takes_socket: ClassVar[bool] = False

    def validate(self, target: Target, options: IcmpOptions) -> None:
        """Refuse ways that lead nowhere, and numbers that contradict each other. Raises ``InvalidInputError``."""
        given = options.model_fields_set
        if options.packets == 1 and "packet_interval_ms" in given:
            raise InvalidInputError.of("packet_interval_ms", "means nothing where packets is 1")
        both = {"degraded_loss_percent", "max_loss_percent"} <= given
        if both and options.degraded_loss_percent > options.max_loss_percent:
            sentence = f"is more than max_loss_percent, {options.max_loss_percent:g}, from which on it is down already"
            raise InvalidInputError.of("degraded_loss_percent", sentence)
        if target.host in {"0.0.0.0", "::"}:  # noqa: S104 - it is refused
            raise InvalidInputError.of("url", f"{target.host} is nobody's address, and no reply comes from it")
        check_route(target, options)

    async def check(self, target: Target, options: IcmpOptions, context: ProbeContext) -> Answer:
        """Ping once with all packets. Raises ``ProbeFailed`` for total or too much loss and for unreachable hosts."""
        give_up_at = SYSTEM_CLOCK.monotonic() + context.attempt_seconds - _MARGIN_SECONDS
        address = await context.resolve(target.host)
        patience = max(give_up_at - SYSTEM_CLOCK.monotonic(), 0.0)
        conclude: Conclude = await until_told(partial(_ask, address, options, context, patience))
        return conclude()

    def begin(
        self, target: Target, options: IcmpOptions, context: ProbeContext, told: Callable[[Conclude], None]
    ) -> GiveUp | None:
        """Ping without a task, where no name has to be resolved."""
        address = context.known_address(target.host)
        if address is None:
            return None
        return _ask(address, options, context, max(context.attempt_seconds - _MARGIN_SECONDS, 0.0), told)


def _ask(
    address: str, options: IcmpOptions, context: ProbeContext, patience: float, told: Callable[[Conclude], None]
) -> GiveUp:
    context.doing = f"waiting for echo replies from {address}"

    def ended(series: Series) -> None:
        phases = NO_PHASES if context.dns_ms is None else Phases(dns_ms=context.dns_ms)
        told(lambda: judge(series, options, patience, phases))

    return context.network.icmp.begin(
        address,
        options.packet,
        ended,
        packets=options.packets,
        interval=spacing(options.packets, options.packet_interval_ms / 1000, patience),
        patience=patience,
    )


def spacing(packets: int, interval: float, patience: float) -> float:
    """Seconds between packets: as wished, but all are sent in half the time, so that the last can be answered too."""
    return interval if packets == 1 else min(interval, patience / 2 / (packets - 1))


def judge(series: Series, options: IcmpOptions, patience: float, phases: Phases) -> Answer:
    """What the fates of the packets mean. Raises ``ProbeFailed``."""
    details = _details(series.asked())
    if not series.rtts_ms:
        raise _no_answer(series, patience, phases, details)
    # What was never sent, or sent too late to be answered, is not lost.
    lost = 0 if series.rushed else series.sent - len(series.rtts_ms)
    percent = 100 * lost / series.sent
    words = f"{lost} of {series.sent} packets lost"
    response_ms = median(series.rtts_ms) if series.packets > 1 else series.rtts_ms[0]
    if percent > options.max_loss_percent:
        raise ProbeFailed(FailureKind.LOSS, words, response_ms=response_ms, phases=phases, details=details)
    return Answer(response_ms, phases, details, words if percent > options.degraded_loss_percent else None)


def _no_answer(series: Series, patience: float, phases: Phases, details: Mapping[str, Any]) -> ProbeFailed:
    if series.failure is not None:
        return ProbeFailed(series.failure.kind, series.failure.message, phases=phases, details=details)
    if series.rushed:
        message = f"this machine was too busy to send its packets to {series.to.host} in time"
        return ProbeFailed(FailureKind.LOCAL, message, phases=phases, details=details)
    what = "the packet" if series.sent == 1 else f"none of {series.sent} packets"
    answered = "was not answered" if series.sent == 1 else "was answered"
    message = f"{what} to {series.to.host} {answered} within {patience:.1f} s"
    return ProbeFailed(FailureKind.LOSS, message, phases=phases, details=details)


def _details(series: Series) -> dict[str, Any]:
    """Round trips and loss; with a single packet the response time says it all."""
    rtts = series.rtts_ms
    details: dict[str, Any] = {
        "address": series.to.host,
        "packets_sent": series.sent,
        "packets_received": len(rtts),
        "loss_percent": 0.0 if len(rtts) == series.sent > 0 else round(100 * (1 - len(rtts) / max(series.sent, 1)), 1),
    }
    if series.packets > 1 and rtts:
        details |= _round_trips(rtts, details["loss_percent"])
        if series.ttl_heard is not None:
            details["ttl"] = series.ttl_heard
    return details


def _round_trips(rtts: Sequence[float], loss_percent: float) -> dict[str, float]:
    # By how much one round trip differs from the next, on average.
    jitter = fmean(abs(late - early) for early, late in pairwise(rtts)) if len(rtts) > 1 else 0.0
    return {
        "rtt_min_ms": round(min(rtts), 3),
        "rtt_avg_ms": round(fmean(rtts), 3),
        "rtt_median_ms": round(median(rtts), 3),
        "rtt_p95_ms": round(percentile(rtts, 95), 3),
        "rtt_max_ms": round(max(rtts), 3),
        "jitter_ms": round(jitter, 3),
        "mos": round(mean_opinion_score(fmean(rtts), jitter, loss_percent), 2),
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` percent of all are not above (nearest rank)."""
    return sorted(values)[max(math.ceil(share / 100 * len(values)), 1) - 1]


def mean_opinion_score(rtt_ms: float, jitter_ms: float, loss_percent: float) -> float:
    """How a telephone call over this path would be liked, from 1 (bad) to about 4.4: the formula of check_icmp.

    (Monitoring Plugins 2.4, after ITU-T G.107's E-model: latency with jitter counted twice, 2.5 off for each percent.)
    """
    latency_ms = rtt_ms + jitter_ms * 2 + 10
    rating = 93.2 - (latency_ms / 40 if latency_ms < 160 else (latency_ms - 120) / 10)
    rating = max(rating - 2.5 * loss_percent, 0.0)
    return 1 + 0.035 * rating + 0.000007 * rating * (rating - 60) * (100 - rating)
