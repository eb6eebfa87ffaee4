"""What is wrong with saved objects, as far as their structure tells: the rules Kibana 8.9 and newer imports by.

No Kibana can be had where the tests run, so this stands in for its import and for Lens's reading of what was imported.
So that it is no mirror of our own mistakes it was tried on objects that people exported from real Kibanas: the 51 Lens
objects (all four kinds, version 8.9.0) and 10 dashboards of SOF-ELK's branch class/for509/v20250624, the 57 and 11 of
its class/for572/v20260706, and the 10 dashboards of version 8.9.0 in class/for509/v20240514
(github.com/philhagen/sof-elk, folder kibana): with their own versions allowed and what lies outside these folders
named as ``elsewhere``, it finds nothing in them but what `faults_of_exports` of the test tells.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any

VERSIONS: Mapping[str, frozenset[str]] = {
    "index-pattern": frozenset({"8.0.0"}),
    "lens": frozenset({"8.9.0"}),
    "dashboard": frozenset({"8.9.0"}),
}
GRID_WIDTH = 48
TOP_LEVEL = {"id", "type", "attributes", "references", "coreMigrationVersion", "typeMigrationVersion", "managed"}
WRITTEN_BY_KIBANA = {"namespaces", "updated_at", "created_at", "created_by", "updated_by", "version", "originId"}
DATA_VIEW_JSON = ("fields", "fieldFormatMap", "sourceFilters", "runtimeFieldMap", "fieldAttrs", "typeMeta")
DATA_VIEW = {"title", "name", "timeFieldName", "allowNoIndex", "allowHidden", "type", "intervalName", *DATA_VIEW_JSON}
LENS = {"title", "description", "visualizationType", "state", "version"}
STATE = {"datasourceStates", "visualization", "query", "filters", "internalReferences", "adHocDataViews"}
DASHBOARD_REQUIRED = {"title", "kibanaSavedObjectMeta", "timeRestore", "panelsJSON", "optionsJSON"}
DASHBOARD = DASHBOARD_REQUIRED | {
    *("description", "timeFrom", "timeTo", "refreshInterval", "controlGroupInput", "hits", "version")
}
PANEL = {"type", "panelIndex", "gridData", "version", "embeddableConfig", "panelRefName", "title"}
COLUMN_REQUIRED = {"label", "dataType", "operationType", "isBucketed"}
DATA_TYPES = {
    "string",
    "number",
    "date",
    "boolean",
    "ip",
    "document",
    "histogram",
    "geo_point",
    "murmur3",
    "unsupported",
}
SCALES = {"ordinal", "interval", "ratio"}
# Operations, and whether they make buckets.
BUCKETED = {"terms": True, "date_histogram": True, "range": True, "filters": True}
FIGURES = ("count", "unique_count", "average", "sum", "min", "max", "median", "percentile", "percentile_rank")
OPERATIONS = BUCKETED | dict.fromkeys((*FIGURES, "last_value", "standard_deviation"), False)
# Made of other columns, or of nothing; they name no field.
DERIVED = {
    "formula",
    "math",
    "static_value",
    "overall_sum",
    "cumulative_sum",
    "moving_average",
    "differences",
    "filters",
}
RECORDS = "___records___"
SERIES = {
    *("line", "area", "area_stacked", "area_percentage_stacked", "bar", "bar_stacked", "bar_percentage_stacked"),
    *("bar_horizontal", "bar_horizontal_stacked", "bar_horizontal_percentage_stacked"),
}
SHAPES = {"pie", "donut", "treemap", "mosaic", "waffle"}


def faults(
    objects: Iterable[Mapping[str, Any]],
    *,
    versions: Mapping[str, frozenset[str]] = VERSIONS,
    elsewhere: Iterable[str] = (),
    fields: Mapping[str, Mapping[str, str]] | None = None,
) -> list[str]:
    """Every fault in what would be imported together.

    ``elsewhere`` are the ids of objects that are there already; ``fields`` are the types of the fields of each data
    view, by its id and their names.
    """
    objects = list(objects)
    known = {one.get("id") for one in objects} | set(elsewhere)
    found = [
        f"{id_}: there more than once"
        for id_, number in Counter(one.get("id") for one in objects).items()
        if number > 1
    ]
    for one in objects:
        where = f"{one.get('type')} {one.get('id')}"
        found += [f"{where}: {fault}" for fault in _of_object(one, known, versions, fields or {})]
    return found


def _of_object(one: Mapping[str, Any], known: set[Any], versions: Any, fields: Any) -> Iterator[str]:
    yield from _keys(one, TOP_LEVEL, TOP_LEVEL | WRITTEN_BY_KIBANA)
    if not one.keys() >= TOP_LEVEL:
        return
    if one["type"] not in versions:
        yield "this type is none of ours"
        return
    yield from _of_envelope(one, versions[one["type"]])
    if not _are_references(one["references"]):
        yield "references are not a list of id, name and type"
        return
    yield from _of_references(one["references"], known)
    attributes, references = one["attributes"], one["references"]
    match one["type"]:
        case "index-pattern":
            yield from _of_data_view(attributes)
        case "lens":
            yield from _of_lens(attributes, references, fields)
        case "dashboard":
            yield from _of_dashboard(attributes, references, fields)


def _of_envelope(one: Mapping[str, Any], versions: frozenset[str]) -> Iterator[str]:
    if one["typeMigrationVersion"] not in versions:
        yield f"version {one['typeMigrationVersion']} of its shape"
    if one["coreMigrationVersion"] != "8.8.0":
        yield f"core version {one['coreMigrationVersion']}"
    if not isinstance(one["id"], str) or not one["id"]:
        yield "its id is no text"
    if one["managed"] is not False:
        yield "managed objects cannot be edited"
    if not isinstance(one["attributes"].get("title"), str) or not one["attributes"]["title"]:
        yield "no title"


def _keys(found: Mapping[str, Any], required: Iterable[str], allowed: Iterable[str]) -> Iterator[str]:
    for name in sorted(set(required) - found.keys()):
        yield f"{name} is missing"
    for name in sorted(found.keys() - set(allowed)):
        yield f"{name} is unknown"


def _are_references(references: Any) -> bool:
    return isinstance(references, list) and all(set(one) == {"id", "name", "type"} for one in references)


def _of_references(references: list[dict[str, str]], known: set[Any]) -> Iterator[str]:
    for name, number in Counter(one["name"] for one in references).items():
        if number > 1:
            yield f"two references are called {name}"
    for one in references:
        if one["id"] not in known and one["type"] != "tag":
            yield f"refers to {one['type']} {one['id']}, which is not there"


def _of_data_view(attributes: Mapping[str, Any]) -> Iterator[str]:
    yield from _keys(attributes, {"title"}, DATA_VIEW)
    for name in DATA_VIEW_JSON:
        if name in attributes:
            yield from _of_json(attributes, name, list if name in ("fields", "sourceFilters") else dict)
    if not isinstance(attributes.get("allowNoIndex", True), bool):
        yield "allowNoIndex is no boolean"
    if not attributes.get("timeFieldName", "x"):
        yield "an empty timeFieldName"


def _of_json(attributes: Mapping[str, Any], name: str, kind: type) -> Iterator[str]:
    try:
        value = json.loads(attributes[name])
    except (TypeError, ValueError):
        yield f"{name} is no JSON text"
    else:
        if not isinstance(value, kind):
            yield f"{name} holds no {kind.__name__}"


def _of_lens(attributes: Mapping[str, Any], references: list[dict[str, str]], fields: Any) -> Iterator[str]:
    by_value = {"type", "references", "savedObjectId"}
    yield from _keys(attributes, {"title", "visualizationType", "state"}, LENS | by_value)
    state = attributes.get("state")
    if not isinstance(state, dict) or not STATE - {"internalReferences", "adHocDataViews"} <= state.keys():
        yield "its state is incomplete"
        return
    yield from _keys(state, STATE - {"internalReferences", "adHocDataViews"}, STATE)
    yield from _of_query(state)
    sources = state["datasourceStates"]
    yield from _keys(sources, {"formBased"}, {"formBased", "textBased", "indexpattern"})
    layers = sources.get("formBased", {}).get("layers", {})
    if not layers:
        yield "no layer"
    views = {one["name"]: one["id"] for one in references}
    inside = {one["name"] for one in state.get("internalReferences", [])}
    for id_, layer in layers.items():
        name = f"indexpattern-datasource-layer-{id_}"
        if name not in views and name not in inside:
            yield f"no reference {name}"
        yield from (f"layer {id_}: {fault}" for fault in _of_layer(layer, fields.get(views.get(name), {})))
    yield from _of_drawing(attributes["visualizationType"], state["visualization"], layers)


def _of_query(state: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(state["query"], dict) or set(state["query"]) != {"query", "language"}:
        yield "its query is no query and language"
    elif state["query"]["language"] not in ("kuery", "lucene"):
        yield f"no query language {state['query']['language']}"
    if not isinstance(state["filters"], list):
        yield "its filters are no list"
        return
    for one in state["filters"]:
        if not {"meta", "query"} <= one.keys() or "disabled" not in one["meta"]:
            yield "a filter without meta, query or disabled"


def _of_layer(layer: Mapping[str, Any], fields: Mapping[str, str]) -> Iterator[str]:
    yield from _keys(layer, {"columns", "columnOrder"}, {
        *("columns", "columnOrder", "incompleteColumns", "ignoreGlobalFilters", "sampling", "linkToLayers"),
        *("indexPatternId",),
    })  # fmt: skip
    columns, order = layer.get("columns", {}), layer.get("columnOrder", [])
    if not columns:
        yield "no column"
    if sorted(columns) != sorted(order):
        yield "columnOrder is not the columns"
        return
    if layer.get("incompleteColumns"):
        yield "a column is incomplete"
    kinds = [bool(columns[id_].get("isBucketed")) for id_ in order]
    if kinds != sorted(kinds, reverse=True):
        yield "a bucketed column stands behind one that is not"
    for id_, column in columns.items():
        yield from (f"column {id_}: {fault}" for fault in _of_column(column, columns, fields))


def _of_column(column: Mapping[str, Any], columns: Mapping[str, Any], fields: Mapping[str, str]) -> Iterator[str]:
    missing = sorted(COLUMN_REQUIRED - column.keys())
    if missing:
        yield f"{', '.join(missing)} missing"
        return
    operation = column["operationType"]
    if operation not in OPERATIONS.keys() | DERIVED:
        yield f"no operation {operation}"
        return
    if column["dataType"] not in DATA_TYPES:
        yield f"no type {column['dataType']}"
    if column.get("scale", "ratio") not in SCALES:
        yield f"no scale {column['scale']}"
    if OPERATIONS.get(operation, column["isBucketed"]) is not column["isBucketed"]:
        yield f"{operation} is {'' if OPERATIONS[operation] else 'not '}bucketed"
    if operation in DERIVED:
        return
    if not column.get("sourceField"):
        yield "no sourceField"
    elif (column["sourceField"] == RECORDS) and operation != "count":
        yield f"{operation} of records"
    elif fields:
        yield from _of_field(column, fields)
    yield from _of_parameters(operation, column.get("params", {}), columns, fields)


def _of_field(column: Mapping[str, Any], fields: Mapping[str, str]) -> Iterator[str]:
    """Whether the field is there, and of a type that the operation takes."""
    source, operation = column["sourceField"], column["operationType"]
    if source == RECORDS:
        return
    kind = fields.get(source)
    if kind is None:
        yield f"no field {source}"
    elif kind == "text":
        yield f"{source} is text, of which no values can be taken"
    elif operation == "date_histogram" and kind != "date":
        yield f"{source} is no date"
    elif operation in ("average", "sum", "median") and kind not in ("float", "double", "integer", "long"):
        yield f"{source} is no number"
    elif operation in ("min", "max", "last_value", "terms"):
        shown = {"keyword": "string", "date": "date", "boolean": "boolean", "ip": "ip"}.get(kind, "number")
        if column["dataType"] != shown:
            yield f"{source} is {shown}, not {column['dataType']}"


def _of_parameters(operation: str, params: Mapping[str, Any], columns: Any, fields: Any) -> Iterator[str]:
    if operation == "terms":
        yield from _of_terms(params, columns)
    elif operation == "date_histogram" and not params.get("interval"):
        yield "no interval"
    elif operation == "last_value":
        if not params.get("sortField"):
            yield "no sortField"
        elif fields and fields.get(params["sortField"]) != "date":
            yield f"sorted by {params['sortField']}, which is no date"


def _of_terms(params: Mapping[str, Any], columns: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(params.get("size"), int) or not 1 <= params["size"] <= 1000:
        yield "no size from 1 to 1000"
    if params.get("orderDirection") not in ("asc", "desc"):
        yield "no orderDirection"
    order = params.get("orderBy", {})
    if order.get("type") not in ("column", "alphabetical", "rare", "custom", "significant"):
        yield "no orderBy"
    elif order["type"] == "column":
        by = columns.get(order.get("columnId"))
        if by is None:
            yield f"ordered by {order.get('columnId')}, which is no column"
        elif by.get("isBucketed") or by.get("operationType") == "last_value":
            yield f"cannot be ordered by {order['columnId']}"


def _of_drawing(kind: str, drawn: Mapping[str, Any], layers: Mapping[str, Any]) -> Iterator[str]:
    match kind:
        case "lnsPie":
            yield from _of_pie(drawn, layers)
        case "lnsXY":
            yield from _of_xy(drawn, layers)
        case "lnsMetric":
            yield from _of_one_layer(drawn, layers, [drawn.get("metricAccessor")])
        case "lnsDatatable":
            yield from _of_one_layer(drawn, layers, [one.get("columnId") for one in drawn.get("columns", ())] or [None])
        case _:
            yield f"no visualisation {kind}"


def _of_pie(drawn: Mapping[str, Any], layers: Mapping[str, Any]) -> Iterator[str]:
    if drawn.get("shape") not in SHAPES:
        yield f"no shape {drawn.get('shape')}"
    if not drawn.get("layers"):
        yield "nothing is drawn"
    for layer in drawn.get("layers", ()):
        for name in ("numberDisplay", "categoryDisplay", "legendDisplay", "primaryGroups", "metrics"):
            if not layer.get(name):
                yield f"{name} is missing"
        groups = [*layer.get("primaryGroups", ()), *layer.get("secondaryGroups", ())]
        yield from _of_one_layer(layer, layers, [*groups, *layer.get("metrics", ())], buckets=groups)


def _of_xy(drawn: Mapping[str, Any], layers: Mapping[str, Any]) -> Iterator[str]:
    for name in ("legend", "preferredSeriesType", "valueLabels", "layers"):
        if not drawn.get(name):
            yield f"{name} is missing"
    for layer in drawn.get("layers", ()):
        if layer.get("layerType") != "data":
            continue
        if layer.get("seriesType") not in SERIES:
            yield f"no series {layer.get('seriesType')}"
        splits = layer.get("splitAccessors", [layer["splitAccessor"]] if "splitAccessor" in layer else [])
        groups = [*splits, *([layer["xAccessor"]] if "xAccessor" in layer else [])]
        yield from _of_one_layer(layer, layers, [*groups, *(layer.get("accessors") or [None])], buckets=groups)


def _of_one_layer(
    drawn: Mapping[str, Any], layers: Mapping[str, Any], accessors: Iterable[Any], buckets: Iterable[Any] = ()
) -> Iterator[str]:
    if drawn.get("layerType") != "data":
        yield f"no layer of type {drawn.get('layerType')}"
    layer = layers.get(drawn.get("layerId"))
    if layer is None:
        yield f"draws layer {drawn.get('layerId')}, which is not there"
        return
    columns = layer.get("columns", {})
    for id_ in accessors:
        if id_ not in columns:
            yield f"draws column {id_}, which is not there"
        elif bool(columns[id_].get("isBucketed")) != (id_ in buckets) and buckets:
            yield f"draws column {id_} as what it is not"


def _of_dashboard(attributes: Mapping[str, Any], references: list[dict[str, str]], fields: Any) -> Iterator[str]:
    yield from _keys(attributes, DASHBOARD_REQUIRED, DASHBOARD)
    for name, kind in (("panelsJSON", list), ("optionsJSON", dict)):
        yield from _of_json(attributes, name, kind) if name in attributes else ()
    meta = attributes.get("kibanaSavedObjectMeta", {})
    yield from _of_json(meta, "searchSourceJSON", dict) if "searchSourceJSON" in meta else ["no searchSourceJSON"]
    if attributes.get("timeRestore") and not (attributes.get("timeFrom") and attributes.get("timeTo")):
        yield "a time to restore that is not there"
    if not attributes.get("timeRestore") and attributes.get("timeFrom"):
        yield "a time that is not restored"
    interval = attributes.get("refreshInterval", {"pause": True, "value": 0})
    if not isinstance(interval, dict) or not {"pause", "value"} <= interval.keys():
        yield "refreshInterval is no pause and value"
    try:
        panels = json.loads(attributes["panelsJSON"])
    except (KeyError, TypeError, ValueError):
        return
    if isinstance(panels, list):
        yield from _of_panels(panels, references, fields)


def _of_panels(panels: list[Any], references: list[dict[str, str]], fields: Any) -> Iterator[str]:
    if not panels:
        yield "no panel"
    for name, number in Counter(one.get("panelIndex") for one in panels).items():
        if number > 1:
            yield f"two panels {name}"
    used = set()
    for panel in panels:
        where = f"panel {panel.get('panelIndex')}"
        yield from (f"{where}: {fault}" for fault in _of_panel(panel, references, fields))
        used |= {one["name"] for one in references if one["name"].startswith(f"{panel.get('panelIndex')}:")}
    unused = {one["name"] for one in references if one["type"] != "tag"} - used
    yield from (f"no panel has the reference {name}" for name in sorted(unused) if name.split(":")[0] and ":" in name)
    boxes = [(panel["panelIndex"], panel["gridData"]) for panel in panels if _is_box(panel.get("gridData"))]
    for (one, first), (other, second) in combinations(boxes, 2):
        if _overlap(first, second):
            yield f"panels {one} and {other} overlap"


def _of_panel(panel: Mapping[str, Any], references: list[dict[str, str]], fields: Any) -> Iterator[str]:
    yield from _keys(panel, {"type", "panelIndex", "gridData", "embeddableConfig"}, PANEL)
    box = panel.get("gridData")
    if not _is_box(box):
        yield "no place"
    else:
        if box.get("i") != panel.get("panelIndex"):
            yield "another index in its place"
        if box["x"] < 0 or box["y"] < 0 or box["w"] < 1 or box["h"] < 1 or box["x"] + box["w"] > GRID_WIDTH:
            yield "outside the grid"
    name, index = panel.get("panelRefName"), panel.get("panelIndex")
    inner = panel.get("embeddableConfig", {}).get("attributes")
    if name is not None:
        kinds = {one["type"] for one in references if one["name"] == f"{index}:{name}"}
        if not kinds:
            yield f"no reference {index}:{name}"
        elif kinds != {panel.get("type")}:
            yield f"its reference is no {panel.get('type')}"
    elif inner is None and panel.get("type") == "lens":
        yield "neither by reference nor by value"
    if panel.get("type") == "lens" and isinstance(inner, dict) and name is None:
        own = [one | {"name": one["name"].removeprefix(f"{index}:")} for one in references]
        yield from _of_lens(inner, [*own, *inner.get("references", ())], fields)


def _is_box(box: Any) -> bool:
    return isinstance(box, dict) and all(isinstance(box.get(name), int) for name in "xywh")


def _overlap(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    return all(
        one[at] < other[at] + other[long] and other[at] < one[at] + one[long] for at, long in (("x", "w"), ("y", "h"))
    )
