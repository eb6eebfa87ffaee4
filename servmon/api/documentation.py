"""``/openapi.json`` and ``/docs``: what the API is, for programs and for people.

The page needs nothing from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

from aiohttp import web

from servmon.api.routing import Route
from servmon.model import Role

DOCUMENT = web.AppKey("document", dict[str, Any])
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2430; }
h2 { margin: 2.5rem 0 .5rem; border-bottom: 1px solid #d8dee6; }
details { margin: .4rem 0; border: 1px solid #d8dee6; border-radius: 6px; padding: .4rem .8rem; }
summary { cursor: pointer; }
code { font-family: ui-monospace, monospace; font-size: .92em; }
b { display: inline-block; min-width: 4.2rem; font: 600 .8rem ui-monospace, monospace; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; }
td, th { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; border-top: 1px solid #eef1f5; }
p.role { color: #5a6675; }
"""


async def get_openapi(request: web.Request) -> dict[str, Any]:
    """Get the API as an OpenAPI 3.1 document."""
    return request.app[DOCUMENT]


async def get_docs(request: web.Request) -> web.Response:
    """Read what the API takes and gives, as a page."""
    headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
    page = "".join(_page(request.app[DOCUMENT]))
    return web.Response(text=page, content_type="text/html", headers=headers)


def _page(document: dict[str, Any]) -> Iterator[str]:
    info, schemas = document["info"], document["components"]["schemas"]
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width"><title>servmon: the API</title>'
    yield f"<style>{_STYLE}</style></head><body><h1>servmon {escape(info['version'])}: the API</h1>"
    yield f"<p>{escape(info['description'])} Send <code>Authorization: Bearer TOKEN</code>."
    yield " As a document for programs: <code>/openapi.json</code>.</p>"
    section = None
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if operation["tags"][0] != section:
                section = operation["tags"][0]
                yield f"<h2>{escape(section)}</h2>"
            yield from _operation(path, method, operation)
    yield "<h2>Shapes</h2>"
    for name, schema in sorted(schemas.items()):
        yield f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        yield f"<p>{escape(schema.get('description', ''))}</p>"
        yield from _fields(schema)
        yield "</details>"
    yield "</body></html>"


def _operation(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    line = f"<b>{method.upper()}</b> <code>{escape(path)}</code> {escape(operation['summary'])}"
    yield f"<details><summary>{line}</summary>"
    for paragraph in operation["description"].split("\n\n"):
        yield f"<p>{escape(paragraph)}</p>"
    rows = [(one["name"], one["schema"], one.get("description", "")) for one in operation.get("parameters", ())]
    yield from _table("parameter", rows)
    if "requestBody" in operation:
        yield f"<p>Body: {_type(operation['requestBody']['content']['application/json']['schema'])}</p>"
    for status, answer in operation["responses"].items():
        content = answer.get("content", {}).get("application/json", {})
        shape = f": {_type(content['schema'])}" if "schema" in content else ""
        yield f"<p><code>{status}</code> {escape(answer['description'])}{shape}</p>"
    yield "</details>"


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    if "enum" in schema:
        yield f"<p>{', '.join(f'<code>{escape(str(value))}</code>' for value in schema['enum'])}</p>"
    rows = [(name, part, part.get("description", "")) for name, part in schema.get("properties", {}).items()]
    yield from _table("field", rows)


def _table(kind: str, rows: Iterable[tuple[str, dict[str, Any], str]]) -> Iterator[str]:
    lines = [
        f"<tr><td><code>{escape(name)}</code></td><td>{_type(schema)}</td><td>{escape(words)}</td></tr>"
        for name, schema, words in rows
    ]
    if lines:
        yield f"<table><tr><th>{kind}</th><th>type</th><th></th></tr>{''.join(lines)}</table>"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{escape(name)}"><code>{escape(name)}</code></a>'
    if kinds := schema.get("anyOf"):
        return " or ".join(map(_type, kinds))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(str(schema.get("format") or schema.get("type") or "anything"))


ROUTES = (
    Route("GET", "/openapi.json", get_openapi, Role.READ),
    Route("GET", "/docs", get_docs, Role.READ),
)
