"""Lists as people and programs read them: a table on a terminal, tab-separated lines elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from servmon.cli.base import shown

Row = Mapping[str, Any]
GAP = "  "


class Column(NamedTuple):
    """One column: its title, and the field it shows or what makes its value of a row."""

    title: str
    value: str | Callable[[Row], Any]

    def of(self, row: Row) -> str:
        """What stands in the column for ``row``: one line without control characters."""
        return word(row.get(self.value) if isinstance(self.value, str) else self.value(row))


def word(value: Any) -> str:
    """A value on one line: nothing for null, yes and no, lists by commas, times to the second."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(word(one) if not isinstance(one, list) else "|".join(map(word, one)) for one in value)
    return shown(json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping) else str(value))


def table(columns: Sequence[Column], rows: Sequence[Row], width: int) -> Iterator[str]:
    """The lines of a table no wider than ``width``, with a heading; the last column is cut where it is too long."""
    cells = [[column.of(row) for column in columns] for row in rows]
    titles = [column.title for column in columns]
    widths = [max(map(_cells, column)) for column in zip(titles, *cells, strict=True)]
    for line in (titles, *cells):
        padded = [text + " " * (wide - _cells(text)) for text, wide in zip(line, widths, strict=True)]
        yield _cut(GAP.join(padded).rstrip(), width)


def lines(columns: Sequence[Column], rows: Sequence[Row]) -> Iterator[str]:
    """One line a row, its values separated by tabs; no heading."""
    for row in rows:
        yield "\t".join(column.of(row) for column in columns)


def _cells(text: str) -> int:
    """How many columns of a terminal ``text`` takes: some scripts take two a letter."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _cut(text: str, width: int) -> str:
    while _cells(text) > width > 1:
        text = text[: min(width, len(text) - 1) - 1] + "…" if len(text) > width else text[:-2] + "…"
    return text
