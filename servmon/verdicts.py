"""From the last failure that was needed to the verdict: a second look, our own health, and what stands between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from servmon.checks.doubts import Doubts
from servmon.checks.plan import Plan
from servmon.clock import Clock, now
from servmon.detection import machine, maintenance
from servmon.detection.state import EndpointState
from servmon.detection.verdict import Method, SecondLook
from servmon.model import Status, Transition
from servmon.tasks import cancel, spawn
from servmon.watched import Watched

# After so long of being late ourselves, an outage is declared without a second look that could be trusted.
LONGEST_DOUBT_SECONDS = 60.0

LookAgain = Callable[[Plan], Awaitable[SecondLook]]


class Ancestry(Protocol):
    """What is known of the endpoints that one depends on."""

    def ask_parents(self, endpoint_id: str) -> datetime:
        """Have everything that the endpoint depends on asked at once; from what time on an answer to that counts."""
        ...

    async def find(self, watched: Watched, asked_at: datetime) -> str | None:
        """The root of what cuts an endpoint off, once that is known: waits for parents that are in doubt."""
        ...


class Verdicts:
    """Brings endpoints that failed often enough to a verdict.

    ``take`` stores what was decided; ``is_watched`` tells whether an endpoint is still the one that failed.
    """

    def __init__(
        self,
        look_again: LookAgain,
        doubts: Doubts,
        *,
        take: Callable[[Watched, tuple[EndpointState, Sequence[Transition]]], None],
        is_watched: Callable[[Watched], bool],
        clock: Clock,
    ) -> None:
        self.ancestry: Ancestry | None = None
        self._look_again = look_again
        self._pulse = doubts.pulse
        self._witnesses = doubts.witnesses
        self._take = take
        self._is_watched = is_watched
        self._clock = clock
        self._under_way: set[asyncio.Task[None]] = set()

    def seek(self, watched: Watched) -> None:
        """Find out whether the outage of an endpoint that has failed often enough is to be declared."""
        task = spawn(self._seek(watched), name=f"verify {watched.plan.endpoint.id}")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def ask_parents(self, endpoint_id: str) -> None:
        """An endpoint is suspected: whether it is itself or what it depends on has to be known by the verdict."""
        if self.ancestry is not None:
            self.ancestry.ask_parents(endpoint_id)

    async def stop(self) -> None:
        """Give up what is under way; after a restart it is sought again."""
        await cancel(*self._under_way)

    async def _seek(self, watched: Watched) -> None:
        try:
            # The parents are asked while the second look is made, so that a child seldom waits for them.
            ancestry = self.ancestry if watched.groups else None
            asked_at = ancestry.ask_parents(watched.plan.endpoint.id) if ancestry else now(self._clock)
            look = await self._look(watched)
            if look is None:
                return
            cause = None
            if ancestry and look.result.status is Status.DOWN:
                cause = await ancestry.find(watched, asked_at)
            self._conclude(watched, look, cause)
        finally:
            if watched.state.verifying:  # whatever went wrong, the next failure asks again
                watched.state = machine.verification_void(watched.state, watched.policy)

    async def _look(self, watched: Watched) -> SecondLook | None:
        """The second look, or ``None`` where it may not count since we ourselves are in doubt."""
        if not watched.policy.verify:
            last = watched.state.last
            return SecondLook(last, (), Method.OFF) if last else None
        began_at = self._clock.monotonic()
        look = await self._look_again(watched.plan)
        if look.result.status is Status.DOWN:
            await self._witnesses.confirm()
        if self._witnesses.returned_since(began_at):
            return None
        if look.result.status is not Status.UP and self._pulse.faltered_since(began_at):
            if self._pulse.lagging_seconds() < LONGEST_DOUBT_SECONDS:
                return None
            return replace(look, method=Method.UNVERIFIED)
        return look

    def _conclude(self, watched: Watched, look: SecondLook, cause: str | None) -> None:
        if not self._is_watched(watched):
            return  # changed or gone meanwhile: its runs start anew
        if self._witnesses.isolated(watched.plan.prepared.target.host):
            return
        present = now(self._clock)
        if maintenance.mode_at(watched.windows, present) is not None:
            return
        self._take(watched, machine.verified(watched.state, look, watched.policy, at=present, cause=cause))
