"""The five alert rules, as Kibana's Elasticsearch query rules; they and what they need come with the basic licence.

A rule looks at the documents of its last ``window``. That has to be longer than documents are on their way, or the rule
never fires: an open outage is seen anew at every sync, a check arrives with the next one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

from servmon.elastic.mapping import OUTAGE_PREFIX, STATUS_PREFIX
from servmon.model import AlertThresholds

RULE_TYPE = ".es-query"
CONSUMER = "stackAlerts"
TAG = "servmon"
EVERY = "1m"
# What arrives may wait for a refresh of the index, and Kibana's clock may differ from ours.
SLACK_SECONDS = 60
# Kibana groups by no more values.
MOST_GROUPS = 1000
# Of the documents found so many are kept beside the alert.
SHOWN = 10
# Kibana takes UUIDs of versions 1 to 5: one made of the name is the same at every installation.
_NAMESPACE = UUID("6f1c35c2-5d0c-5c39-9a57-d6a0a2ab0f17")

_OPEN: Mapping[str, Any] = {"term": {"resolved": False}}
# What is only cut off by another that is down is told by that one.
_OF_ITS_OWN: Mapping[str, Any] = {"bool": {"must_not": [{"exists": {"field": "caused_by"}}]}}


@dataclass(frozen=True, slots=True)
class Pace:
    """What lies between two sights of an open outage, two syncs of checks, and at most between two checks; seconds."""

    refresh_interval: int
    sync_interval: int
    check_interval: int

    def open_outages(self) -> int:
        """The window in which every open outage was seen, though it once failed to arrive."""
        return 2 * self.refresh_interval + SLACK_SECONDS

    def checks(self) -> int:
        """The window in which every endpoint was checked, and that arrived, though one sync failed."""
        return 2 * self.sync_interval + self.check_interval + SLACK_SECONDS


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert rule. ``key`` never changes, as its id is made of it; ``enabled`` holds for a new one only."""

    key: str
    name: str
    enabled: bool
    params: Mapping[str, Any]

    def id(self, space: str) -> str:
        """Its id in one of Kibana's spaces: a rule's id is given only once in all of them."""
        return str(uuid5(_NAMESPACE, f"{space}/{self.key}"))

    def changed(self) -> dict[str, Any]:
        """What an upgrade sets anew."""
        return {"name": self.name, "tags": [TAG], "schedule": {"interval": EVERY}, "params": dict(self.params)}

    def created(self) -> dict[str, Any]:
        """What a new rule is made of."""
        return {**self.changed(), "rule_type_id": RULE_TYPE, "consumer": CONSUMER, "enabled": self.enabled}


def rules(thresholds: AlertThresholds, pace: Pace) -> Iterator[Rule]:
    """The five of them; which are enabled at first is as with servmon's own."""
    long_open = {"range": {"start_time": {"lte": f"now-{thresholds.long_outage_after}s"}}}
    yield Rule(
        key="service-down",
        name="Service Down Alert",
        enabled=True,
        params=_outages(pace, [_OPEN, _OF_ITS_OWN], ">=", 1) | _for_each("endpoint_id"),
    )
    yield Rule(
        key="response-time",
        name="Service Response Time Alert",
        enabled=False,
        params=_query(f"{STATUS_PREFIX}*", "timestamp", [{"term": {"source": "schedule"}}], pace.checks())
        | {"aggType": "avg", "aggField": "response_time"}
        | _beyond(">", thresholds.response_time_ms)
        | _for_each("endpoint_id"),
    )
    yield Rule(
        key="multiple-services-down",
        name="Multiple Services Down Alert",
        enabled=True,
        params=_outages(pace, [_OPEN], ">=", thresholds.multiple_services),
    )
    yield Rule(
        key="active-outages", name="Active Outages Alert", enabled=False, params=_outages(pace, [_OPEN], ">=", 1)
    )
    yield Rule(
        key="long-outage",
        name="Long Duration Outage Alert",
        enabled=True,
        params=_outages(pace, [_OPEN, _OF_ITS_OWN, long_open], ">=", 1) | _for_each("endpoint_id"),
    )


def _outages(pace: Pace, where: list[Mapping[str, Any]], comparator: str, number: int) -> dict[str, Any]:
    # An endpoint has at most one open outage, so their number is that of the services that are down.
    return _query(f"{OUTAGE_PREFIX}*", "last_seen_at", where, pace.open_outages()) | _beyond(comparator, number)


def _query(index: str, time_field: str, where: list[Mapping[str, Any]], window: int) -> dict[str, Any]:
    return {
        "searchType": "esQuery",
        "esQuery": json.dumps({"query": {"bool": {"filter": where}}}),
        "index": [index],
        "timeField": time_field,
        "timeWindowSize": window,
        "timeWindowUnit": "s",
        "size": SHOWN,
        "aggType": "count",
        "groupBy": "all",
        # What is still so is found again, or it would seem to have recovered.
        "excludeHitsFromPreviousRun": False,
    }


def _beyond(comparator: str, threshold: float) -> dict[str, Any]:
    return {"thresholdComparator": comparator, "threshold": [threshold]}


def _for_each(field: str) -> dict[str, Any]:
    return {"groupBy": "top", "termField": field, "termSize": MOST_GROUPS}
