"""Postgres goes away under a running API."""

from __future__ import annotations

import asyncpg
import pytest


@pytest.fixture
async def lost(api, database, postgres_server):
    """An API whose database was dropped behind its back."""
    assert (await api.get("/services/")).status == 200
    connection = await asyncpg.connect(postgres_server)
    name = database.partition("?")[0].rpartition("/")[2]
    await connection.execute(f"drop database {name} with (force)")
    await connection.close()
    return api


async def test_reads_and_writes_are_503_without_secrets_and_the_process_lives(lost):
    for method, path, body in (
        ("GET", "/services/", None),
        ("GET", "/services/a/status", None),
        ("GET", "/outages/summary", None),
        ("POST", "/services/", {"url": "tcp://192.0.2.1:1"}),
        ("DELETE", "/services/a", None),
    ):
        reply = await lost.send(method, path, body)
        assert (reply.status, reply.headers.get("Retry-After")) == (503, "5"), (method, path, reply.json)
        assert "cannot connect to the database" in reply.json["detail"]
    assert (await lost.get("/healthz")).status == 200


async def test_what_is_wrong_in_itself_is_told_all_the_same(lost):
    assert (await lost.post("/services/", {})).status == 422
    assert (await lost.get("/services/no/where")).status == 404
