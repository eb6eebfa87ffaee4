"""``/openapi.json`` and ``/docs``: what the API is, for programs and for people.

The page needs nothing from outside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

from aiohttp import web

from servmon.api.requests import root
from servmon.api.routing import Route
from servmon.model import Role

# What docstrings mark as code, after its escape.
_CODE = re.compile("``(.+?)``")
DOCUMENT = web.AppKey("document", dict[str, Any])
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5a6675; --line: #d8dee6; --page: #fff; --link: #0b57b0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e8ee; --soft: #9aa7b5; --line: #333d49; --page: #14181d; --link: #7fb4f5; }
}
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
body { color: var(--ink); background: var(--page); }
a { color: var(--link); }
h2 { margin: 2.5rem 0 .5rem; border-bottom: 1px solid var(--line); }
details { margin: .4rem 0; border: 1px solid var(--line); border-radius: 6px; padding: .4rem .8rem; }
summary { cursor: pointer; padding-left: 6rem; text-indent: -6rem; }
p { margin: .5rem 0; }
code { font-family: ui-monospace, monospace; font-size: .92em; overflow-wrap: anywhere; }
b { display: inline-block; min-width: 4.2rem; text-indent: 0; font: 600 .8rem ui-monospace, monospace; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; }
td, th { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; border-top: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
"""


async def get_openapi(request: web.Request) -> dict[str, Any]:
    """Get the API as an OpenAPI 3.1 document."""
    return request.app[DOCUMENT]


async def get_docs(request: web.Request) -> web.Response:
    """Read what the API takes and gives, as a page."""
    headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
    page = "".join(_page(request.app[DOCUMENT], root(request)))
    return web.Response(text=page, content_type="text/html", headers=headers)


def _page(document: dict[str, Any], up: str) -> Iterator[str]:
    info, schemas = document["info"], document["components"]["schemas"]
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width"><title>servmon: the API</title>'
    yield f"<style>{_STYLE}</style></head><body>"
    yield f'<nav><a href="{up}ui/">To the overview</a></nav>'
    yield f"<h1>servmon {escape(info['version'])}: the API</h1>"
    yield f"<p>{escape(info['description'])} Send <code>Authorization: Bearer TOKEN</code>,"
    yield " or in a browser the cookie that <code>/ui/login</code> or <code>POST /session</code> gives."
    yield " As a document for programs: <code>/openapi.json</code>.</p>"
    for section, operations in _by_section(document).items():
        yield f"<h2>{escape(section)}</h2>"
        for path, method, operation in operations:
            yield from _operation(path, method, operation)
    yield "<h2>Shapes</h2>"
    for name, schema in sorted(schemas.items()):
        yield f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        yield f"<p>{_said(schema.get('description', ''))}</p>"
        yield from _fields(schema)
        yield "</details>"
    yield "</body></html>"


def _by_section(document: dict[str, Any]) -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
    sections: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            sections.setdefault(operation["tags"][0], []).append((path, method, operation))
    return sections


def _said(text: str) -> str:
    """``text`` as it stands in the page, with what is code in it shown as such."""
    return _CODE.sub(r"<code>\1</code>", escape(text))


def _operation(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    line = f"<b>{method.upper()}</b> <code>{escape(path)}</code> {_said(operation['summary'])}"
    yield f"<details><summary>{line}</summary>"
    for paragraph in operation["description"].removeprefix(f"{operation['summary']}.").strip().split("\n\n"):
        yield f"<p>{_said(paragraph)}</p>"
    rows = [(one["name"], one["schema"], one.get("description", "")) for one in operation.get("parameters", ())]
    yield from _table("parameter", rows)
    if "requestBody" in operation:
        yield f"<p>Body: {_type(operation['requestBody']['content']['application/json']['schema'])}</p>"
    yield "<table><tr><th>answer</th><th></th></tr>"
    for status, answer in operation["responses"].items():
        content = answer.get("content", {}).get("application/json", {})
        shape = _type(content["schema"]) if "schema" in content else ""
        yield f"<tr><td><code>{status}</code></td><td>{_said(answer['description'])} {shape}</td></tr>"
    yield "</table>"
    yield "</details>"


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    if "enum" in schema:
        yield f"<p>{', '.join(f'<code>{escape(str(value))}</code>' for value in schema['enum'])}</p>"
    rows = [(name, part, part.get("description", "")) for name, part in schema.get("properties", {}).items()]
    yield from _table("field", rows)


def _table(kind: str, rows: Iterable[tuple[str, dict[str, Any], str]]) -> Iterator[str]:
    lines = [
        f"<tr><td><code>{escape(name)}</code></td><td>{_type(schema)}</td><td>{_said(words)}</td></tr>"
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
