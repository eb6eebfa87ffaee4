"""Values of the model as JSON on the local disk, and the reverse."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import orjson
from pydantic import TypeAdapter

from servmon.store import rows

T = TypeVar("T")
# For what orjson refuses: half surrogate pairs, numbers of more than 64 bits.
_ENCODER = json.JSONEncoder(ensure_ascii=True, default=rows.plain)
_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def dump(value: Any) -> str:
    """A value of the model, or several in a list, as JSON that holds any text, half surrogate pairs too.

    What is no number (NaN, infinity) becomes ``null``, since no database takes it as JSON.
    """
    try:
        return orjson.dumps(value, rows.plain, orjson.OPT_PASSTHROUGH_DATACLASS).decode()
    except orjson.JSONEncodeError:
        return _ENCODER.encode(value)


def load(kind: type[T], body: str) -> T:
    """What ``dump`` was given, which is of this ``kind``."""
    return of_kind(kind, json.loads(body))


def of_kind(kind: type[T], value: Any) -> T:
    """A value of this ``kind`` out of what JSON makes of it."""
    adapter = _ADAPTERS.get(kind)
    if adapter is None:
        adapter = _ADAPTERS[kind] = TypeAdapter(kind)
    read: T = adapter.validate_python(value)
    return read
