"""Names to addresses, for all probes: one c-ares resolver with our own patience, and whose fault a failure is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

import aiodns
import pycares

from servmon.clock import Clock
from servmon.model import FailureKind
from servmon.probes.base import ProbeFailed
from servmon.probes.canaries import Canaries

# c-ares keeps answers and cannot be told not to; a new resolver has none.
RENEW_AFTER_SECONDS = 60.0
# So lately something else must have resolved for a failure to be the name's own.
EVIDENCE_SECONDS = 10.0
# c-ares asks again after this long, and then no longer hears a late answer: so it is more than the 2 s that resolvers
# take at their slowest. Sooner where the server has been quick so far; how long we wait is our decision.
_TRY_SECONDS = 2.5
_TRIES = 4
# Of its patience: when the canaries are asked too, and how long a look-up may take with their verdict.
_CANARY_SHARE = 0.25
_WITH_VERDICT = 1.25

_NO_SUCH_NAME = pycares.errno.ARES_ENOTFOUND
_NO_SUCH_RECORD = pycares.errno.ARES_ENODATA
_NOT_A_NAME = frozenset({pycares.errno.ARES_EBADNAME, pycares.errno.ARES_EBADSTR})
_TIMEOUT = pycares.errno.ARES_ETIMEOUT
_WORDS = {
    pycares.errno.ARES_ESERVFAIL: "SERVFAIL",
    pycares.errno.ARES_EREFUSED: "REFUSED",
    pycares.errno.ARES_ECONNREFUSED: "no name server can be reached",
    pycares.errno.ARES_ECANCELLED: "the resolver was closed",
}


class _Success(NamedTuple):
    name: str
    at: float


_NOTHING = _Success("", float("-inf"))


@dataclass(slots=True)
class Evidence:
    """Which two names resolved last, and when: it tells a dead zone from a dead resolver of ours."""

    last: _Success = _NOTHING
    before: _Success = _NOTHING

    def note(self, name: str, at: float) -> None:
        """``name`` resolved at the monotonic time ``at``."""
        if name != self.last.name:
            self.before = self.last
        self.last = _Success(name, at)

    def speaks_against(self, name: str, now: float) -> bool:
        """Whether something else than ``name`` resolved within the last 10 s."""
        other = self.before if name == self.last.name else self.last
        return now - other.at <= EVIDENCE_SECONDS


@dataclass(slots=True)
class _Channel:
    """One c-ares resolver in its minute, the names it has asked for, and how many answers it still owes."""

    cares: aiodns.DNSResolver
    opened_at: float
    resolved: set[str] = field(default_factory=set)
    awaited: int = 0


class Resolver:
    """Looks names up, in the hosts file first. ``nameservers`` replace the system's (``127.0.0.1:5300``)."""

    def __init__(
        self, clock: Clock, evidence: Evidence, nameservers: Sequence[str] = (), canaries: Canaries | None = None
    ) -> None:
        self._clock = clock
        self._evidence = evidence
        self._canaries = canaries or None
        self._nameservers = tuple(nameservers)
        self._channel: _Channel | None = None
        self._retired: list[_Channel] = []

    async def look_up(self, name: str, patience: float, version: int = 0) -> str:
        """An address of ``name``, IPv4 where it has one; ``patience`` is in seconds, ``version`` 4, 6 or 0 for any.

        Raises ``ProbeFailed``: DNS where the name is at fault, LOCAL where our resolver is. Where canaries have to be
        heard, that may take a quarter longer.
        """
        return _choose(await self._find(name, patience), name, version)

    async def all_addresses(self, name: str, patience: float, version: int = 0) -> list[str]:
        """Every address of ``name``, at least one; as ``look_up`` otherwise."""
        return _addresses(await self._find(name, patience), name, version)

    async def _find(self, name: str, patience: float) -> pycares.AddrInfoResult:
        channel = await self._current()
        loop, started = asyncio.get_running_loop(), self._clock.monotonic()
        answer = channel.cares.getaddrinfo(name)
        channel.awaited += 1
        timer = loop.call_later(patience, _give_up, answer)
        call = loop.call_later(_CANARY_SHARE * patience, self._canaries.wake) if self._canaries else None
        found: pycares.AddrInfoResult | int
        try:
            found = await answer
        except aiodns.error.DNSError as error:
            found = int(error.args[0])
            error.__traceback__ = None  # it leads back here, where ``answer`` holds the error
        finally:
            timer.cancel()
            if call is not None:
                call.cancel()
            channel.awaited -= 1
        if isinstance(found, int):
            await self._fail(name, found, patience, started)
        self._note(name, channel, found)
        return found

    async def close(self) -> None:
        """Close; who still waits gets ``ProbeFailed`` (LOCAL)."""
        for channel in (self._channel, *self._retired):
            if channel is not None:
                await channel.cares.close()
        self._channel = None
        self._retired.clear()

    async def _current(self) -> _Channel:
        now = self._clock.monotonic()
        channel = self._channel
        if channel is not None and now - channel.opened_at < RENEW_AFTER_SECONDS:
            return channel
        cares = aiodns.DNSResolver(nameservers=self._nameservers or None, timeout=_TRY_SECONDS, tries=_TRIES)
        fresh = self._channel = _Channel(cares, now)
        if channel is not None:
            self._retired.append(channel)
        idle = [old for old in self._retired if not old.awaited]
        self._retired = [old for old in self._retired if old.awaited]
        for old in idle:
            await old.cares.close()
        return fresh

    def _note(self, name: str, channel: _Channel, found: pycares.AddrInfoResult) -> None:
        # Only what came over the network just now speaks for the resolver: not what c-ares remembers, and not the
        # hosts file, whose answers have no time to live.
        if name not in channel.resolved and any(node.ttl > 0 for node in found.nodes):
            channel.resolved.add(name)
            self._evidence.note(name, self._clock.monotonic())

    async def _fail(self, name: str, number: int, patience: float, started: float) -> NoReturn:
        if number == _NO_SUCH_NAME:
            raise ProbeFailed(FailureKind.DNS, f"name does not exist: NXDOMAIN for {name}")
        if number == _NO_SUCH_RECORD:
            raise ProbeFailed(FailureKind.DNS, f"no such record: {name} has no address, neither A nor AAAA")
        if number in _NOT_A_NAME:
            raise ProbeFailed(FailureKind.DNS, f"{name} is not a name that DNS could know")
        why = _WORDS.get(number) or str(pycares.errno.strerror(number))
        if number == _TIMEOUT:
            why = f"no answer within {patience:.3g} s"
        others = "no other name resolved lately"
        if self._canaries is not None:
            others = "no canary name can be resolved either"
            is_its_own = await self._canaries.sing(started + _WITH_VERDICT * patience - self._clock.monotonic())
        else:
            is_its_own = self._evidence.speaks_against(name, self._clock.monotonic())
        if is_its_own:
            raise ProbeFailed(FailureKind.DNS, f"{name} cannot be resolved, while other names can: {why}")
        raise ProbeFailed(FailureKind.LOCAL, f"our own name resolution failed for {name}: {why}, and {others}")


def _give_up(answer: asyncio.Future[pycares.AddrInfoResult]) -> None:
    if not answer.done():
        answer.set_exception(aiodns.error.DNSError(_TIMEOUT, "no answer in time"))


def _choose(found: pycares.AddrInfoResult, name: str, version: int) -> str:
    """The first IPv4 address, else the first: c-ares puts those first that this machine has a route to."""
    addresses = _addresses(found, name, version)
    return next((address for address in addresses if ":" not in address), addresses[0])


def _addresses(found: pycares.AddrInfoResult, name: str, version: int) -> list[str]:
    addresses = dict.fromkeys(node.addr[0].decode() for node in found.nodes)
    if not addresses:
        raise ProbeFailed(FailureKind.DNS, f"no such record: {name} has no address, neither A nor AAAA")
    fitting = [address for address in addresses if not version or (":" in address) == (version == 6)]
    if not fitting:
        message = f"no such record: {name} has no IPv{version} address, while that of the other version is known"
        raise ProbeFailed(FailureKind.DNS, message)
    return fitting
