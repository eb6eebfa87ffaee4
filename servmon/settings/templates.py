"""``[[templates]]``: fields that many endpoints share, taken over with ``use = "name"``."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from servmon.settings.findings import Findings

# What makes an endpoint itself; shared, it would be a slip.
_OWN = ("id", "use")


class Templates:
    """The templates of a configuration by name, and where each stands."""

    def __init__(self, by_name: Mapping[str, tuple[int, Mapping[str, Any]]]) -> None:
        self._by_name = by_name

    def fill(self, number: int, table: Mapping[str, Any], label: str, findings: Findings) -> dict[str, Any]:
        """The endpoint's fields with its template's beneath; an unknown template is reported."""
        filled = {key: value for key, value in table.items() if key != "use"}
        if "use" not in table:
            return filled
        name = table["use"]
        if isinstance(name, str) and name in self._by_name:
            return {**{key: value for key, value in self._by_name[name][1].items() if key != "name"}, **filled}
        close = get_close_matches(str(name), self._by_name, n=1)
        meant = f"; was {close[0]} meant?" if close else "; write [[templates]] with this name"
        findings.problem(("endpoints", number, "use"), f"there is no template {name!r}{meant}", label=f"{label}.use")
        return filled

    def place(self, table: Mapping[str, Any], field: str) -> int | None:
        """The number of the template that ``field`` of the endpoint in ``table`` came from, if it did."""
        number, fields = self._by_name.get(table.get("use", ""), (None, {}))
        return number if field in fields and field not in table else None


def read_templates(tables: Any, findings: Findings) -> Templates:
    """Every template of the files; what is wrong with one goes to ``findings``."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        findings.problem(("templates",), "must be tables: write [[templates]], in double brackets, above each template")
        return Templates({})
    by_name: dict[str, tuple[int, Mapping[str, Any]]] = {}
    for number, table in enumerate(tables):
        name = table.get("name")
        if not isinstance(name, str) or not name:
            findings.problem(("templates", number), 'needs a name, such as name = "web"')
            continue
        if name in by_name:
            findings.problem(("templates", number, "name"), "another template has this name already")
        for key in _OWN:
            if key in table:
                findings.problem(("templates", number, key), "belongs to each endpoint, not to a template")
        by_name[name] = number, table
    return Templates(by_name)
