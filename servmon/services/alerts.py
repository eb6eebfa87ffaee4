"""Who was told of what and who was not, silences, and acknowledgements."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from servmon.clock import now
from servmon.errors import InvalidInputError, Problem
from servmon.services.connection import Connection
from servmon.services.identity import known_uuid
from servmon.services.moments import read_moment
from servmon.store import alerts, audit, notifications, outages, silences

NOTE_LIMIT = 2000
LISTED = 100
_ALERT = (
    "id", "rule", "kind", "title", "reason", "severity", "opened_at", "told_at", "reminders", "channels", "said",
    "closed_at", "outages",
)  # fmt: skip
_MEMBER = ("outage_id", "endpoint_id", "name", "start_time", "resolved_at")
_DECISION = ("news_id", "outage_id", "endpoint_id", "kind", "stage", "reason", "alert_id", "at")
_NOTIFICATION = (
    "id", "alert_id", "channel", "kind", "severity", "subject", "body", "created_at", "attempts", "last_error",
    "sent_at", "given_up_at",
)  # fmt: skip
_ACKNOWLEDGEMENT = ("acknowledged_by", "acknowledged_at", "note")
_SILENCE = ("id", "reason", "starts_at", "ends_at", "created_by")


class SilenceFields(BaseModel):
    """What a person says of a silence: whom it covers (all that are given must fit), why, and until when."""

    model_config = ConfigDict(extra="forbid")

    ids: tuple[str, ...] = Field((), max_length=1000)
    tags: tuple[str, ...] = Field((), max_length=100)
    sites: tuple[str, ...] = Field((), max_length=100)
    reason: str = Field(min_length=1, max_length=NOTE_LIMIT)
    starts_at: datetime | None = None
    ends_at: datetime

    @field_validator("starts_at", "ends_at", mode="before")
    @classmethod
    def _is_moment(cls, value: Any) -> Any:
        return None if value is None else read_moment(value)

    @model_validator(mode="after")
    def _selects(self) -> SilenceFields:
        if not (self.ids or self.tags or self.sites):
            raise ValueError("ids, tags or sites: at least one has to say whom the silence covers")
        return self


class AlertService:
    """Reads alerts, and takes people's word on what need not be told. Times are aware UTC.

    All methods raise ``StoreUnavailableError`` where Postgres cannot be reached.
    """

    def __init__(self, connection: Connection) -> None:
        self._db = connection.pool
        self._clock = connection.clock

    async def list_alerts(
        self, *, active: bool | None = None, limit: int = 100, before: tuple[datetime, str] | None = None
    ) -> list[dict[str, Any]]:
        """At most ``limit`` alerts, newest first; ``active`` picks those that are open (true) or over (false)."""
        found = await alerts.get_page(self._db, active=active, before=before, limit=limit)
        return [_shown(row, _ALERT) for row in found]

    async def get_alert(self, alert_id: str) -> dict[str, Any]:
        """One alert with its outages, what was decided, and every message. Raises ``NotFoundError``."""
        alert_id = known_uuid(alert_id, "alert")
        row, members, decisions = await alerts.get(self._db, alert_id)
        sent = await notifications.of_alert(self._db, alert_id)
        return {
            **_shown(row, _ALERT),
            "members": [_shown(member, _MEMBER) for member in members],
            "decisions": [_shown(decision, _DECISION) for decision in decisions],
            "notifications": [_shown(notification, _NOTIFICATION) for notification in sent],
        }

    async def explain(self, outage_id: str) -> dict[str, Any]:
        """Why who was told of an outage, and who was not: decisions, messages, and who sees to it.

        Raises ``NotFoundError``.
        """
        outage = await outages.get(self._db, known_uuid(outage_id, "outage"))
        seen = await silences.acknowledgement(self._db, outage.id)
        sent = await notifications.of_outage(self._db, outage.id)
        return {
            "outage_id": outage.id,
            "decisions": [_shown(row, _DECISION) for row in await alerts.decisions_on(self._db, outage.id)],
            "notifications": [_shown(row, _NOTIFICATION) for row in sent],
            "acknowledgement": _shown(seen, _ACKNOWLEDGEMENT) if seen else None,
        }

    async def acknowledge(self, outage_id: str, by: str, note: object = "") -> dict[str, Any]:
        """Say that somebody sees to an open outage: nobody is reminded of it until it is over or becomes worse.

        Raises ``NotFoundError``, ``ConflictError`` where it is over, ``InvalidInputError``.
        """
        if not isinstance(note, str) or len(note) > NOTE_LIMIT or "\0" in note:
            raise InvalidInputError.of("note", f"must be text of at most {NOTE_LIMIT} characters")
        outage_id = known_uuid(outage_id, "outage")
        row = await silences.acknowledge(self._db, outage_id, by, now(self._clock), note)
        return _shown(row, ("outage_id", "acknowledged_by", "acknowledged_at", "note"))

    async def acknowledge_by_link(
        self, outage_id: str | None, alert_id: str | None, by: str, address: str
    ) -> list[str]:
        """Acknowledge what a signed link names, one outage or all of an alert, as far as nobody sees to it yet.

        The ids of what was acknowledged, which is noted among the changes, with the ``address`` it came from.
        """
        at = now(self._clock)
        done = await silences.acknowledge_unseen(self._db, outage_id, alert_id, by, at)
        if done:
            target = f"/outages/{outage_id}" if outage_id else f"/alerts/{alert_id}"
            after = {"acknowledged_by": by, "outage_ids": done[:LISTED], "outage_count": len(done)}
            await audit.insert(
                self._db, audit.AuditEntry(at, by, "", address, "acknowledge_by_link", target, None, after, "")
            )
        return done

    async def outages_of_link(self, outage_id: str | None, alert_id: str | None) -> list[Mapping[str, Any]]:
        """What a signed link is about: name, severity, times, and who sees to it; what is down first."""
        return list(await silences.outages_of_link(self._db, outage_id, alert_id))

    async def get_acknowledgements(self, outage_ids: Collection[str]) -> dict[str, dict[str, Any]]:
        """Who sees to each of these outages, since when, and with which note; those nobody sees to are not in it."""
        found = await silences.acknowledgements(self._db, list(outage_ids))
        return {str(row["outage_id"]): _shown(row, _ACKNOWLEDGEMENT) for row in found}

    async def unacknowledge(self, outage_id: str, by: str) -> None:
        """Take an acknowledgement back, if there is one. Raises ``NotFoundError``."""
        outage = await outages.get(self._db, known_uuid(outage_id, "outage"))
        await silences.unacknowledge(self._db, [outage.id], by, now(self._clock))

    async def list_silences(self) -> list[dict[str, Any]]:
        """The silences that are not over, the one that ends first before the others."""
        return [_silence(row) for row in await silences.not_ended(self._db, now(self._clock))]

    async def create_silence(self, fields: Mapping[str, Any], created_by: str) -> dict[str, Any]:
        """Tell nothing of some endpoints until a given time: see ``SilenceFields``. Raises ``InvalidInputError``."""
        try:
            given = SilenceFields(**fields)
        except ValidationError as error:
            raise InvalidInputError(_problem(detail) for detail in error.errors()) from None
        present = now(self._clock)
        starts_at = given.starts_at or present
        if given.ends_at <= max(starts_at, present):
            raise InvalidInputError.of("ends_at", "must be later than now and than starts_at")
        matchers = {"ids": given.ids, "tags": given.tags, "sites": given.sites}
        row = await silences.insert(
            self._db, str(uuid4()), matchers, given.reason, starts_at, given.ends_at, created_by
        )
        return _silence(row)

    async def end_silence(self, silence_id: str) -> None:
        """End a silence now; what is still down is told then. Raises ``NotFoundError``."""
        await silences.end(self._db, known_uuid(silence_id, "silence"), now(self._clock))


def _problem(detail: Any) -> Problem:
    place = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return Problem(place, f"unknown field; known are {', '.join(SilenceFields.model_fields)}")
    message = str(detail["ctx"]["error"]) if detail["type"] == "value_error" else detail["msg"]
    field, _, said = message.partition(": ")
    return Problem(place, message) if place else Problem(field.split(",")[0], said)


def _shown(row: Mapping[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    return {name: str(row[name]) if name.endswith("id") and row[name] is not None else row[name] for name in columns}


def _silence(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**_shown(row, _SILENCE), **{key: row["matchers"].get(key, []) for key in ("ids", "tags", "sites")}}
