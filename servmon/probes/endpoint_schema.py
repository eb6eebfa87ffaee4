"""What an endpoint may say, as a JSON schema: its fields, and every protocol's options flat beside them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from servmon.probes.base import Probe
from servmon.probes.endpoint_fields import EndpointFields


def endpoint_properties(probes: Iterable[Probe], definitions: dict[str, Any], refer: str) -> dict[str, Any]:
    """The schema of each field and option, by name.

    What they refer to is added to ``definitions``, which stand where ``refer`` leads (``"#/$defs/{model}"``).
    """
    properties: dict[str, Any] = {}
    models: list[type[BaseModel]] = [EndpointFields, *(probe.options for probe in probes)]
    for model in models:
        part = model.model_json_schema(ref_template=refer)
        definitions.update(part.pop("$defs", {}))
        for name, value in part.get("properties", {}).items():
            # Two protocols may name an option alike and mean different values.
            known = properties.get(name)
            properties[name] = value if known is None or known == value else {"anyOf": [known, value]}
    return properties
