"""Service endpoints: which there are, and how people make, change and remove them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from servmon.errors import ConflictError
from servmon.model import Endpoint, State, Status, StatusFilter
from servmon.probes.masking import keep_secrets
from servmon.probes.specification import FROM_FILE, describe_endpoint, parse_endpoint
from servmon.services import dependencies, listing
from servmon.services.connection import Connection
from servmon.services.identity import known_endpoint_id
from servmon.services.live import LiveView, refresh
from servmon.services.memory import stored_or_remembered
from servmon.store import endpoints
from servmon.store.endpoints import EVERYTHING, EndpointFilter, Part
from servmon.store.purge import purge


class EndpointService:
    """Manages service endpoints.

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
