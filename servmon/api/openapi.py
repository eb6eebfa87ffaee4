"""The API as an OpenAPI 3.1 document, read off the routes and the annotations of their handlers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter
from typing_extensions import TypedDict

import servmon
from servmon.alerts.settings import RuleSection
from servmon.api.auth import COOKIE
from servmon.api.routing import Route
from servmon.api.typed import JsonObject, Signature, signature_of
from servmon.model import Role
from servmon.probes import PROBES
from servmon.probes.endpoint_schema import endpoint_properties
from servmon.services.alerts import SilenceFields
from servmon.services.window_fields import EXTENSION_SCHEMA, WINDOW_SCHEMA

_REFER = "#/components/schemas/{model}"
_JSON = "application/json"
_PROBLEM = "application/problem+json"
_ENDPOINT_ID = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"}
_UUID = {"type": "string", "format": "uuid"}
_ENDPOINT: Mapping[str, Any] = {
    "name": "API Gateway",
    "url": "https://api.example.com/health",
    "check_interval": 60,
    "expected_status_code": 200,
    "tags": ["shop"],
    "site": "pop-north",
}
_RULE: Mapping[str, Any] = {
    "name": "slow web",
    "kind": "response_time",
    "tags": ["web"],
    "threshold_ms": 800,
    "channels": ["noc"],
}
_SILENCE: Mapping[str, Any] = {
    "sites": ["pop-north"],
    "reason": "the generator is tested",
    "ends_at": "2036-11-29T04:00:00+01:00",
}
_ROLES: Mapping[Role, str] = {
    Role.READ: "Any token may.",
    Role.OPERATE: "For tokens with the role operate or admin.",
    Role.ADMIN: "For tokens with the role admin.",
}


class WrongValue(TypedDict):
    """One wrong value: where it stands, and what would be right."""

    field: str
    message: str


class Problem(TypedDict, total=False):
    """What went wrong (RFC 9457); ``errors`` name every wrong value."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[WrongValue]


def describe(routes: Iterable[Route]) -> dict[str, Any]:
    """The whole document. Raises ``ValueError`` where two handlers have one name: it is the operation's id."""
    signatures = [(route, signature_of(route.handler)) for route in routes]
    schemas = _Schemas([signature for _, signature in signatures])
    paths: dict[str, dict[str, Any]] = {}
    names: set[str] = set()
    routes = [route for route, _ in signatures]
    for route, signature in signatures:
        name = route.handler.__name__
        if name in names:
            raise ValueError(f"two handlers are named {name}")
        names.add(name)
        operation = _operation(route, signature, schemas)
        if signature.status == 201:
            operation["responses"]["201"]["links"] = _links(route, routes)
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "servmon",
            "version": servmon.__version__,
            "description": "Which service is down, since when, why, and who was told. Every address also answers"
            " without the slash at its end, and below /api/v1.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "svm_<prefix>_<secret>"},
                "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "From POST /session."},
            },
        },
        "security": [{"token": []}, {"session": []}],
    }


class _Schemas:
    """The schemas of all answers and bodies, each named once."""

    def __init__(self, signatures: Iterable[Signature]) -> None:
        wanted: dict[str, tuple[str, Any, TypeAdapter[Any]]] = {}
        for one in signatures:
            if not one.is_raw and one.answer is not type(None):
                wanted[_key(one.answer)] = (_key(one.answer), "serialization", TypeAdapter(one.answer))
            if inspect.isclass(one.body):
                wanted[_key(one.body)] = (_key(one.body), "validation", TypeAdapter(one.body))
        wanted[_key(Problem)] = (_key(Problem), "serialization", TypeAdapter(Problem))
        keyed, defined = TypeAdapter.json_schemas(list(wanted.values()), ref_template=_REFER)
        self._keyed = {key: schema for (key, _mode), schema in keyed.items()}
        self.components: dict[str, Any] = defined.get("$defs", {})
        self._add_objects()

    def of(self, wanted: Any) -> dict[str, Any]:
        """The schema of an answer or a body."""
        if isinstance(wanted, JsonObject):
            return {"$ref": _REFER.format(model=wanted.schema)}
        return self._keyed[_key(wanted)]

    def parameters(self, signature: Signature) -> list[dict[str, Any]]:
        """The query parameters, each with its own schema."""
        schema = signature.query.model_json_schema(ref_template=_REFER)
        self.components.update(schema.pop("$defs", {}))
        return [_parameter(name, part) for name, part in schema.get("properties", {}).items()]

    def _add_objects(self) -> None:
        asked = [probe for probe in PROBES if not getattr(probe, "from_file_only", False)]
        properties = endpoint_properties(asked, self.components, _REFER)
        self.components["EndpointFields"] = {
            "type": "object",
            "description": "An endpoint's fields, and the options of its protocol beside them.",
            "properties": properties,
            "required": ["url"],
            "examples": [_ENDPOINT],
        }
        self.components["EndpointChanges"] = {
            "type": "object",
            "description": "Those fields and options of an endpoint that change.",
            "properties": properties,
        }
        self.components["WindowFields"] = WINDOW_SCHEMA
        self.components["WindowChanges"] = {
            "type": "object",
            "description": "Those fields of a window that change.",
            "properties": WINDOW_SCHEMA["properties"],
        }
        self.components["WindowExtension"] = EXTENSION_SCHEMA
        for name, model, example in (
            ("SilenceFields", SilenceFields, _SILENCE),
            ("AlertRuleFields", RuleSection, _RULE),
        ):
            schema = model.model_json_schema(ref_template=_REFER)
            self.components.update(schema.pop("$defs", {}))
            self.components[name] = {**schema, "examples": [example]}
        self.components["AlertRuleChanges"] = {
            "type": "object",
            "description": "Those fields of an alert rule that change.",
            "properties": self.components["AlertRuleFields"]["properties"],
        }


def _key(annotation: Any) -> str:
    return repr(annotation)


def _operation(route: Route, signature: Signature, schemas: _Schemas) -> dict[str, Any]:
    said = inspect.getdoc(route.handler) or ""
    parameters = [*map(_in_path, re.findall(r"{(\w+)}", route.path)), *schemas.parameters(signature)]
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": said.partition("\n")[0].rstrip("."),
        "description": said if route.open_to_all else f"{said}\n\n{_ROLES[route.role]}",
        "tags": [route.path.strip("/").partition("/")[0] or "servmon"],
        "responses": _responses(route, signature, schemas),
    }
    if parameters:
        operation["parameters"] = parameters
    if signature.body is not None:
        operation["requestBody"] = {
            "required": not signature.body_optional,
            "content": {_JSON: {"schema": schemas.of(signature.body)}},
        }
    if route.open_to_all:
        operation["security"] = []
    return operation


def _responses(route: Route, signature: Signature, schemas: _Schemas) -> dict[str, Any]:
    good: dict[str, Any] = {"description": "As asked for."}
    if signature.status == 201:
        good["headers"] = {"Location": {"description": "Where it is.", "schema": {"type": "string"}}}
    if signature.answer is not type(None) and not signature.is_raw:
        good["content"] = {_JSON: {"schema": schemas.of(signature.answer)}}
    elif signature.is_raw:
        good["content"] = {"*/*": {}}
    problem = {"content": {_PROBLEM: {"schema": schemas.of(Problem)}}}
    failures = {status: {"description": words, **problem} for status, words in _failures(route, signature)}
    return {str(signature.status): good, **failures}


def _links(made_by: Route, routes: Iterable[Route]) -> dict[str, Any]:
    """What can be done with what was made: every route below it that needs its id and nothing else."""
    below = re.compile(re.escape(made_by.path.rstrip("/")) + r"/{(\w+)}(/[a-z-]+)?")
    fitting = ((route, found) for route in routes if (found := below.fullmatch(route.path)))
    return {
        route.handler.__name__: {
            "operationId": route.handler.__name__,
            "parameters": {found[1]: "$response.body#/id"},
        }
        for route, found in fitting
    }


def _failures(route: Route, signature: Signature) -> Iterable[tuple[str, str]]:
    if not route.open_to_all:
        yield "401", "No valid token."
        yield "403", "The token's role does not allow it."
    if "{" in route.path:
        yield "404", "There is no such thing, or no longer."
    if signature.body is not None:
        yield "400", "The body is not JSON."
    yield "422", "Something is wrong; errors name every wrong value."
    yield "default", "Anything else, such as 409 a conflict, 429 too soon, 503 Postgres is away."


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    described = {key: value for key, value in schema.items() if key not in ("title", "description")}
    parameter = {"name": name, "in": "query", "required": False, "schema": _given(described)}
    return {**parameter, "description": schema["description"]} if "description" in schema else parameter


def _given(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that is not given is missing, never null."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key != "anyOf" and not (key == "default" and value is None)}
    return {**rest, **kinds[0]} if len(kinds) == 1 else {**rest, **({"anyOf": kinds} if kinds else {})}


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": _ENDPOINT_ID if name == "endpoint_id" else _UUID}
