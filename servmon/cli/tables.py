"""Lists as people and programs read them: a table on a terminal, tab-separated lines elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from servmon.cli.base import shown

Row = Mapping[str, Any]
GAP = "  "


class Column(NamedTuple):
    """One column: its title, and the field it shows or what makes its value of a row.

    Where a terminal has too little room a column with a ``rank`` is left out, the highest first, and one with a
    ``least`` width is cut to as little as that; any other is shown whole.
    """

    title: str
    value: str | Callable[[Row], Any]
    least: int | None = None
    rank: int = 0

    def of(self, row: Row) -> str:
        """What stands in the column for ``row``: one line without control characters."""
        return word(row.get(self.value) if isinstance(self.value, str) else self.value(row))


def word(value: Any) -> str:
    """A value on one line: nothing for null, yes and no, lists by commas, six digits."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(word(one) if not isinstance(one, list) else "|".join(map(word, one)) for one in value)
    return shown(json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping) else str(value))


def table(columns: Sequence[Column], rows: Sequence[Row], width: int) -> Iterator[str]:
    """The lines of a table no wider than ``width``, with a heading; columns in which nothing stands are left out."""
    cells = {column: [column.of(row) for row in rows] for column in columns}
    widths = _fitted(
        {column: _widest(column, cells[column]) for column in columns if any(cells[column]) or not rows}, width
    )
    for line in ([column.title for column in widths], *zip(*(cells[column] for column in widths), strict=True)):
        padded = [_padded(cut(text, wide), wide) for text, wide in zip(line, widths.values(), strict=True)]
        yield cut(GAP.join(padded).rstrip(), width)


def _widest(column: Column, texts: Sequence[str]) -> int:
    return max(map(_cells, (column.title, *texts)))


def _fitted(widths: dict[Column, int], width: int) -> dict[Column, int]:
    """The columns that ``width`` has room for, and how wide each is; the widest that may be cut is cut first."""
    least = {column: min(wide, column.least or wide) for column, wide in widths.items()}
    while _together(least.values()) > width and any(column.rank for column in least):
        del least[max(least, key=lambda column: column.rank)]
    fitted = {column: widths[column] for column in least}
    while _together(fitted.values()) > width:
        yielding = [column for column, wide in fitted.items() if wide > least[column]]
        if not yielding:
            break
        fitted[max(yielding, key=fitted.__getitem__)] -= 1
    return fitted


def _together(widths: Collection[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


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


def cut(text: str, width: int) -> str:
    """As much of ``text`` as ``width`` columns hold, with a mark where something is missing."""
    if _cells(text) <= width:
        return text
    kept, used = 0, 1
    while kept < len(text) and (used := used + _cells(text[kept])) <= width:
        kept += 1
    return text[:kept] + "…"


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _cells(text))
