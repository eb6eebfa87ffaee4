"""Flapping, intermittence and loss: what no single check shows, judged over the last ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from servmon.model import AVAILABLE, CheckResult

# Changes are judged over a time, not over a number of results: while suspected, results come more often.
WINDOW_INTERVALS = 20
FLAPPING_ABOVE_PERCENT = 30
CALM_BELOW_PERCENT = 25
INTERMITTENT_FROM = 5
ATTEMPTS_JUDGED = 20
CHECKS_JUDGED_FOR_LOSS = 5

_ATTEMPTS_MASK = (1 << ATTEMPTS_JUDGED) - 1


@dataclass(frozen=True, slots=True)
class Recent:
    """What the last checks of an endpoint looked like.

    ``flips`` are the times at which it became available or stopped being so; ``failed_attempts`` has a bit for each
    of the last 20 attempts, the newest lowest; ``packets`` are (sent, received) of the last checks that count them.
    """

    available: bool | None = None
    flips: tuple[datetime, ...] = ()
    flapping: bool = False
    failed_attempts: int = 0
    packets: tuple[tuple[int, int], ...] = ()

    @property
    def is_calm(self) -> bool:
        """Whether nothing but good checks at the first attempt is remembered."""
        return self.available is True and not (self.flips or self.flapping or self.failed_attempts)

    def is_unmoved_by(self, good: CheckResult) -> bool:
        """Whether a ``good`` result at the first attempt leaves this as it is, without any complaint."""
        if not self.is_calm:
            return False
        details = good.details
        if details is None or "packets_sent" not in details:
            return not self.packets
        sent = details["packets_sent"]
        return sent == details.get("packets_received") and self.packets == ((sent, sent),) * CHECKS_JUDGED_FOR_LOSS

    def complaint(self, degraded_loss_percent: float) -> str | None:
        """Why an endpoint that answers is DEGRADED all the same, in words."""
        if self.packets and (words := self._loss(degraded_loss_percent)):
            return words
        if not self.failed_attempts or (failed := self.failed_attempts.bit_count()) < INTERMITTENT_FROM:
            return None
        return f"intermittent: {failed} of the last {ATTEMPTS_JUDGED} attempts failed"

    def _loss(self, degraded_loss_percent: float) -> str | None:
        sent = sum(packets for packets, _ in self.packets)
        lost = sent - sum(received for _, received in self.packets)
        if lost * 100 <= degraded_loss_percent * sent:
            return None
        return f"{lost} of {sent} packets lost in the last {len(self.packets)} checks"


NOTHING_YET = Recent()


def observe(before: Recent, result: CheckResult, check_interval: float, *, is_down: bool) -> Recent:
    """What is remembered after one more check; the same object where it is what it was.

    While an outage is open (``is_down``) lost packets and failed attempts are its own, and say nothing of later.
    """
    available = result.status in AVAILABLE
    packets = before.packets if is_down else _packets(before, result)
    if available and result.attempts == 1 and before.is_calm:
        return before if packets is before.packets else Recent(available=True, packets=packets)
    attempts = before.failed_attempts if is_down else _failed_attempts(before, result.attempts, available)
    flips = before.flips
    if before.available is not None and available is not before.available:
        flips = (*flips, result.timestamp)
    if flips:
        oldest = result.timestamp - timedelta(seconds=WINDOW_INTERVALS * check_interval)
        flips = tuple(at for at in flips if at > oldest)
    return Recent(available, flips, _flaps(before.flapping, len(flips)), attempts, packets)


def without_complaints(recent: Recent) -> Recent:
    """What is remembered once an outage says it all: the flips."""
    return replace(recent, failed_attempts=0, packets=())


def without_failures_since(recent: Recent, since: datetime) -> Recent:
    """What is remembered where the failures from ``since`` on, an unbroken row, were ours."""
    flips = tuple(at for at in recent.flips if at < since)
    available = True if len(flips) < len(recent.flips) else recent.available
    return replace(recent, available=available, flips=flips, failed_attempts=0)


def _flaps(before: bool, flips: int) -> bool:
    percent = 100 * flips / WINDOW_INTERVALS
    return percent > FLAPPING_ABOVE_PERCENT or (before and percent >= CALM_BELOW_PERCENT)


def _failed_attempts(before: Recent, attempts: int, available: bool) -> int:
    failed = (1 << attempts) - 1
    if available:
        failed -= 1  # the last attempt succeeded
    return (before.failed_attempts << attempts | failed) & _ATTEMPTS_MASK


def _packets(before: Recent, result: CheckResult) -> tuple[tuple[int, int], ...]:
    details = result.details
    if details is None or "packets_sent" not in details:
        return before.packets
    counted = (details["packets_sent"], details.get("packets_received", 0))
    return (*before.packets, counted)[-CHECKS_JUDGED_FOR_LOSS:]
