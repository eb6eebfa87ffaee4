"""Alert rules: those of the configuration file to read, those in Postgres to change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from servmon.alerts.rule_book import read_rule
from servmon.alerts.rule_settings import FOR_ALL, KEYS, UNWRITTEN
from servmon.alerts.settings import AlertSection, RuleSection
from servmon.clock import now
from servmon.errors import ConflictError, InvalidInputError, NotFoundError, Problem
from servmon.probes.sentences import sentences_of
from servmon.services.connection import Connection
from servmon.store import alert_rules

FROM_FILE, FROM_API, BUILT_IN = "config", "api", "default"
READ_ONLY = frozenset({"source", "created_at", "created_by", "updated_at"})


class AlertRuleService:
    """Reads and changes alert rules; a running daemon goes by a change within a second.

    ``settings`` are those of the file; ``channels`` gives the names of the ways out, or ``None`` where nobody knows.
    All methods raise ``StoreUnavailableError`` where Postgres cannot be reached.
    """

    def __init__(
        self,
        connection: Connection,
        settings: Callable[[], AlertSection] = AlertSection,
        channels: Callable[[], tuple[str, ...] | None] = lambda: None,
    ) -> None:
        self._db = connection.pool
        self._clock = connection.clock
        self._settings = settings
        self._channels = channels

    async def list_rules(self) -> list[dict[str, Any]]:
        """Every rule in the order in which they are asked: the file's, those made here, and what holds unwritten."""
        rows = await alert_rules.get_all(self._db)
        written = [_shown(rule, FROM_FILE) for rule in self._settings().rules]
        names = {rule["name"] for rule in written}
        stored = [shown for row in rows if row["name"] not in names and (shown := _stored(row)) is not None]
        kinds = {rule["kind"] for rule in (*written, *stored)}
        return [*written, *stored, *(_shown(rule, BUILT_IN) for kind, rule in UNWRITTEN.items() if kind not in kinds)]

    async def get_rule(self, name: str) -> dict[str, Any]:
        """One rule; raises ``NotFoundError``."""
        found = next((rule for rule in await self.list_rules() if rule["name"] == name), None)
        if found is None:
            raise NotFoundError("there is no alert rule with such a name")
        return found

    async def create_rule(self, fields: Mapping[str, Any], created_by: str) -> dict[str, Any]:
        """Store a new rule. Raises ``InvalidInputError``, and ``ConflictError`` where the name is taken."""
        rule = self._checked(fields)
        if any(rule.name == written.name for written in self._settings().rules):
            raise ConflictError(f"the configuration file has a rule called {rule.name} already")
        await alert_rules.insert(self._db, rule.name, _given(rule), now(self._clock), created_by)
        return await self.get_rule(rule.name)

    async def replace_rule(self, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Store a rule anew: what is left out is as the settings say. Raises as ``create_rule``, ``NotFoundError``."""
        await self._changeable(name)
        return await self._store(name, fields)

    async def update_rule(self, name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Change the given fields of a rule. Raises as ``replace_rule``."""
        before = await self._changeable(name)
        kept = {key: value for key, value in before.items() if key not in READ_ONLY and value is not None}
        if "kind" in changes:  # what only the other kind has goes with it
            kept = {key: value for key, value in kept.items() if key in FOR_ALL}
        return await self._store(name, {**kept, **changes})

    async def delete_rule(self, name: str) -> None:
        """Delete a rule; what it began is over. Raises ``NotFoundError`` and ``ConflictError``."""
        await self._changeable(name)
        await alert_rules.delete(self._db, name)

    async def _store(self, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        rule = self._checked({"name": name, **fields})
        if rule.name != name:
            raise InvalidInputError.of("name", "cannot be changed: history names it; make another rule instead")
        await alert_rules.update(self._db, name, _given(rule), now(self._clock))
        return await self.get_rule(name)

    async def _changeable(self, name: str) -> dict[str, Any]:
        rule = await self.get_rule(name)
        if rule["source"] == FROM_FILE:
            raise ConflictError(f"{name} comes from the configuration file ([[alert.rules]]); change it there")
        if rule["source"] == BUILT_IN:
            raise ConflictError(f"{name} is servmon's own; create a rule of the kind {rule['kind']} in its place")
        return rule

    def _checked(self, fields: Mapping[str, Any]) -> RuleSection:
        given = {key: value for key, value in fields.items() if key not in READ_ONLY}
        given = {key: value for key, value in given.items() if value is not None or key not in RuleSection.model_fields}
        try:
            rule = RuleSection.model_validate(given)
        except ValidationError as error:
            raise InvalidInputError(map(_named, sentences_of(error))) from None
        wrong = [Problem(key, "must be printable text") for key in ("ids", "tags", "sites") if _is_odd(rule, key)]
        known = self._channels()
        named = [*(rule.channels or ()), *(name for step in rule.escalation or () for name in step.channels)]
        unknown = [name for name in named if known is not None and name not in known]
        if unknown:
            there = ", ".join(known or ()) or "none"
            wrong.append(Problem("channels", f"there is no channel {unknown[0]!r}; there are: {there}"))
        if wrong:
            raise InvalidInputError(wrong)
        return rule


def _is_odd(rule: RuleSection, key: str) -> bool:
    return not all(text.isprintable() for text in getattr(rule, key))


def _named(problem: Problem) -> Problem:
    """A problem of several keys together bears the first key in its sentence."""
    if problem.field:
        return problem
    key, _, said = problem.message.partition(": ")
    return Problem(key, said) if said and key in RuleSection.model_fields else Problem("kind", problem.message)


def _given(rule: RuleSection) -> dict[str, Any]:
    return rule.model_dump(mode="json", exclude_unset=True)


def _shown(rule: RuleSection, source: str) -> dict[str, Any]:
    keys = FOR_ALL | KEYS[rule.kind]
    shown = {key: value for key, value in rule.model_dump(mode="json").items() if key in keys}
    return {**shown, "source": source}


def _stored(row: Mapping[str, Any]) -> dict[str, Any] | None:
    rule = read_rule(row["rule"])
    if rule is None:
        return None
    made = {key: row[key] for key in ("created_at", "created_by", "updated_at")}
    return {**_shown(rule, FROM_API), **made}
