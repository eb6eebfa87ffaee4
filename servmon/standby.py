"""One daemon of an instance checks; every other on the same database stands by until that one is gone."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from uuid import uuid4

import structlog

from servmon.clock import rfc3339
from servmon.errors import DeposedError, StoreUnavailableError
from servmon.store.known import SELF
from servmon.store.leadership import Leader, Leadership
from servmon.store.migrate import migrate
from servmon.store.notebook import Notebook
from servmon.store.pool import AWAY

_log = structlog.get_logger(__name__)

TRY_EVERY_SECONDS = 5.0
# A session that was ours until a moment ago is about to end.
OWN_RETRY_SECONDS = 0.2
# A server that lets a start wait longer counts as away.
PATIENCE_SECONDS = 20.0
ID = "id"


class Standby:
    """This daemon's part in it. ``hand_over`` brings to Postgres, once, what an earlier run left on disk."""

    def __init__(
        self,
        dsn: str,
        instance: str,
        notebook: Notebook,
        hand_over: Callable[[], Awaitable[None]],
        troubles: dict[str, str],
    ) -> None:
        self._dsn = dsn
        self._instance = instance
        self._notebook = notebook
        self._hand_over = hand_over
        self._troubles = troubles
        self._leadership: Leadership | None = None
        self.deposed: DeposedError | None = None

    async def leader(self) -> Leader | None:
        """Who leads instead of this daemon; ``None`` where it leads, or Postgres is away, so that nobody can tell."""
        self._leadership = Leadership(self._dsn, self._instance, await self._own_id(), _own_name())
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await migrate(self._dsn)
                leader = await self._leadership.take()
                while leader is not None and leader.is_self:
                    await asyncio.sleep(OWN_RETRY_SECONDS)
                    leader = await self._leadership.take()
        except AWAY:
            return None
        return leader

    async def wait(self, leader: Leader, stop: asyncio.Event) -> bool:
        """Stand by until this daemon leads; ``False`` where it was asked to stop before."""
        await self._step_back()
        present: Leader | None = leader
        while present is not None:
            self._say(present)
            with suppress(TimeoutError):
                async with asyncio.timeout(TRY_EVERY_SECONDS):
                    await stop.wait()
                    return False
            present = await self._try(present)
        self._troubles.pop("standby", None)
        _log.warning("taking over: the leader is gone")
        return True

    async def hold(self, stop: asyncio.Event) -> None:
        """Go on leading, for ever; where another daemon has taken over, ask for the stop and say why in ``deposed``."""
        assert self._leadership is not None  # noqa: S101 - only who leads holds on to it
        try:
            await self._leadership.hold()
        except DeposedError as error:
            _log.error("stopping to check", problem=str(error))
            self.deposed = error
            stop.set()

    async def end(self) -> None:
        """Let another daemon lead at once."""
        if self._leadership is not None:
            await self._leadership.let_go()

    async def _try(self, leader: Leader) -> Leader | None:
        assert self._leadership is not None  # noqa: S101 - as above
        try:
            return await self._leadership.take()
        except AWAY:
            return leader  # who leads goes on without Postgres, and so does who stands by

    async def _step_back(self) -> None:
        """What was found out while leading goes to Postgres; a start without it must not lead from old notes."""
        with suppress(*AWAY):
            await self._hand_over()
        with suppress(StoreUnavailableError):
            await self._notebook.forget(all_but=SELF)

    def _say(self, leader: Leader) -> None:
        sentence = (
            f"{leader.name} leads since {rfc3339(leader.since)}; this one stands by and takes over when it is gone"
        )
        if self._troubles.get("standby") != sentence:
            _log.warning("standing by", leader=leader.name, since=rfc3339(leader.since))
        self._troubles["standby"] = sentence

    async def _own_id(self) -> str:
        try:
            known = (await self._notebook.read(SELF))[SELF].get(ID)
            if known is None:
                known = str(uuid4())
                await self._notebook.write({SELF: {ID: known}})
        except StoreUnavailableError:
            return str(uuid4())  # after a restart it looks like another one, and takes a little longer
        return known


def _own_name() -> str:
    return f"{socket.gethostname()} (process {os.getpid()})"
