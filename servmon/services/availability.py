"""Service endpoints and what checks found out about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from servmon.checks.attempts import ask_by_hand
from servmon.clock import now
from servmon.errors import ConflictError
from servmon.model import (
    CheckResult,
    CurrentStatus,
    Endpoint,
    ServiceStatus,
    State,
    StateChange,
    Status,
    StatusFilter,
)
from servmon.probes.masking import keep_secrets
from servmon.probes.network import Network
from servmon.probes.specification import FROM_FILE, describe_endpoint, parse_endpoint
from servmon.services import dependencies, listing, suspects
from servmon.services.connection import Connection
from servmon.services.dependencies import Dependency, EndpointImpact
from servmon.services.history import History, read, read_asked
from servmon.services.identity import known_endpoint_id
from servmon.services.live import LiveView, live_summary, refresh
from servmon.services.memory import stored_or_remembered
from servmon.services.stored import stored_statuses, stored_summary
from servmon.services.suspects import Place, Suspects
from servmon.services.uptime import UptimeReport, read_period, report
from servmon.store import endpoints, state_changes, statuses
from servmon.store.endpoints import EVERYTHING, EndpointFilter, Part
from servmon.store.purge import purge


class AvailabilityService:
    """Manages service endpoints and their checks.

    ``live`` is the memory of the daemon this runs in; without it answers come from the database alone.
    All methods raise ``StoreUnavailableError`` where Postgres cannot be reached.
    """

    def __init__(self, connection: Connection, live: LiveView | None = None) -> None:
        self._connection = connection
        self._db = connection.pool
        self._live = live

    async def create_endpoint(self, fields: Mapping[str, Any]) -> Endpoint:
        """Store a new endpoint; a running daemon checks it within seconds.

        ``fields`` are an endpoint's, with its protocol's options beside them; what is missing is as the settings
        say, a missing ``id`` is made up. Raises ``InvalidInputError`` naming every wrong field, ``ConflictError``
        where the id is taken. The id of a deleted endpoint is free again, and its history comes back with it.
        """
        endpoint = parse_endpoint(fields, self._connection.defaults, source="api", ignore_read_only=True)
        await dependencies.refuse_cycle(self._connection, endpoint)
        stored = await endpoints.insert(self._db, endpoint)
        await refresh(self._live)
        return stored

    async def get_endpoint(self, endpoint_id: str) -> Endpoint:
        """One endpoint; raises ``NotFoundError`` where there is none, or no longer."""
        known = known_endpoint_id(endpoint_id)
        return await stored_or_remembered(
            self._live,
            lambda: endpoints.get(self._db, known),
            lambda live: live.endpoint(known),
        )

    async def list_endpoints(
        self,
        *,
        limit: int = 100,
        after: str | None = None,
        wanted: EndpointFilter = EVERYTHING,
        status: Status | None = None,
        state: State | None = None,
        in_maintenance: bool | None = None,
        backwards: bool = False,
    ) -> list[Endpoint]:
        """At most ``limit`` endpoints by id, from the first one after the id ``after``; ``backwards`` from the last.

        ``wanted`` chooses among them, as do the last check's ``status`` (UNKNOWN where there was none), the machine's
        ``state``, and whether a window is over them now; what is not active has none of the three.
        """
        how = StatusFilter(status, state, in_maintenance)
        return await listing.find(self._connection, self._live, Part(limit, after, wanted, backwards), how)

    async def get_names(self, endpoint_ids: Iterable[str]) -> dict[str, str]:
        """The names of those endpoints by their ids; a deleted one has none any more."""
        ids = dict.fromkeys(endpoint_ids)
        held = [one for one in map(self._live.endpoint, ids) if one is not None] if self._live is not None else []
        names = {one.id: one.name for one in held}
        if other := [one for one in ids if one not in names]:
            found = await stored_or_remembered(
                self._live, lambda: endpoints.get_some(self._db, other), lambda _live: list[Endpoint]()
            )
            names |= {one.id: one.name for one in found}
        return names

    async def count_tags(self) -> dict[str, int]:
        """How many endpoints bear each tag, by tag."""
        return await endpoints.tags(self._db)

    async def count_sites(self) -> dict[str, int]:
        """How many endpoints stand at each site, by site."""
        return await endpoints.sites(self._db)

    async def update_endpoint(
        self, endpoint_id: str, changes: Mapping[str, Any], *, revision: int | None = None
    ) -> Endpoint:
        """Change the given fields of an endpoint and leave the others as they are.

        Another url or protocol, or ``is_active`` false, resolves its open outage; another protocol's options start
        from their defaults. With ``revision`` it changes only what still is of it, else ``LostUpdateError``. Raises
        ``InvalidInputError``, ``NotFoundError``, and ``ConflictError`` for an endpoint that comes from the
        configuration file.
        """
        before = await self._changeable(endpoint_id)
        # What is merged here was read a moment ago: a change in between must not be lost.
        revision = before.revision if revision is None else revision
        described = describe_endpoint(before)
        fields = {name: value for name, value in described.items() if name not in before.options}
        same_protocol = str(changes.get("protocol") or before.protocol).upper() == before.protocol
        options = before.options if same_protocol else {}
        return await self._store_change(before, {**fields, **options, **changes}, revision)

    async def replace_endpoint(
        self, endpoint_id: str, fields: Mapping[str, Any], *, revision: int | None = None
    ) -> Endpoint:
        """Give an endpoint exactly these fields: what is missing is as for a new one, read-only ones are ignored.

        Raises as ``update_endpoint`` does.
        """
        return await self._store_change(await self._changeable(endpoint_id), fields, revision)

    async def delete_endpoint(self, endpoint_id: str, *, revision: int | None = None) -> None:
        """Stop watching an endpoint and resolve its open outage; its history and outages stay readable.

        Raises ``NotFoundError``, and ``ConflictError`` for an endpoint that comes from the configuration file.
        """
        endpoint = await self._changeable(endpoint_id)
        await endpoints.archive(self._db, endpoint.id, revision)
        await refresh(self._live)

    async def get_purgeable(self, endpoint_id: str) -> Endpoint:
        """One endpoint that may be purged, a deleted one too.

        Raises ``NotFoundError``, and ``ConflictError`` for one that the configuration file holds.
        """
        endpoint = await endpoints.get_any(self._db, known_endpoint_id(endpoint_id))
        if endpoint.source.startswith(FROM_FILE) and endpoint.is_active:
            raise ConflictError(f"{endpoint.id} stands in the configuration file; take it out there, then purge it")
        return endpoint

    async def purge_endpoint(self, endpoint_id: str) -> None:
        """Remove an endpoint with all that was found out about it, for ever; one that is watched is deleted first.

        What was told of it stays, as does the audit. Raises as ``get_purgeable`` does, and ``ConflictError`` while
        the end of its last outage is still to be told: ask again in a moment.
        """
        endpoint = await self.get_purgeable(endpoint_id)
        if endpoint.archived_at is None:
            await endpoints.archive(self._db, endpoint.id)
            await refresh(self._live)
        await purge(self._db, endpoint.id)

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

    async def _changeable(self, endpoint_id: str) -> Endpoint:
        endpoint = await self.get_endpoint(endpoint_id)
        if endpoint.source.startswith(FROM_FILE):
            instance = endpoint.source.removeprefix(FROM_FILE)
            raise ConflictError(
                f"{endpoint.id} comes from the configuration file (instance {instance}); change it there."
                " It can be checked, acknowledged, noted and paused by a maintenance window here all the same"
            )
        return endpoint

    async def _store_change(self, before: Endpoint, fields: Mapping[str, Any], revision: int | None) -> Endpoint:
        wanted = parse_endpoint(
            {**keep_secrets(before, fields), "id": before.id},
            self._connection.defaults,
            source=before.source,
            ignore_read_only=True,
        )
        await dependencies.refuse_cycle(self._connection, wanted)
        after = await endpoints.update(self._db, wanted, revision)
        await refresh(self._live)
        return after

    async def _store_result(self, result: CheckResult) -> ServiceStatus:
        await statuses.insert_manual(self._db, result, self._connection.observer)
        # Read back, so that it looks here as it does in the history: rounded, and with the observer's name.
        just_after = result.timestamp + timedelta(microseconds=1)
        (stored,) = await statuses.history(self._db, result.endpoint_id, limit=1, before=just_after)
        return stored
