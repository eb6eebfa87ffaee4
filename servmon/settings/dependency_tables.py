"""The ``[[dependencies]]`` of a configuration: parents for whole sites, tags or lists of endpoints at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from servmon.detection.dependencies import cycle_in_words, cycles
from servmon.model import DependencyRule, Endpoint
from servmon.probes.endpoint_fields import Groups, Line
from servmon.probes.sentences import sentences_of
from servmon.settings.endpoint_tables import Placed
from servmon.settings.findings import Findings


def _in_a_list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


Names = Annotated[tuple[Line, ...], BeforeValidator(_in_a_list)]


class Children(BaseModel):
    """Which endpoints a rule gives parents to: each by one name or a list of names; all that are given must fit."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    id: Names = ()
    tag: Names = ()
    site: Names = ()

    @model_validator(mode="after")
    def _selects_something(self) -> Children:
        if not (self.id or self.tag or self.site):
            raise ValueError('needs at least one of id, tag and site, such as { site = "pop-north" }')
        return self


class DependencyFields(BaseModel):
    """``[[dependencies]]``: of each group in ``parents`` one endpoint has to be up for the ``children``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    children: Children
    parents: Annotated[Groups, Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class PlacedRule:
    """A rule with its number among all tables."""

    number: int
    rule: DependencyRule


def read_dependencies(tables: Any, found: Placed, findings: Findings) -> tuple[DependencyRule, ...]:
    """Every rule of the files; what is wrong with one, or with all that depends on one another, goes to ``findings``.

    ``found`` are the endpoints of the files, with their own ``depends_on``.
    """
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        findings.problem(("dependencies",), "must be tables: write [[dependencies]], in double brackets, above each")
        tables = []
    rules = list(_read(tables, findings))
    for placed in rules:
        _find_slips(placed, found, findings)
    _find_cycles(found.endpoints, rules, findings)
    return tuple(placed.rule for placed in rules)


def _read(tables: Sequence[Mapping[str, Any]], findings: Findings) -> Iterator[PlacedRule]:
    for number, table in enumerate(tables):
        try:
            fields = DependencyFields.model_validate(table)
        except ValidationError as error:
            for problem in sentences_of(error):
                path = tuple(int(part) if part.isdecimal() else part for part in problem.field.split(".") if part)
                findings.problem(("dependencies", number, *path), problem.message, label=_label(number, problem.field))
            continue
        children = fields.children
        selectors = {"ids": children.id, "tags": children.tag, "sites": children.site}
        named = {name: frozenset(values) for name, values in selectors.items()}
        yield PlacedRule(number, DependencyRule(fields.parents, **named))


def _find_slips(placed: PlacedRule, found: Placed, findings: Findings) -> None:
    keys = ("dependencies", placed.number)
    for parent in dict.fromkeys(parent for group in placed.rule.parents for parent in group):
        if parent not in found.ids:
            sentence = f'"{parent}" is the id of no endpoint in this file'
            findings.problem((*keys, "parents"), sentence, label=_label(placed.number, "parents"))
    if not any(placed.rule.selects(endpoint) for _, endpoint in found.endpoints):
        sentence = "selects no endpoint of this file; is a name misspelt?"
        findings.warn((*keys, "children"), sentence, label=_label(placed.number, "children"))


def _find_cycles(endpoints: Sequence[tuple[int, Endpoint]], rules: Sequence[PlacedRule], findings: Findings) -> None:
    """Depth first, each dependency once; where a rule closes the circle it is the rule that is wrong."""
    own = {endpoint.id: (number, _members(endpoint.depends_on)) for number, endpoint in endpoints}
    given: dict[str, dict[str, int]] = {}
    for placed in rules:
        for _, endpoint in endpoints:
            if placed.rule.selects(endpoint):
                by_rule = dict.fromkeys(_members(placed.rule.parents), placed.number)
                given[endpoint.id] = by_rule | given.get(endpoint.id, {})
    parents = {child: [*above, *given.get(child, ())] for child, (_, above) in own.items() if above or child in given}
    for cycle in cycles(parents):
        child, parent = cycle[-2:]
        number, above = own[child]
        if parent in above:
            keys, label = ("endpoints", number, "depends_on"), f"endpoints[{child}].depends_on"
        else:
            keys, label = ("dependencies", given[child][parent], "parents"), _label(given[child][parent], "parents")
        findings.problem(keys, cycle_in_words(cycle), label=label)


def _members(groups: tuple[tuple[str, ...], ...]) -> list[str]:
    return [parent for group in groups for parent in group]


def _label(number: int, field: str) -> str:
    return f"dependencies[#{number + 1}].{field}".rstrip(".")
