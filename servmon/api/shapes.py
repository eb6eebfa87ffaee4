"""How answers look in JSON: lists in pages, RFC 3339 UTC times, enum values as they are named."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

from aiohttp import web

# pydantic reads no other TypedDict before Python 3.12.
from typing_extensions import TypedDict

from servmon.clock import rfc3339
from servmon.tasks import in_turns

T = TypeVar("T")
S = TypeVar("S")


class Page(TypedDict, Generic[T]):
    """One part of a list; ``next_cursor`` is null in the last one."""

    items: list[T]
    next_cursor: str | None


class Written(str):
    """An entry of a list that is JSON text already."""

    __slots__ = ()


def written(value: Any) -> Written:
    """``value`` as such an entry."""
    return Written(_dumps(value))


async def json_text(value: Any) -> str:
    """``value`` as JSON; the entries of a long list one by one, so that no check waits for a thousand of them."""
    match value:
        case {"items": [_, *_] as items, **rest} if rest:
            texts = [one if isinstance(one, Written) else _dumps(one) async for one in in_turns(items)]
            return f'{{"items": [{", ".join(texts)}], {_dumps(rest)[1:]}'
    return _dumps(value)


async def json_answer(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """``value`` as a JSON response."""
    return web.json_response(text=await json_text(value), status=status, headers=headers)


async def page(rows: Sequence[T], limit: int, *, shape: Callable[[T], S], cursor: Callable[[T], str]) -> Page[S]:
    """A list of at most ``limit`` rows, in turns; one row more tells that there is a next page."""
    shown = rows[:limit]
    more = len(rows) > limit
    return {"items": [shape(row) async for row in in_turns(shown)], "next_cursor": cursor(shown[-1]) if more else None}


def plain(value: Any) -> Any:
    """``value`` in JSON's own types."""
    return json.loads(_dumps(value))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form here")


# NaN is no JSON: better a failed answer than one no client can read. No answer holds itself, so nobody looks for that.
_dumps = json.JSONEncoder(default=_plain, allow_nan=False, ensure_ascii=False, check_circular=False).encode
