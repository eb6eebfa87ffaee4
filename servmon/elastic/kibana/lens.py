"""Lens visualisations from few words: columns (what is asked of Elasticsearch) and how they are drawn.

A column is bucketed (rows are made for its values) or a figure of each bucket. Each visualisation has one layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from servmon.elastic.kibana.saved_objects import DataView, SavedObject, reference, saved_object

LAYER = "servmon"
Filter = dict[str, Any]
_OF_LAYER = {"layerId": LAYER, "layerType": "data"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a layer: its ``id`` there, what people read, and what Lens makes of it."""

    id: str
    label: str
    operation: str
    data_type: str
    scale: str
    source_field: str
    bucketed: bool = False
    params: dict[str, Any] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)

    def as_lens(self) -> dict[str, Any]:
        """The column as it stands in a saved object."""
        return {
            "label": self.label,
            "customLabel": True,
            "dataType": self.data_type,
            "operationType": self.operation,
            "isBucketed": self.bucketed,
            "scale": self.scale,
            "sourceField": self.source_field,
            "params": self.params,
            **self.more,
        }


def top_values(id_: str, label: str, source: str, *, by: str, size: int, other: bool = False) -> Column:
    """A bucket for each of the ``size`` values of a field that are largest in the column ``by``."""
    params = {
        "size": size,
        "orderBy": {"type": "column", "columnId": by},
        "orderDirection": "desc",
        "otherBucket": other,
        "missingBucket": False,
        "parentFormat": {"id": "terms"},
        "include": [],
        "exclude": [],
        "includeIsRegex": False,
        "excludeIsRegex": False,
    }
    return Column(id_, label, "terms", "string", "ordinal", source, bucketed=True, params=params)


def over_time(id_: str, label: str, source: str) -> Column:
    """A bucket for each stretch of time, as long as the range makes sensible."""
    params = {"interval": "auto", "includeEmptyRows": True, "dropPartials": False}
    return Column(id_, label, "date_histogram", "date", "interval", source, bucketed=True, params=params)


def count(id_: str, label: str) -> Column:
    """How many documents; none is 0 and not nothing."""
    return Column(id_, label, "count", "number", "ratio", "___records___", params={"emptyAsNull": False})


def average(id_: str, label: str, source: str, *, suffix: str) -> Column:
    """The mean of a number, shown without decimals."""
    shown = {"id": "number", "params": {"decimals": 0, "suffix": suffix}}
    return Column(id_, label, "average", "number", "ratio", source, params={"emptyAsNull": True, "format": shown})


def latest_moment(id_: str, label: str, source: str) -> Column:
    """The latest value of a date."""
    return Column(id_, label, "max", "date", "ratio", source, params={"emptyAsNull": True})


def last_value(id_: str, label: str, source: str, *, sort: str, data_type: str = "string") -> Column:
    """The field as it stands in the document that is newest by ``sort``; nothing where it stands in none."""
    present = {"filter": {"query": f'"{source}": *', "language": "kuery"}}
    params = {"sortField": sort, "showArrayValues": False}
    return Column(id_, label, "last_value", data_type, "ordinal", source, params=params, more=present)


def term(name: str, value: str | bool) -> Filter:
    """Only documents whose field holds exactly this."""
    meta = {
        "type": "phrase",
        "key": name,
        "params": {"query": value},
        "disabled": False,
        "negate": False,
        "alias": None,
    }
    return {"meta": meta, "query": {"match_phrase": {name: value}}, "$state": {"store": "appState"}}


@dataclass(frozen=True, slots=True)
class Visualisation:
    """What is looked at, under which name; each method draws it in its own way."""

    id: str
    title: str
    view: DataView
    where: tuple[Filter, ...] = ()

    def pie(self, slices: Column, size: Column) -> SavedObject:
        """Shares of a whole."""
        layer = {
            **_OF_LAYER,
            "primaryGroups": [slices.id],
            "metrics": [size.id],
            "numberDisplay": "percent",
            "categoryDisplay": "default",
            "legendDisplay": "show",
            "nestedLegend": False,
        }
        return self._lens("lnsPie", [slices, size], {"shape": "pie", "layers": [layer]})

    def metric(self, figure: Column) -> SavedObject:
        """One large number."""
        return self._lens("lnsMetric", [figure], {**_OF_LAYER, "metricAccessor": figure.id})

    def series(self, kind: str, *, x: Column, split: Column, y: Column) -> SavedObject:
        """Over ``x``, for each value of ``split``, a line, area_stacked or bar_stacked as ``kind`` says."""
        layer = {**_OF_LAYER, "seriesType": kind, "xAccessor": x.id, "splitAccessor": split.id, "accessors": [y.id]}
        drawn = {
            "legend": {"isVisible": True, "position": "right"},
            "preferredSeriesType": kind,
            "valueLabels": "hide",
            "fittingFunction": "None",
            "layers": [layer],
        }
        # Split first: the largest are those of the whole range, not of each stretch of it.
        return self._lens("lnsXY", [split, x, y], drawn)

    def table(self, row: Column, columns: Sequence[Column]) -> SavedObject:
        """A row for each value of ``row``, which comes last: it is an id."""
        shown = [{"columnId": one.id} for one in (*columns, row)]
        drawn = {**_OF_LAYER, "columns": shown, "paging": {"size": 10, "enabled": True}}
        return self._lens("lnsDatatable", [row, *columns], drawn)

    def _lens(self, kind: str, columns: Sequence[Column], drawn: dict[str, Any]) -> SavedObject:
        layer = {
            "columns": {column.id: column.as_lens() for column in columns},
            "columnOrder": [column.id for column in columns],
            "incompleteColumns": {},
            "ignoreGlobalFilters": False,
        }
        state = {
            "datasourceStates": {"formBased": {"layers": {LAYER: layer}}, "textBased": {"layers": {}}},
            "visualization": drawn,
            "query": {"query": "", "language": "kuery"},
            "filters": list(self.where),
            "internalReferences": [],
            "adHocDataViews": {},
        }
        attributes = {"title": self.title, "description": "", "visualizationType": kind, "state": state}
        shown = reference("index-pattern", self.view.id, f"indexpattern-datasource-layer-{LAYER}")
        return saved_object("lens", self.id, attributes, [shown])
