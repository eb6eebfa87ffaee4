"""A JSON Schema of the configuration file, made from the classes that check it."""

from __future__ import annotations

from typing import Any

from servmon.probes import PROBES
from servmon.probes.endpoint_schema import endpoint_properties
from servmon.settings import SECTIONS, Settings
from servmon.settings.dependency_tables import DependencyFields
from servmon.settings.written_values import is_secret

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The file as a JSON Schema (draft 2020-12): sections, endpoints with every protocol's options, templates.

    An editor completes and marks slips with it. What fits together across fields is known to ``servmon config check``
    alone.
    """
    schema = Settings.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    endpoint = _endpoint(definitions)
    definitions["Endpoint"] = {**endpoint, "required": ["id"]}
    definitions["Template"] = {
        **endpoint,
        "properties": {key: value for key, value in endpoint["properties"].items() if key not in ("id", "use")},
        "required": ["name"],
    }
    for section in SECTIONS.values():
        secrets = [key for key, field in section.model_fields.items() if is_secret(field)]
        pointers = {f"{key}_{where}": {"type": "string"} for key in secrets for where in ("file", "env")}
        definitions[section.__name__]["properties"] |= pointers
    schema["properties"]["endpoints"] = {"type": "array", "items": {"$ref": "#/$defs/Endpoint"}}
    schema["properties"]["templates"] = {"type": "array", "items": {"$ref": "#/$defs/Template"}}
    dependency = DependencyFields.model_json_schema(ref_template="#/$defs/{model}")
    definitions.update(dependency.pop("$defs", {}))
    definitions["Children"]["properties"] = {
        name: {"anyOf": [{"type": "string"}, value]} for name, value in definitions["Children"]["properties"].items()
    }
    definitions["Dependency"] = dependency
    schema["properties"]["dependencies"] = {"type": "array", "items": {"$ref": "#/$defs/Dependency"}}
    return {"$schema": _DIALECT, **schema, "title": "servmon.toml"}


def _endpoint(definitions: dict[str, Any]) -> dict[str, Any]:
    """Every field, and every option of every protocol beside them: they stand flat in one table."""
    properties = {"use": {"type": "string", "description": "The name of a template."}}
    properties |= endpoint_properties(PROBES, definitions, "#/$defs/{model}")
    return {"type": "object", "properties": properties, "additionalProperties": False}
