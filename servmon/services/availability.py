"""What checks found out about the service endpoints, and checks that a person asks for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from servmon.checks.attempts import ask_by_hand
from servmon.clock import now
from servmon.model import CheckResult, CurrentStatus, Endpoint, ServiceStatus, StateChange
from servmon.probes.network import Network
from servmon.services import dependencies, suspects
from servmon.services.dependencies import Dependency, EndpointImpact
from servmon.services.endpoints import EndpointService
from servmon.services.history import History, read, read_asked
from servmon.services.identity import known_endpoint_id
from servmon.services.live import live_summary
from servmon.services.stored import stored_statuses, stored_summary
from servmon.services.suspects import Place, Suspects
from servmon.services.uptime import UptimeReport, read_period, report
from servmon.store import endpoints, state_changes, statuses


class AvailabilityService(EndpointService):
    """Manages service endpoints and their checks; what ``EndpointService`` says of both holds here, too."""

    async def check_endpoint(self, endpoint_id: str, *, by: str | None = None) -> ServiceStatus:
        """Check an endpoint now, store what was found and return it; takes as long as the target takes to answer.

        Counts for no outage. Raises ``NotFoundError``, and ``TooSoonError`` within a second of the last such check,
        or where they are too many that are asked for ``by`` the same person.
        """
        endpoint = await self.get_endpoint(endpoint_id)
        self._connection.manual_checks.admit(endpoint.id, by)
        if self._live is not None:
            return await self._store_result(await self._live.check(endpoint))
        async with Network(self._connection.clock) as network:
            return await self.check_through(network, endpoint)

    async def check_through(self, network: Network, endpoint: Endpoint) -> ServiceStatus:
        """Check ``endpoint`` now over ``network``, store what was found and return it."""
        return await self._store_result(await ask_by_hand(endpoint, network, clock=self._connection.clock))

    async def get_current_status(self, endpoint_id: str) -> CurrentStatus:
        """What is known of an endpoint now; never checked is UNKNOWN with no timestamp. Raises ``NotFoundError``."""
        known = self._live.current(endpoint_id) if self._live is not None else None
        if known is None:
            endpoint = await self.get_endpoint(endpoint_id)
            known = (await stored_statuses(self._connection, [endpoint]))[endpoint.id]
        return known

    async def get_current_statuses(self, asked: Sequence[Endpoint]) -> dict[str, CurrentStatus]:
        """What is known now of each of these endpoints, by id: all of them at the cost of one."""
        held = [self._live.current(one.id) for one in asked] if self._live is not None else []
        known = {one.endpoint_id: one for one in held if one is not None}
        if other := [one for one in asked if one.id not in known]:
            known |= await stored_statuses(self._connection, other)
        return known

    async def get_suspects(self, *, limit: int = 100, after: Place | None = None) -> Suspects:
        """At most ``limit`` of the endpoints that fail and have no outage yet, and how many there are.

        Those that fail longest come first, from the first one behind the place ``after``: since when it fails, and its
        id. What fails in a maintenance window is none of them.
        """
        return await suspects.find(self._connection, self._live, limit=limit, after=after)

    async def get_status_history(
        self, endpoint_id: str, *, limit: int = 100, before: datetime | None = None
    ) -> list[ServiceStatus]:
        """At most ``limit`` stored checks of an endpoint, newest first, all from before the time ``before``.

        Those of a deleted endpoint can be read too. Raises ``NotFoundError`` where there never was one.
        """
        endpoint_id = known_endpoint_id(endpoint_id)
        rows = await statuses.history(self._db, endpoint_id, limit=limit, before=before)
        if not rows:
            await endpoints.get_any(self._db, endpoint_id)
        return rows

    async def get_history(
        self,
        endpoint_id: str,
        *,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        resolution: str | None = None,
        limit: int = 100,
        before: datetime | None = None,
    ) -> History:
        """At most ``limit`` entries from ``since`` until ``until``, newest first, all from before ``before``.

        ``resolution`` is ``raw`` (single checks), ``hour``, ``day`` (UTC), or ``auto``, which takes the finest one that
        is kept for the whole period and suits its length. Those of a deleted endpoint can be read too. Raises
        ``NotFoundError`` where there never was one, and ``InvalidInputError`` naming every wrong field.
        """
        asked = read_asked({"since": since, "until": until, "resolution": resolution})
        endpoint_id = known_endpoint_id(endpoint_id)
        present = now(self._connection.clock)
        found = await read(self._db, endpoint_id, asked, limit=limit, before=before, present=present)
        if not found.rows:
            await endpoints.get_any(self._db, endpoint_id)
        return found

    async def get_state_changes(
        self, endpoint_id: str, *, limit: int = 100, before: tuple[datetime, str] | None = None
    ) -> list[StateChange]:
        """At most ``limit`` recorded changes of an endpoint's state, newest first, each with its reason and evidence.

        All are older than the one with the time and the id ``before``. Those of a deleted endpoint can be read too.
        Raises ``NotFoundError`` where there never was one.
        """
        endpoint_id = known_endpoint_id(endpoint_id)
        found = await state_changes.of_endpoint(self._db, endpoint_id, limit, before)
        if not found:
            await endpoints.get_any(self._db, endpoint_id)
        return found

    async def get_impact(self, endpoint_id: str) -> EndpointImpact:
        """What follows where an endpoint is out: what it takes down, and what loses one of several ways.

        Raises ``NotFoundError``.
        """
        endpoint = await self.get_endpoint(endpoint_id)
        return await dependencies.impact(self._connection, self._live, endpoint.id)

    async def list_dependencies(self, *, limit: int = 100, after: str | None = None) -> list[Dependency]:
        """At most ``limit`` endpoints that depend on others, by id, from the first one after the id ``after``.

        With what the rules of the configuration file give them; only what is active, and without circles.
        """
        return await dependencies.page(self._connection, self._live, limit=limit, after=after)

    async def get_status_summary(self) -> dict[str, int]:
        """How many active endpoints are ``up``, ``down``, ``degraded`` and ``unknown`` by their last check.

        ``total`` is the sum of the four; ``in_maintenance`` and ``active_outages`` overlap with them.
        """
        if self._live is not None:
            return live_summary(self._live)
        return await stored_summary(self._connection, now(self._connection.clock))

    async def get_uptime(
        self,
        endpoint_id: str,
        *,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        timezone: str | None = None,
    ) -> UptimeReport:
        """How available an endpoint was from ``since`` until ``until``, by default over the last 30 days.

        A day such as ``2026-11-01`` is its first moment in ``timezone`` (IANA name, UTC by default). Raises
        ``NotFoundError``, and ``InvalidInputError`` naming every wrong field.
        """
        endpoint = await self.get_endpoint(endpoint_id)
        period, zone = read_period(since, until, timezone, now(self._connection.clock))
        return await report(self._db, endpoint, period, zone)

    async def _store_result(self, result: CheckResult) -> ServiceStatus:
        await statuses.insert_manual(self._db, result, self._connection.observer)
        # Read back, so that it looks here as it does in the history: rounded, and with the observer's name.
        just_after = result.timestamp + timedelta(microseconds=1)
        (stored,) = await statuses.history(self._db, result.endpoint_id, limit=1, before=just_after)
        return stored
