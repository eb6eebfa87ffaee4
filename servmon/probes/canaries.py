"""Names that always resolve: while they do, what cannot be resolved is the name's own fault, and else it is ours."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import aiodns

from servmon.clock import Clock
from servmon.tasks import cancel, spawn

# One verdict serves all who ask within this time: a dead resolver must not be asked for canaries by every check.
VERDICT_SECONDS = 2.0
# c-ares asks again after this long; who waits for us has less patience than all tries together.
_TRY_SECONDS = 1.0
_TRIES = 4


class Canaries:
    """Asks for all of ``names`` afresh where it matters; one that resolves speaks for the resolver."""

    def __init__(self, names: Sequence[str], clock: Clock, nameservers: Sequence[str] = ()) -> None:
        self._names = tuple(names)
        self._clock = clock
        self._nameservers = tuple(nameservers)
        self._round: asyncio.Task[bool] | None = None
        self._begun_at = float("-inf")

    def __bool__(self) -> bool:
        return bool(self._names)

    def wake(self) -> None:
        """Begin to ask, so that the verdict is there when it is needed."""
        now = self._clock.monotonic()
        if self._round is None or (self._round.done() and now - self._begun_at >= VERDICT_SECONDS):
            self._begun_at = now
            self._round = spawn(self._ask(), name="canary names")

    async def sing(self, patience: float) -> bool:
        """Whether one of them resolves within ``patience`` seconds."""
        self.wake()
        if self._round is None:
            raise AssertionError("waking begins a round")
        # Others wait for the same round, and go on waiting when one of them has had enough.
        done, _ = await asyncio.wait([self._round], timeout=max(patience, 0.0))
        return any(not one.cancelled() and one.result() for one in done)

    async def _ask(self) -> bool:
        # A resolver of its own, since a shared one would answer from memory.
        async with aiodns.DNSResolver(
            nameservers=self._nameservers or None, timeout=_TRY_SECONDS, tries=_TRIES
        ) as resolver:
            asked = [resolver.getaddrinfo(name) for name in self._names]
            try:
                for answer in asyncio.as_completed(asked):
                    try:
                        await answer
                    except aiodns.error.DNSError:
                        continue
                    return True
            finally:
                for one in asked:
                    one.cancel()
        return False

    async def close(self) -> None:
        """Ask no more."""
        if self._round is not None:
            await cancel(self._round)
            self._round = None
