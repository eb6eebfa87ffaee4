"""Old daily indices go, if ``[elasticsearch] retention_days`` says so: only servmon's own, and none that is in use."""

from __future__ import annotations

from datetime import date, timedelta

import structlog

from servmon.elastic import mapping
from servmon.elastic.cluster import Cluster, ElasticError
from servmon.elastic.setup import owned

_log = structlog.get_logger(__name__)


async def drop_old(cluster: Cluster, days: int, today: date) -> list[str]:
    """Delete what is older than ``days`` days (0: nothing), each index by its own name; returns the names.

    Ours are those named exactly as we name them that bear our mark as well: others have indices called ``isp-…``.
    An outage's index stays while one of its outages is open. Raises ``ElasticError``.
    """
    if days == 0:
        return []
    dropped = []
    for name in sorted(await owned(cluster)):
        day = mapping.day_of(name)
        if day is None or day >= today - timedelta(days=days):
            continue
        if name.startswith(mapping.OUTAGE_PREFIX) and await _has_open_outage(cluster, name):
            continue
        await cluster.ask("DELETE", f"/{name}", missing={})
        dropped.append(name)
        _log.info("Elasticsearch index deleted", index=name)
    return dropped


async def _has_open_outage(cluster: Cluster, name: str) -> bool:
    await cluster.ask("POST", f"/{name}/_refresh", missing={})
    query = {"query": {"bool": {"must_not": [{"term": {"resolved": True}}]}}}
    found = await cluster.ask("POST", f"/{name}/_count", query, missing={"count": 0})
    if not isinstance(found.get("count"), int):
        raise ElasticError(f"cannot count the open outages of {name}")
    return bool(found["count"])
