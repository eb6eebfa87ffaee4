"""Saved objects as Kibana 8.9 and newer imports them: one JSON object a line, each with the version of its shape.

A newer Kibana migrates what carries an older version; one without a version it refuses.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

SavedObject = dict[str, Any]

OLDEST_KIBANA = (8, 9)
CORE_VERSION = "8.8.0"
# The version in which each type's shape last changed, as of Kibana 8.9.
TYPE_VERSIONS: Mapping[str, str] = {"index-pattern": "8.0.0", "lens": "8.9.0", "dashboard": "8.9.0"}


class DataView(NamedTuple):
    """Indices that are looked at together. Without a ``time_field`` the dashboard's time range does not apply."""

    id: str
    name: str
    indices: str
    time_field: str | None = None


def saved_object(kind: str, id_: str, attributes: dict[str, Any], references: Iterable[dict[str, str]]) -> SavedObject:
    """One saved object with its versions."""
    return {
        "id": id_,
        "type": kind,
        "attributes": attributes,
        "references": list(references),
        "coreMigrationVersion": CORE_VERSION,
        "typeMigrationVersion": TYPE_VERSIONS[kind],
        "managed": False,
    }


def reference(kind: str, id_: str, name: str) -> dict[str, str]:
    """What makes Kibana import, export and copy two objects together."""
    return {"type": kind, "id": id_, "name": name}


def data_view(view: DataView) -> SavedObject:
    """The data view as an object; Kibana reads the fields from the indices themselves."""
    attributes: dict[str, Any] = {"title": view.indices, "name": view.name, "fields": "[]", "fieldFormatMap": "{}"}
    attributes |= {"sourceFilters": "[]", "runtimeFieldMap": "{}", "fieldAttrs": "{}", "typeMeta": "{}"}
    # Before the first window there is no index of windows, which is no error.
    attributes["allowNoIndex"] = True
    if view.time_field:
        attributes["timeFieldName"] = view.time_field
    return saved_object("index-pattern", view.id, attributes, ())


def packed(value: Any) -> str:
    """``value`` as JSON without blanks: some attributes are JSON texts inside JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def as_ndjson(objects: Iterable[SavedObject]) -> str:
    """The objects as a file that Kibana imports."""
    return "".join(f"{json.dumps(one, sort_keys=True, ensure_ascii=False)}\n" for one in objects)


def from_ndjson(text: str) -> list[SavedObject]:
    """The objects in such a file."""
    return [json.loads(line) for line in text.splitlines() if line.strip()]
