"""What the cluster needs before the first document: templates, put in place and kept up to date by servmon itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from servmon.elastic import mapping
from servmon.elastic.cluster import Cluster, ElasticError

_log = structlog.get_logger(__name__)

OURS = f"{mapping.STATUS_PREFIX}*,{mapping.OUTAGE_PREFIX}*,{mapping.MAINTENANCE_INDEX}*"


async def prepare(cluster: Cluster) -> None:
    """Put the templates that are missing or older than this servmon's; newer ones stay. Raises ``ElasticError``."""
    component = f"/_component_template/{mapping.COMPONENT_TEMPLATE}"
    await _put(cluster, component, "component_template", mapping.component_template())
    changed = [
        await _put(cluster, f"/_index_template/{name}", "index_template", template)
        for name, template in mapping.index_templates().items()
    ]
    if any(changed):
        await _widen_indices(cluster)


async def owned(cluster: Cluster) -> dict[str, int]:
    """The version of each index that servmon made, by the index's name."""
    found = await cluster.ask("GET", f"/{OURS}/_mapping?filter_path=*.mappings._meta", missing={})
    metas = {name: index.get("mappings", {}).get("_meta", {}) for name, index in found.items()}
    return {name: _version(meta) for name, meta in metas.items() if meta.get("owner") == mapping.OWNER}


async def _put(cluster: Cluster, path: str, kind: str, wanted: Mapping[str, Any]) -> bool:
    found = await cluster.ask("GET", path, missing={})
    # A wildcard in a name finds several; ours has none.
    meta = next((one.get(kind, {}).get("_meta") or {} for one in found.get(f"{kind}s", ())), {})
    if meta.get("owner") == mapping.OWNER and _version(meta) >= mapping.VERSION:
        return False
    await cluster.ask("PUT", path, wanted)
    _log.info("Elasticsearch template put", template=path.rpartition("/")[2], version=mapping.VERSION)
    return True


async def _widen_indices(cluster: Cluster) -> None:
    """Templates shape only indices to come: those that are there learn of new fields, too."""
    shared = mapping.component_template()["template"]["mappings"]["properties"]
    for name, version in (await owned(cluster)).items():
        own = next((fields for kind, fields in mapping.FIELDS.items() if name.startswith(mapping.PREFIXES[kind])), None)
        if version >= mapping.VERSION or own is None:
            continue
        wanted = {"_meta": mapping.META, "properties": {**shared, **own}}
        try:
            await cluster.ask("PUT", f"/{name}/_mapping", wanted)
        except ElasticError as error:
            _log.warning("an older index keeps its fields", index=name, problem=str(error))


def _version(meta: Mapping[str, Any]) -> int:
    version = meta.get("version")
    return version if isinstance(version, int) else 0
