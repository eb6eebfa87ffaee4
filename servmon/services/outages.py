"""Outages and the maintenance windows that keep planned work from becoming one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any

from servmon.clock import now
from servmon.errors import InvalidInputError
from servmon.model import MaintenanceWindow, Outage, Status
from servmon.services.connection import Connection
from servmon.services.identity import known_uuid
from servmon.services.live import LiveView, refresh
from servmon.services.window_fields import parse_window
from servmon.store import maintenance, outages, statuses

NOTES_LIMIT = 10_000
CREATOR_IN_PYTHON = "python"


@dataclass(frozen=True, slots=True)
class ResolvedOutage(Outage):
    """An outage that a person closed; ``still_down`` where the endpoint's last check failed all the same."""

    still_down: bool = False


class OutageManagementService:
    """Reads and resolves outages, and manages maintenance windows.

    ``live`` is the memory of the daemon this runs in; without it answers come from the database alone.
    All methods raise ``StoreUnavailableError`` where Postgres cannot be reached.
    """

    def __init__(self, connection: Connection, live: LiveView | None = None) -> None:
        self._connection = connection
        self._db = connection.pool
        self._live = live

    async def list_outages(
        self,
        *,
        active: bool | None = None,
        endpoint_id: str | None = None,
        limit: int = 100,
        before: tuple[datetime, str] | None = None,
    ) -> list[Outage]:
        """At most ``limit`` outages, newest first, all older than the one with start time and id ``before``.

        ``active`` picks those that are open (true) or resolved (false).
        """
        return await outages.get_page(self._db, active=active, endpoint_id=endpoint_id, before=before, limit=limit)

    async def get_active_outages(self, *, limit: int = 100, before: tuple[datetime, str] | None = None) -> list[Outage]:
        """At most ``limit`` open outages, newest first, as ``list_outages``."""
        return await self.list_outages(active=True, limit=limit, before=before)

    async def get_outage(self, outage_id: str) -> Outage:
        """One outage; raises ``NotFoundError``."""
        return await outages.get(self._db, known_uuid(outage_id, "outage"))

    async def resolve_outage(self, outage_id: str, resolution_notes: str | None = None) -> ResolvedOutage:
        """Close an outage now, whatever the endpoint does; a new one needs as many new failures as any.

        On a resolved one only the notes change. Raises ``NotFoundError``, and ``InvalidInputError`` for notes
        that are not text of at most 10,000 characters.
        """
        outage_id = known_uuid(outage_id, "outage")
        notes = _checked_notes(resolution_notes)
        outage = await outages.resolve(self._db, outage_id, notes=notes, at=now(self._connection.clock))
        still_down = await self._last_status(outage.endpoint_id) is Status.DOWN
        await refresh(self._live)
        values = {field.name: getattr(outage, field.name) for field in fields(outage)}
        return ResolvedOutage(**values, still_down=still_down)

    async def get_outage_summary(self) -> dict[str, Any]:
        """Counts of all outages: ``total, active, resolved, by_severity, by_service`` (by endpoint id).

        ``mean_time_to_resolve_seconds`` is over the resolved ones, ``None`` where there are none.
        """
        return asdict(await outages.summary(self._db))

    async def create_maintenance_window(self, fields: Mapping[str, Any]) -> MaintenanceWindow:
        """Plan work on endpoints: ``endpoint_ids``, ``start_time``, ``end_time``, ``description``, ``created_by``.

        ``mode`` is ``mute`` (the default: measured, but failures do not count) or ``pause`` (not checked).
        A naive ``datetime`` counts as UTC. Raises ``InvalidInputError`` naming every wrong field.
        """
        window = parse_window(fields, default_creator=CREATOR_IN_PYTHON)
        stored = await maintenance.insert(self._db, window)
        await refresh(self._live)
        return stored

    async def get_maintenance_window(self, window_id: str) -> MaintenanceWindow:
        """One window; raises ``NotFoundError``."""
        return await maintenance.get(self._db, known_uuid(window_id, "maintenance window"))

    async def list_maintenance_windows(
        self, *, limit: int = 100, before: tuple[datetime, str] | None = None
    ) -> list[MaintenanceWindow]:
        """At most ``limit`` windows, latest start first, all before the one with start time and id ``before``."""
        return await maintenance.get_page(self._db, before=before, limit=limit)

    async def get_active_maintenance_windows(self) -> list[MaintenanceWindow]:
        """The windows that cover this moment."""
        return await maintenance.active(self._db, now(self._connection.clock))

    async def update_maintenance_window(self, window_id: str, changes: Mapping[str, Any]) -> MaintenanceWindow:
        """Change the given fields of a window. Raises ``NotFoundError`` and ``InvalidInputError``."""
        before = await self.get_maintenance_window(window_id)
        kept = {
            "endpoint_ids": before.endpoint_ids,
            "start_time": before.start_time,
            "end_time": before.end_time,
            "description": before.description,
            "mode": before.mode,
        }
        return await self._store_window(before, {**kept, **changes})

    async def replace_maintenance_window(self, window_id: str, fields: Mapping[str, Any]) -> MaintenanceWindow:
        """Give a window exactly these fields, missing ones their defaults; who created it stays unless given.

        Raises as ``update_maintenance_window`` does.
        """
        return await self._store_window(await self.get_maintenance_window(window_id), fields)

    async def delete_maintenance_window(self, window_id: str) -> None:
        """Cancel a window, or end an active one now. Raises ``NotFoundError``."""
        await maintenance.delete(self._db, known_uuid(window_id, "maintenance window"))
        await refresh(self._live)

    async def _store_window(self, before: MaintenanceWindow, fields: Mapping[str, Any]) -> MaintenanceWindow:
        wanted = parse_window(fields, default_creator=before.created_by)
        stored = await maintenance.update(self._db, replace(wanted, id=before.id))
        await refresh(self._live)
        return stored

    async def _last_status(self, endpoint_id: str) -> Status:
        known = self._live.current(endpoint_id) if self._live is not None else None
        if known is not None:
            return known.status
        stored = await statuses.latest(self._db, endpoint_id)
        return stored.status if stored else Status.UNKNOWN


def _checked_notes(notes: object) -> str | None:
    if notes is None or (isinstance(notes, str) and len(notes) <= NOTES_LIMIT and "\0" not in notes):
        return notes
    raise InvalidInputError.of("resolution_notes", f"must be text of at most {NOTES_LIMIT} characters")
