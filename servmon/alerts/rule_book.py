"""The rules that hold: those of the configuration file, and after them those that people made over the API."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import structlog
from pydantic import ValidationError

from servmon.alerts.settings import AlertSection, RuleSection
from servmon.errors import StoreUnavailableError
from servmon.store import alert_rules
from servmon.store.notebook import Notebook
from servmon.store.plain import dump, load
from servmon.store.pool import Executor

_log = structlog.get_logger(__name__)

PAGE = "alert rule"


def with_rules(settings: AlertSection, stored: Iterable[RuleSection]) -> AlertSection:
    """``settings`` with rules that stand in Postgres; one of the file wins over one of the same name."""
    names = {rule.name for rule in settings.rules}
    more = tuple(rule for rule in stored if rule.name not in names)
    return settings.model_copy(update={"rules": (*settings.rules, *more)}) if more else settings


def read_rule(fields: dict[str, Any]) -> RuleSection | None:
    """A rule as it was stored; ``None`` where this servmon does not know it, as after a step back to an older one."""
    try:
        return RuleSection.model_validate(fields)
    except ValidationError as error:
        _log.error("a stored alert rule is left out", rule=fields.get("name"), problem=str(error.errors()[0]["msg"]))
        return None


class RuleBook:
    """The rules in Postgres as they were last read; noted on disk, for a start without it."""

    def __init__(self, db: Executor, notebook: Notebook) -> None:
        self._db = db
        self._notebook = notebook
        self.stored: tuple[RuleSection, ...] = ()

    async def recall(self) -> None:
        """Take up what was noted."""
        with suppress(StoreUnavailableError):
            pages = await self._notebook.read(PAGE)
            found = [read_rule(load(dict, body)) for _, body in sorted(pages[PAGE].items())]
            self.stored = tuple(rule for rule in found if rule is not None)

    async def refresh(self) -> bool:
        """Read them anew; whether there was a change. Raises where Postgres is away."""
        rows = [row["rule"] for row in await alert_rules.get_all(self._db)]
        stored = tuple(rule for rule in map(read_rule, rows) if rule is not None)
        if stored == self.stored:
            return False
        self.stored = stored
        with suppress(StoreUnavailableError):
            await self._notebook.replace({PAGE: {f"{place:06}": dump(fields) for place, fields in enumerate(rows)}})
        return True
