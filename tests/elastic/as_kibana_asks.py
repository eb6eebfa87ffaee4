"""Asks a cluster what Kibana would: the aggregation that Lens makes of a panel, the search that an alert rule makes.

Neither test server knows `top_metrics` (Lens's last value), so the newest document itself is asked for. noida moreover
gives no maximum of a date, no order by a figure, no `exists` of a field within a field, and no `bucket_selector`: there
the newest document, our own order, the field around it and our own comparison stand in. osmem is asked in full.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import aiohttp

from servmon.clock import rfc3339
from servmon.elastic.kibana.dashboard import DATA_VIEWS
from servmon.elastic.kibana.rules import Rule
from servmon.elastic.mapping import COMPONENT_TEMPLATE, Document, component_template, index_templates
from tests.fix_elastic import NOIDA, Cluster

VIEWS = {view.id: view for view in DATA_VIEWS}
# What Lens's "auto" makes of a day.
BUCKET = timedelta(minutes=30)
Row = dict[str, Any]


async def prepare(cluster: Cluster) -> None:
    """Put our templates into the cluster."""
    await _done(cluster, "PUT", f"/_component_template/{COMPONENT_TEMPLATE}", component_template())
    for name, template in index_templates().items():
        await _done(cluster, "PUT", f"/_index_template/{name}", template)


async def store(cluster: Cluster, documents: Iterable[Document]) -> None:
    """Put the documents where they belong, over what is there of the same id."""
    lines = [
        json.dumps(line)
        for one in documents
        for line in ({"index": {"_index": one.index, "_id": one.id}}, dict(one.source))
    ]
    if not lines:
        return
    async with (
        aiohttp.ClientSession(headers={"Content-Type": "application/x-ndjson"}) as session,
        session.post(f"{cluster.url}/_bulk?refresh=true", data="\n".join(lines) + "\n") as answer,
    ):
        found = await answer.json(content_type=None)
        assert (answer.status, found["errors"]) == (200, False), found


async def panel_rows(cluster: Cluster, lens: Mapping[str, Any], since: datetime, until: datetime) -> list[Row]:
    """The rows of a panel, by its columns, with the dashboard at this range."""
    [view_id] = [one["id"] for one in lens["references"]]
    view, state = VIEWS[view_id], lens["attributes"]["state"]
    [layer] = state["datasourceStates"]["formBased"]["layers"].values()
    filters = [one["query"] for one in state["filters"]]
    if view.time_field:
        filters.append(_between(view.time_field, since, until))
    asked = Asked(cluster, layer)
    body = {"size": 0, "track_total_hits": True, "query": {"bool": {"filter": filters}}, "aggs": asked.aggregations()}
    found = await _done(cluster, "POST", f"/{view.indices}/_search", body)
    if not asked.buckets:
        return [{asked.figures[0]: found["hits"]["total"]["value"]}]
    return list(asked.rows(found["aggregations"], asked.buckets, {}))


class Asked:
    """One layer of a panel: what is asked of a cluster, and the rows in its answer."""

    def __init__(self, cluster: Cluster, layer: Mapping[str, Any]) -> None:
        self._simple = cluster.kind == NOIDA
        self._columns = layer["columns"]
        self.buckets = [id_ for id_ in layer["columnOrder"] if self._columns[id_]["isBucketed"]]
        self.figures = [id_ for id_ in layer["columnOrder"] if not self._columns[id_]["isBucketed"]]

    def aggregations(self) -> dict[str, Any]:
        """Buckets within buckets, the figures innermost."""
        made = {id_: one for id_ in self.figures if (one := self._figure(id_))}
        for id_ in reversed(self.buckets):
            inside = dict(made)
            order = self._columns[id_]["params"].get("orderBy", {}).get("columnId")
            if order in self.figures and (figure := self._figure(order)):
                inside[order] = figure
            made = {id_: {**self._bucket(id_), "aggs": inside}}
        return made

    def _bucket(self, id_: str) -> dict[str, Any]:
        column = self._columns[id_]
        params, field = column["params"], column["sourceField"]
        if column["operationType"] == "date_histogram":
            interval = f"{int(BUCKET.total_seconds() / 60)}m"
            asked = {"field": field, "fixed_interval": interval, "time_zone": "UTC", "min_doc_count": 1}
            return {"date_histogram": asked}
        if self._ordered_by_us(id_):
            return {"terms": {"field": field, "size": 10_000}}
        by = params["orderBy"]["columnId"]
        order = "_count" if self._is_count(by) else by
        return {"terms": {"field": field, "size": params["size"], "order": {order: params["orderDirection"]}}}

    def _ordered_by_us(self, id_: str) -> bool:
        column = self._columns[id_]
        terms = column["operationType"] == "terms"
        return self._simple and terms and not self._is_count(column["params"]["orderBy"]["columnId"])

    def _is_count(self, id_: str) -> bool:
        return bool(self._columns[id_]["operationType"] == "count")

    def _figure(self, id_: str) -> dict[str, Any] | None:
        column = self._columns[id_]
        field = column["sourceField"]
        match column["operationType"]:
            case "average":
                return {"avg": {"field": field}}
            case "max" if not self._simple:
                return {"max": {"field": field}}
            case "max":
                return _newest(field, by=field)
            case "last_value":
                present = field.partition(".")[0] if self._simple else field
                newest = _newest(field, by=column["params"]["sortField"])
                return {"filter": {"exists": {"field": present}}, "aggs": {"newest": newest}}
        return None  # the count is there by itself

    def rows(self, found: Mapping[str, Any], buckets: list[str], above: Row) -> Iterable[Row]:
        """A row for each innermost bucket; for what Lens gathers into "Other" one with ``None``."""
        first, rest = buckets[0], buckets[1:]
        params = self._columns[first]["params"]
        there = found[first]["buckets"]
        if self._ordered_by_us(first):
            by = params["orderBy"]["columnId"]
            there = sorted(there, key=lambda one: self._value(one, by) or 0, reverse=True)[: params["size"]]
        for bucket in there:
            yield from self._of_bucket(bucket, first, rest, above)
        if params.get("otherBucket") and found[first]["sum_other_doc_count"]:
            yield {**above, first: None, self.figures[0]: found[first]["sum_other_doc_count"]}

    def _of_bucket(self, bucket: Mapping[str, Any], id_: str, rest: list[str], above: Row) -> Iterable[Row]:
        row = {**above, id_: bucket["key"]}
        if rest:
            return self.rows(bucket, rest, row)
        return [row | {figure: self._value(bucket, figure) for figure in self.figures}]

    def _value(self, bucket: Mapping[str, Any], id_: str) -> Any:
        column = self._columns[id_]
        if column["operationType"] == "count":
            return bucket["doc_count"]
        answered = bucket[id_].get("newest", bucket[id_])
        if "value" in answered:
            return answered["value"]
        [value] = [hit["_source"].get(column["sourceField"].partition(".")[0]) for hit in answered["hits"]["hits"]] or [
            None
        ]
        return milliseconds(datetime.fromisoformat(value)) if value and column["dataType"] == "date" else value


def milliseconds(moment: datetime) -> int:
    """A time as Elasticsearch keeps it: no more of it than milliseconds."""
    return int(moment.timestamp() * 1000)


def _newest(field: str, *, by: str) -> dict[str, Any]:
    return {"top_hits": {"size": 1, "sort": [{by: "desc"}], "_source": [field.partition(".")[0]]}}


_COMPARED: Mapping[str, Callable[[float, float], bool]] = {">": lambda a, b: a > b, ">=": lambda a, b: a >= b}


async def fires(cluster: Cluster, rule: Rule, at: datetime) -> set[str]:
    """What a rule fires for when Kibana runs it at this moment: the groups, or "all"."""
    params = rule.params
    since = at - timedelta(**{{"s": "seconds", "m": "minutes"}[params["timeWindowUnit"]]: params["timeWindowSize"]})
    moment = rfc3339(at)
    query = json.loads(re.sub(r'"now(-\d+s)"', rf'"{moment}||\1"', params["esQuery"]))["query"]
    filters = [query, _between(params["timeField"], since, at)]
    body = {"size": 0, "track_total_hits": True, "query": {"bool": {"filter": filters}}, "aggs": _grouped(params)}
    found = await _done(cluster, "POST", f"/{','.join(params['index'])}/_search", body)
    return {
        name
        for name, value in _judged(params, found)
        if _COMPARED[params["thresholdComparator"]](value, params["threshold"][0])
    }


def _grouped(params: Mapping[str, Any]) -> dict[str, Any]:
    figure = {} if params["aggType"] == "count" else {"metricAgg": {params["aggType"]: {"field": params["aggField"]}}}
    if params["groupBy"] == "all":
        return figure
    terms = {"field": params["termField"], "size": params["termSize"]}
    order = {"order": {"metricAgg": "desc"}} if figure else {}
    return {"groupAgg": {"terms": {**terms, **order}, **({"aggs": figure} if figure else {})}}


def _judged(params: Mapping[str, Any], found: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    """Each group with its figure; Kibana itself compares in the cluster, by a `bucket_selector`."""
    if params["groupBy"] == "all":
        yield "all", found["hits"]["total"]["value"]
        return
    # Where there is no index yet, nothing is aggregated.
    for bucket in found.get("aggregations", {}).get("groupAgg", {}).get("buckets", []):
        value = bucket["doc_count"] if params["aggType"] == "count" else bucket["metricAgg"]["value"]
        if value is not None:
            yield bucket["key"], value


def _between(field: str, since: datetime, until: datetime) -> dict[str, Any]:
    return {"range": {field: {"gte": rfc3339(since), "lte": rfc3339(until), "format": "strict_date_optional_time"}}}


async def _done(cluster: Cluster, method: str, path: str, body: Any) -> Any:
    status, found = await cluster.ask(method, path, body)
    assert status == 200, found
    return found
