"""Outages and the maintenance windows that keep planned work from becoming one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from servmon.clock import now
from servmon.errors import InvalidInputError
from servmon.model import MaintenanceWindow, Outage, Status
from servmon.services import windows
from servmon.services.connection import Connection
from servmon.services.identity import known_endpoint_id, known_uuid
from servmon.services.live import LiveView, refresh
from servmon.services.memory import stored_or_remembered
from servmon.services.window_fields import parse_window
from servmon.store import maintenance, outages, remarks, statuses
from servmon.store.outages import ANY, OutageFilter
from servmon.store.remarks import Remark

NOTES_LIMIT = 10_000
CREATOR_IN_PYTHON = "python"


@dataclass(frozen=True, slots=True)
class ResolvedOutage(Outage):
    """An outage that a person closed; ``still_down`` where the endpoint's last check failed all the same."""

    still_down: bool = False


class OutageManagementService:
    """Reads and resolves outages, and manages maintenance windows.

    ``live`` is the memory of the daemon this runs in; without it answers come from the database alone.
    ``channels`` gives the names of the ways out, where they are known.
    All methods raise ``StoreUnavailableError`` where Postgres cannot be reached.
    """

    def __init__(
        self,
        connection: Connection,
        live: LiveView | None = None,
        channels: Callable[[], Collection[str] | None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._db = connection.pool
        self._live = live
        self._channels = channels

    async def list_outages(
        self,
        *,
        active: bool | None = None,
        endpoint_id: str | None = None,
        limit: int = 100,
        before: tuple[datetime, str] | None = None,
        wanted: OutageFilter = ANY,
    ) -> list[Outage]:
        """At most ``limit`` outages, newest first, all older than the one with start time and id ``before``.

        ``active`` picks those that are open (true) or resolved (false).
        """
        return await stored_or_remembered(
            self._live,
            lambda: outages.get_page(
                self._db, active=active, endpoint_id=endpoint_id, before=before, limit=limit, wanted=wanted
            ),
            lambda live: _page(live.open_outages(), endpoint_id, before, limit) if active and wanted == ANY else None,
        )

    async def get_active_outages(self, *, limit: int = 100, before: tuple[datetime, str] | None = None) -> list[Outage]:
        """At most ``limit`` open outages, newest first, as ``list_outages``."""
        return await self.list_outages(active=True, limit=limit, before=before)

    async def get_open_outages(self) -> list[Outage]:
        """Every open outage, newest first, as the running daemon knows them, and without one as they are stored."""
        known = self._live.open_outages() if self._live is not None else await outages.open_outages(self._db)
        return sorted(known, key=lambda one: (one.start_time, one.id), reverse=True)

    async def get_outage(self, outage_id: str) -> Outage:
        """One outage; raises ``NotFoundError``."""
        known = known_uuid(outage_id, "outage")
        return await stored_or_remembered(
            self._live,
            lambda: outages.get(self._db, known),
            lambda live: next((one for one in live.open_outages() if one.id == known), None),
        )

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

    async def note_outage(self, outage_id: str, text: str, *, by: str) -> Remark:
        """Write a note down beside an outage, open or over. Raises ``NotFoundError`` and ``InvalidInputError``."""
        remark = self._remark(outage_id, "note", _checked_text("text", text), by)
        await remarks.add(self._db, remark)
        return remark

    async def exclude_outage(self, outage_id: str, reason: str, *, by: str, false_alarm: bool = False) -> Outage:
        """Let an outage not count against availability, for ``reason``; a ``false_alarm`` was none at all.

        Raises ``NotFoundError`` and ``InvalidInputError``.
        """
        remark = self._remark(outage_id, "excluded", _checked_text("reason", reason), by)
        return await remarks.count_or_not(self._db, remark, false_alarm=false_alarm)

    async def include_outage(self, outage_id: str, *, by: str) -> Outage:
        """Let an outage count against availability again. Raises ``NotFoundError``."""
        return await remarks.count_or_not(self._db, self._remark(outage_id, "included", "", by), false_alarm=False)

    async def get_timeline(self, outage_id: str) -> list[dict[str, Any]]:
        """``at, kind, text, by`` of all that happened with an outage and was said of it, oldest first.

        Raises ``NotFoundError``.
        """
        outage = await self.get_outage(outage_id)
        return [dict(row) for row in await remarks.timeline(self._db, outage.id)]

    def _remark(self, outage_id: str, kind: str, text: str, by: str) -> Remark:
        return Remark(str(uuid4()), known_uuid(outage_id, "outage"), kind, text, by, now(self._connection.clock))

    async def get_outage_summary(self) -> dict[str, Any]:
        """Counts of all outages: ``total, active, resolved, by_severity, by_service`` (by endpoint id).

        ``mean_time_to_resolve_seconds`` is over the resolved ones, ``None`` where there are none.
        """
        return asdict(await outages.summary(self._db))

    async def create_maintenance_window(self, fields: Mapping[str, Any]) -> MaintenanceWindow:
        """Plan work: ``endpoint_ids``, ``tags`` or ``sites``, ``start_time``, ``end_time``, ``description`` and more.

        ``mode`` is ``mute`` (the default: measured, but failures do not count) or ``pause`` (not checked). ``rrule``
        (RFC 5545) makes it recur by the clocks of ``timezone``, but for the days in ``exdates``. The channels in
        ``notify`` are told of it, also ``notify_before`` (``["24h", "1h"]``) it begins. A naive ``datetime`` counts as
        UTC. Raises ``InvalidInputError`` naming every wrong field.
        """
        window = await self._read(fields, CREATOR_IN_PYTHON)
        stored = await maintenance.insert(self._db, window, windows.over_at(window))
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
        return await windows.active(self._db, now(self._connection.clock))

    async def get_maintenance_windows_over(self, endpoint_id: str, ahead: timedelta) -> list[MaintenanceWindow]:
        """The windows that are over an endpoint now, or will be until so far ``ahead``."""
        present = now(self._connection.clock)
        found = await maintenance.over_endpoint(self._db, known_endpoint_id(endpoint_id), present, present + ahead)
        return [window for window in found if window.deleted_at is None]

    async def update_maintenance_window(
        self, window_id: str, changes: Mapping[str, Any], *, version: datetime | None = None
    ) -> MaintenanceWindow:
        """Change the given fields of a window. Raises ``NotFoundError`` and ``InvalidInputError``.

        What is merged was read a moment ago: ``LostUpdateError`` where somebody else changed it in between, or since
        ``version``, its ``updated_at`` as it was read before.
        """
        before = await self.get_maintenance_window(window_id)
        fields = {**windows.fields_of(before), **changes}
        return await self._replace_window(before, fields, version or before.updated_at)

    async def replace_maintenance_window(
        self, window_id: str, fields: Mapping[str, Any], *, version: datetime | None = None
    ) -> MaintenanceWindow:
        """Give a window exactly these fields, missing ones their defaults; who created it stays unless given.

        What a recurring one covered until now stays covered. With ``version``, its ``updated_at``, it changes only
        what still is as it was then, else ``LostUpdateError``. Raises as ``update_maintenance_window`` does.
        """
        return await self._replace_window(await self.get_maintenance_window(window_id), fields, version)

    async def extend_maintenance_window(
        self, window_id: str, fields: Mapping[str, Any], *, version: datetime | None = None
    ) -> MaintenanceWindow:
        """Let what runs now end later: by so many ``minutes``, or at ``end_time``; later occurrences stay as they are.

        Raises ``NotFoundError``, ``InvalidInputError``, and ``ConflictError`` where it is over.
        """
        before = await self.get_maintenance_window(window_id)
        return await self._store_window(windows.extended(before, fields, now(self._connection.clock)), version)

    async def end_maintenance_window(self, window_id: str, *, version: datetime | None = None) -> MaintenanceWindow:
        """Let what runs now end now; later occurrences stay. Raises ``NotFoundError`` and ``ConflictError``."""
        before = await self.get_maintenance_window(window_id)
        return await self._store_window(windows.ended(before, now(self._connection.clock)), version)

    async def delete_maintenance_window(self, window_id: str, *, version: datetime | None = None) -> None:
        """Cancel a window, or end an active one now; what it covered so far stays so. Raises ``NotFoundError``."""
        known = known_uuid(window_id, "maintenance window")
        await maintenance.delete(self._db, known, now(self._connection.clock), version=version)
        await refresh(self._live)

    async def _replace_window(
        self, before: MaintenanceWindow, fields: Mapping[str, Any], version: datetime | None
    ) -> MaintenanceWindow:
        wanted = await self._read(fields, before.created_by)
        return await self._store_window(windows.replaced(before, wanted, now(self._connection.clock)), version)

    async def _store_window(self, window: MaintenanceWindow, version: datetime | None) -> MaintenanceWindow:
        stored = await maintenance.update(self._db, window, windows.over_at(window), version=version)
        await refresh(self._live)
        return stored

    async def _read(self, fields: Mapping[str, Any], creator: str) -> MaintenanceWindow:
        # Off the loop: following a strange rule takes some milliseconds.
        window = await asyncio.to_thread(parse_window, fields, default_creator=creator, channels=self._channels())
        await maintenance.refuse_unknown_names(self._db, window)
        return window

    async def _last_status(self, endpoint_id: str) -> Status:
        known = self._live.current(endpoint_id) if self._live is not None else None
        if known is not None:
            return known.status
        stored = await statuses.latest(self._db, endpoint_id)
        return stored.status if stored else Status.UNKNOWN


def _checked_text(name: str, text: str) -> str:
    if not text.strip() or len(text) > NOTES_LIMIT or "\0" in text:
        raise InvalidInputError.of(name, f"must be text of 1 to {NOTES_LIMIT} characters")
    return text


def _checked_notes(notes: object) -> str | None:
    if notes is None or (isinstance(notes, str) and len(notes) <= NOTES_LIMIT and "\0" not in notes):
        return notes
    raise InvalidInputError.of("resolution_notes", f"must be text of at most {NOTES_LIMIT} characters")


def _page(
    known: Iterable[Outage], endpoint_id: str | None, before: tuple[datetime, str] | None, limit: int
) -> list[Outage]:
    wanted = [one for one in known if endpoint_id in (None, one.endpoint_id)]
    newest = sorted(wanted, key=lambda one: (one.start_time, one.id), reverse=True)
    return [one for one in newest if before is None or (one.start_time, one.id) < before][:limit]
