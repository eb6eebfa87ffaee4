"""What holds for every route there is, as the API's own document lists them: nothing unknown, nothing half, no 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.fix_api import UNKNOWN_UUID, Reply

NAIVE = "2026-11-23T15:43:49"
# A name with a blank, with NUL, of half a surrogate pair, too long, a folder, and an injection.
STRANGE_IDS = ("a%20b", "a%00b", "%ED%A0%80", "x" * 300, "..%2F..%2Fetc", "'%20or%201=1")


class Operation(NamedTuple):
    """One operation of the document, at an address that leads to its handler."""

    method: str
    path: str
    address: str
    parameters: dict[str, dict[str, Any]]
    takes_body: bool
    body_required: bool


async def operations(client) -> list[Operation]:
    document = (await client.get("/openapi.json")).json
    return [
        _operation(method.upper(), path, one)
        for path, methods in document["paths"].items()
        for method, one in methods.items()
    ]


def _operation(method: str, path: str, described: dict[str, Any]) -> Operation:
    parameters = {one["name"]: one["schema"] for one in described.get("parameters", ()) if one["in"] == "query"}
    address = path
    for one in described.get("parameters", ()):
        if one["in"] == "path":
            address = address.replace(f"{{{one['name']}}}", UNKNOWN_UUID)
    body = described.get("requestBody")
    return Operation(method, path, address, parameters, body is not None, bool(body and body["required"]))


def with_body(found: list[Operation]) -> Iterator[Operation]:
    return (one for one in found if one.takes_body)


def refuses(reply: Reply, operation: Operation, *fields: str) -> None:
    """It is a 422 that names all of these, and says something of each."""
    where = f"{operation.method} {operation.path}: {reply.body.decode()}"
    assert reply.status == 422, where
    assert reply.headers["Content-Type"].startswith("application/problem+json"), where
    assert set(fields) <= set(reply.wrong_fields), where
    assert all(error["message"] for error in reply.json["errors"]), where


async def test_unknown_parameters_are_refused_and_all_named(door):
    found = await operations(door)
    assert len(found) >= 40
    for one in found:
        refuses(await door.send(one.method, f"{one.address}?nonsense=1&other=2"), one, "nonsense", "other")


async def test_a_parameter_is_given_once(door):
    for one in await operations(door):
        for name in one.parameters:
            refuses(await door.send(one.method, f"{one.address}?{name}=1&{name}=2"), one, name)


async def test_a_time_without_an_offset_is_refused(api):
    await api.post("/services/", {"id": UNKNOWN_UUID, "url": "tcp://127.0.0.1:1"})
    timed = [(one, name) for one in await operations(api) for name in one.parameters if name in ("since", "until")]
    assert len(timed) >= 6
    for one, name in timed:
        reply = await api.send(one.method, f"{one.address}?{name}={NAIVE}")
        refuses(reply, one, name)
        assert "needs an offset" in reply.body.decode()


async def test_a_limit_is_from_1_to_1000(door):
    limited = [one for one in await operations(door) if "limit" in one.parameters]
    assert len(limited) >= 6
    for one in limited:
        for limit in ("0", "1001", "-1", "ten", "1.5", "%C2%B2", ""):
            refuses(await door.send(one.method, f"{one.address}?limit={limit}"), one, "limit")


async def test_every_wrong_parameter_is_named_at_once(door):
    for one in await operations(door):
        wrong = "limit" if "limit" in one.parameters else "other"
        refuses(await door.send(one.method, f"{one.address}?nonsense=1&{wrong}=0"), one, "nonsense", wrong)


async def test_unknown_fields_of_a_body_are_all_named(api):
    await api.post("/services/", {"id": "a", "url": "tcp://127.0.0.1:1"})
    for one in with_body(await operations(api)):
        reply = await api.send(one.method, one.address, {"nonsense": 1, "other": 2})
        if reply.status == 404 and "{" in one.path:
            continue  # what is to be changed is looked up first: its options are known by it alone
        refuses(reply, one, "nonsense", "other")


async def test_a_body_is_a_json_object_and_nothing_else(door):
    bodied = list(with_body(await operations(door)))
    assert len(bodied) >= 10
    for one in bodied:
        kinds = {"Content-Type": "application/json"}
        for data, status in (("[]", 422), ("7", 422), ("{", 400), ("\udcff", 400), ("[" * 1000, 422)):
            sent = data.encode("utf-8", "surrogateescape")
            reply = await door.send(one.method, one.address, data=sent, headers=kinds)
            assert reply.status == status, f"{one.method} {one.path} with {data[:5]!r}: {reply.body.decode()}"
        reply = await door.send(one.method, one.address, data=b"a=1", headers={"Content-Type": "text/plain"})
        assert reply.status == 415, f"{one.method} {one.path}"


async def test_a_body_that_has_to_be_there_is_asked_for(door):
    for one in with_body(await operations(door)):
        reply = await door.send(one.method, one.address)
        if one.body_required:
            assert reply.status in (400, 415, 422), f"{one.method} {one.path}: {reply.status}"


async def test_strange_ids_are_nobodys_and_no_defect(api):
    for one in await operations(api):
        if one.address == one.path:
            continue
        for strange in STRANGE_IDS:
            address = one.address.replace(UNKNOWN_UUID, strange)
            reply = await api.send(one.method, address, {} if one.takes_body else None)
            assert 400 <= reply.status < 500, f"{one.method} {address}: {reply.status} {reply.body.decode()}"
            assert reply.headers["Content-Type"].startswith("application/problem+json")
