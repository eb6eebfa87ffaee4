"""The API describes itself: valid OpenAPI 3.1 with every route and no other, and a page that loads nothing."""

from __future__ import annotations

import re

from openapi_spec_validator import OpenAPIV31SpecValidator

from servmon.api.app import ROUTES
from tests.fix_api import window


async def test_the_document_is_valid_and_holds_every_route_and_no_other(door):
    document = (await door.get("/openapi.json")).json
    OpenAPIV31SpecValidator(document).validate()
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(route.method, route.path) for route in ROUTES}


async def test_every_reference_resolves_and_every_operation_is_said_in_words(door):
    reply = await door.get("/openapi.json")
    document = reply.json
    schemas = document["components"]["schemas"]
    assert set(re.findall(r"#/components/schemas/([^\"]+)", reply.body.decode())) <= schemas.keys()
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["summary"]
            assert operation["responses"].keys() & {"200", "201", "204"}


async def test_what_the_document_says_of_an_answer_is_what_comes(api):
    document = (await api.get("/openapi.json")).json
    await api.post("/services/", {"id": "a", "url": "http://192.0.2.1/", "follow_redirects": False})
    await api.post("/maintenance/", window("a"))
    for path in ("/services/", "/outages/", "/maintenance/", "/alerts/", "/silences/", "/tokens/", "/audit"):
        shape = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        assert_fits((await api.get(path)).json, shape, document["components"]["schemas"], path)


def assert_fits(value, schema, schemas, place):
    """Just enough of JSON Schema: every field that is required is there, and none that is not described."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    if isinstance(value, dict) and "properties" in schema:
        assert set(schema.get("required", ())) <= value.keys(), place
        if not schema.get("additionalProperties"):
            assert value.keys() <= schema["properties"].keys(), place
        for name, part in schema["properties"].items():
            if name in value:
                assert_fits(value[name], part, schemas, f"{place}.{name}")
    if isinstance(value, list):
        for part in value:
            assert_fits(part, schema["items"], schemas, f"{place}[]")


async def test_the_page_shows_every_route_and_loads_nothing(door):
    reply = await door.get("/docs")
    page = reply.body.decode()
    assert reply.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert all(f"<code>{route.path}</code>" in page for route in ROUTES)
    assert re.findall(r"(?:src|href)=\"(?!#)([^\"]*)", page) == ["./ui/"]
    assert 'href="../../ui/"' in (await door.get("/api/v1/docs")).body.decode()
    assert "<script" not in page


async def test_the_page_has_each_section_once_and_no_mark_of_the_docstrings(door):
    page = (await door.get("/docs")).body.decode()
    sections = re.findall("<h2>(.*?)</h2>", page)
    assert len(sections) == len(set(sections))
    assert "``" not in page
    assert "<code>revived</code>" in page
    assert "prefers-color-scheme: dark" in page
