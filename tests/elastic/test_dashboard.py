"""The dashboard as it is shipped: made from its source, and whole as far as its structure tells."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from importlib import resources
from typing import Any

import pytest

from servmon.elastic.kibana.dashboard import (
    DASHBOARD,
    FILE,
    MAINTENANCE_INDEX,
    OUTAGES,
    STATUSES,
    WINDOWS,
    generate,
    shipped,
    with_links,
)
from servmon.elastic.mapping import INDEX_TEMPLATES, Kind, component_template, index_templates
from tests.elastic.saved_object_faults import faults

SEED = [
    ("Service Status Overview", "lnsPie"),
    ("Active Outages", "lnsMetric"),
    ("Service Response Time", "lnsXY"),
    ("Service Status History", "lnsXY"),
    ("Recent Outages", "lnsDatatable"),
    ("Outages by Service", "lnsPie"),
    ("Outages by Severity", "lnsXY"),
    ("Maintenance Windows", "lnsDatatable"),
]


def types_of(kind: Kind) -> dict[str, str]:
    """The type of each field that our templates give an index of this kind, fields within fields by their path."""
    template = index_templates()[INDEX_TEMPLATES[kind]]["template"]
    properties = component_template()["template"]["mappings"]["properties"] | template["mappings"]["properties"]
    found = {}
    for name, field in properties.items():
        found[name] = field.get("type", "object")
        inner = field.get("fields", {}) | field.get("properties", {})
        found |= {f"{name}.{part}": one["type"] for part, one in inner.items()}
    return found


FIELDS = {
    STATUSES.id: types_of(Kind.STATUS),
    OUTAGES.id: types_of(Kind.OUTAGE),
    WINDOWS.id: types_of(Kind.MAINTENANCE),
}


def test_the_file_is_what_its_source_makes():
    text = resources.files("servmon.elastic.kibana").joinpath(FILE).read_text(encoding="utf-8")
    assert text == generate(), "run `make dashboards`"


def test_the_seeds_eight_are_there_and_on_the_dashboard():
    lenses = [one for one in shipped() if one["type"] == "lens"]
    assert [(one["attributes"]["title"], one["attributes"]["visualizationType"]) for one in lenses] == SEED
    dashboard = next(one for one in shipped() if one["id"] == DASHBOARD)
    assert {one["id"] for one in dashboard["references"]} == {one["id"] for one in lenses}


def test_nothing_is_wrong_with_it():
    assert faults(shipped(), fields=FIELDS) == []
    assert faults(with_links(shipped(), "https://servmon.isp.example"), fields=FIELDS) == []


@pytest.mark.parametrize(
    ("view", "kind"), [(STATUSES, Kind.STATUS), (OUTAGES, Kind.OUTAGE), (WINDOWS, Kind.MAINTENANCE)]
)
def test_each_data_view_looks_at_our_indices_by_a_date(view, kind):
    [pattern] = index_templates()[INDEX_TEMPLATES[kind]]["index_patterns"]
    assert view.indices == pattern
    assert view.time_field is None or types_of(kind)[view.time_field] == "date"
    assert (view.time_field is None) == (view.indices == MAINTENANCE_INDEX)


# What is planted into the objects, by their ids, and what is said of it.
Plant = Callable[[dict[str, Any]], Any]
PIE, METRIC = "servmon-status-overview", "servmon-active-outages"
LINES, TABLE = "servmon-response-time", "servmon-recent-outages"


def layer(objects: dict[str, Any], id_: str) -> dict[str, Any]:
    return objects[id_]["attributes"]["state"]["datasourceStates"]["formBased"]["layers"]["servmon"]


def drawn(objects: dict[str, Any], id_: str) -> dict[str, Any]:
    return objects[id_]["attributes"]["state"]["visualization"]


def board(objects: dict[str, Any]) -> dict[str, Any]:
    return objects[DASHBOARD]["attributes"]


def change_panel(objects: dict[str, Any], change: Callable[[list[dict[str, Any]]], Any]) -> None:
    panels = json.loads(board(objects)["panelsJSON"])
    change(panels)
    board(objects)["panelsJSON"] = json.dumps(panels)


OBJECT_FAULTS: dict[str, tuple[Plant, str]] = {
    "no version": (lambda o: o[PIE].pop("typeMigrationVersion"), "typeMigrationVersion is missing"),
    "a newer version": (lambda o: o[PIE].update(typeMigrationVersion="10.1.0"), "version 10.1.0"),
    "no core version": (lambda o: o[PIE].update(coreMigrationVersion="9.9.9"), "core version"),
    "managed": (lambda o: o[PIE].update(managed=True), "managed"),
    "an unknown key": (lambda o: o[PIE].update(migrationVersion={}), "migrationVersion is unknown"),
    "another type": (lambda o: o[PIE].update(type="visualization"), "none of ours"),
    "an id twice": (lambda o: o[PIE].update(id=METRIC), "more than once"),
    "no title": (lambda o: o[PIE]["attributes"].update(title=""), "no title"),
    "no references": (lambda o: o[PIE].update(references=[]), "no reference indexpattern-datasource-layer-servmon"),
    "a dead reference": (lambda o: o[PIE]["references"][0].update(id="x"), "refers to index-pattern x"),
    "a reference without a name": (lambda o: o[PIE]["references"][0].pop("name"), "references are not a list"),
    "a reference twice": (lambda o: o[DASHBOARD]["references"][1].update(name="p1:panel_p1"), "two references"),
    "fields that are no JSON": (lambda o: o[STATUSES.id]["attributes"].update(fields=[]), "fields is no JSON text"),
    "an empty time field": (lambda o: o[OUTAGES.id]["attributes"].update(timeFieldName=""), "empty timeFieldName"),
    "an index that has to be there": (lambda o: o[WINDOWS.id]["attributes"].update(allowNoIndex="no"), "allowNoIndex"),
    "an unknown data view key": (lambda o: o[STATUSES.id]["attributes"].update(index="x"), "index is unknown"),
}
LENS_FAULTS: dict[str, tuple[Plant, str]] = {
    "no state": (lambda o: o[PIE]["attributes"].pop("state"), "its state is incomplete"),
    "no query": (lambda o: o[PIE]["attributes"]["state"].update(query="status:UP"), "no query and language"),
    "another language": (lambda o: o[PIE]["attributes"]["state"]["query"].update(language="sql"), "language sql"),
    "a filter without meta": (
        lambda o: o[METRIC]["attributes"]["state"]["filters"].append({"query": {}, "meta": {}}),
        "filter without",
    ),
    "an old data source": (
        lambda o: o[PIE]["attributes"]["state"]["datasourceStates"].pop("formBased"),
        "formBased is missing",
    ),
    "no column order": (lambda o: layer(o, PIE).pop("columnOrder"), "columnOrder is missing"),
    "an order without a column": (lambda o: layer(o, PIE)["columnOrder"].pop(), "columnOrder is not the columns"),
    "an order turned round": (lambda o: layer(o, LINES)["columnOrder"].reverse(), "stands behind"),
    "an incomplete column": (lambda o: layer(o, PIE).update(incompleteColumns={"x": {}}), "incomplete"),
    "a column without a type": (lambda o: layer(o, PIE)["columns"]["checks"].pop("dataType"), "dataType missing"),
    "an unknown operation": (
        lambda o: layer(o, PIE)["columns"]["checks"].update(operationType="avg"),
        "no operation avg",
    ),
    "an unknown scale": (lambda o: layer(o, PIE)["columns"]["checks"].update(scale="linear"), "no scale"),
    "an unbucketed bucket": (
        lambda o: layer(o, PIE)["columns"]["status"].update(isBucketed=False),
        "terms is bucketed",
    ),
    "a column without a field": (lambda o: layer(o, LINES)["columns"]["time"].pop("sourceField"), "no sourceField"),
    "an average of records": (
        lambda o: layer(o, LINES)["columns"]["response-time"].update(sourceField="___records___"),
        "of records",
    ),
    "a field that is not there": (
        lambda o: layer(o, PIE)["columns"]["status"].update(sourceField="state"),
        "no field state",
    ),
    "values of text": (
        lambda o: layer(o, TABLE)["columns"]["description"].update(sourceField="description"),
        "is text",
    ),
    "an average of words": (
        lambda o: layer(o, LINES)["columns"]["response-time"].update(sourceField="status"),
        "no number",
    ),
    "a histogram of words": (lambda o: layer(o, LINES)["columns"]["time"].update(sourceField="status"), "is no date"),
    "a date as text": (
        lambda o: layer(o, TABLE)["columns"]["started"].update(dataType="string"),
        "is date, not string",
    ),
    "a histogram without interval": (lambda o: layer(o, LINES)["columns"]["time"].update(params={}), "no interval"),
    "terms without a size": (lambda o: layer(o, PIE)["columns"]["status"]["params"].pop("size"), "no size"),
    "terms without an order": (lambda o: layer(o, PIE)["columns"]["status"]["params"].pop("orderBy"), "no orderBy"),
    "terms without a direction": (
        lambda o: layer(o, PIE)["columns"]["status"]["params"].pop("orderDirection"),
        "no orderDirection",
    ),
    "ordered by no column": (
        lambda o: layer(o, PIE)["columns"]["status"]["params"]["orderBy"].update(columnId="x"),
        "no column",
    ),
    "ordered by a last value": (
        lambda o: layer(o, TABLE)["columns"]["outage"]["params"]["orderBy"].update(columnId="severity"),
        "cannot be ordered",
    ),
    "a last value by nothing": (
        lambda o: layer(o, TABLE)["columns"]["severity"]["params"].pop("sortField"),
        "no sortField",
    ),
    "a last value by a word": (
        lambda o: layer(o, TABLE)["columns"]["severity"]["params"].update(sortField="severity"),
        "no date",
    ),
    "an unknown visualisation": (
        lambda o: o[PIE]["attributes"].update(visualizationType="lnsChart"),
        "no visualisation lnsChart",
    ),
    "an unknown shape": (lambda o: drawn(o, PIE).update(shape="cake"), "no shape cake"),
    "a pie without a metric": (lambda o: drawn(o, PIE)["layers"][0].update(metrics=[]), "metrics is missing"),
    "a pie without its legend": (lambda o: drawn(o, PIE)["layers"][0].pop("legendDisplay"), "legendDisplay is missing"),
    "a pie sliced by a figure": (
        lambda o: drawn(o, PIE)["layers"][0].update(primaryGroups=["checks"]),
        "as what it is not",
    ),
    "an unknown series": (lambda o: drawn(o, LINES)["layers"][0].update(seriesType="curve"), "no series curve"),
    "lines of no column": (lambda o: drawn(o, LINES)["layers"][0].update(accessors=["x"]), "draws column x"),
    "lines of nothing": (lambda o: drawn(o, LINES)["layers"][0].update(accessors=[]), "draws column None"),
    "lines without a legend": (lambda o: drawn(o, LINES).pop("legend"), "legend is missing"),
    "a metric of no column": (lambda o: drawn(o, METRIC).update(metricAccessor="x"), "draws column x"),
    "a metric of no layer": (lambda o: drawn(o, METRIC).update(layerId="x"), "draws layer x"),
    "a table of no column": (lambda o: drawn(o, TABLE)["columns"].append({"columnId": "x"}), "draws column x"),
    "a table without columns": (lambda o: drawn(o, TABLE).pop("columns"), "draws column None"),
}
DASHBOARD_FAULTS: dict[str, tuple[Plant, str]] = {
    "an unknown attribute": (lambda o: board(o).update(filters=[]), "filters is unknown"),
    "panels that are no JSON text": (lambda o: board(o).update(panelsJSON=[]), "panelsJSON is no JSON text"),
    "options that are no object": (lambda o: board(o).update(optionsJSON="[]"), "optionsJSON holds no dict"),
    "no search source": (lambda o: board(o)["kibanaSavedObjectMeta"].clear(), "no searchSourceJSON"),
    "a time that is not restored": (lambda o: board(o).update(timeRestore=False), "not restored"),
    "no end of its time": (lambda o: board(o).pop("timeTo"), "a time to restore that is not there"),
    "a refresh without a value": (lambda o: board(o).update(refreshInterval={"pause": False}), "refreshInterval"),
    "no panel": (lambda o: change_panel(o, list.clear), "no panel"),
    "a panel twice": (lambda o: change_panel(o, lambda p: p.append(p[0])), "two panels p1"),
    "overlapping panels": (lambda o: change_panel(o, lambda p: p[1]["gridData"].update(x=11)), "p1 and p2 overlap"),
    "a panel beyond the grid": (lambda o: change_panel(o, lambda p: p[2]["gridData"].update(w=29)), "outside the grid"),
    "a panel without height": (lambda o: change_panel(o, lambda p: p[2]["gridData"].update(h=0)), "outside the grid"),
    "another's place": (lambda o: change_panel(o, lambda p: p[0]["gridData"].update(i="p2")), "another index"),
    "a panel without a place": (lambda o: change_panel(o, lambda p: p[0].pop("gridData")), "no place"),
    "a panel of nothing": (lambda o: change_panel(o, lambda p: p[0].pop("panelRefName")), "neither by reference"),
    "a panel referring to x": (lambda o: change_panel(o, lambda p: p[0].update(panelRefName="x")), "no reference p1:x"),
    "a panel of another type": (lambda o: change_panel(o, lambda p: p[0].update(type="map")), "is no map"),
    "a reference without a panel": (lambda o: change_panel(o, list.pop), "no panel has the reference p8:panel_p8"),
}  # fmt: skip
ALL_FAULTS = OBJECT_FAULTS | LENS_FAULTS | DASHBOARD_FAULTS


def test_the_planted_faults_are_many():
    assert len(ALL_FAULTS) >= 70


@pytest.mark.parametrize("planted", ALL_FAULTS)
def test_a_planted_fault_is_found(planted):
    change, sentence = ALL_FAULTS[planted]
    objects = {one["id"]: one for one in copy.deepcopy(shipped())}
    change(objects)
    assert any(sentence in fault for fault in faults(objects.values(), fields=FIELDS)), faults(
        objects.values(), fields=FIELDS
    )
