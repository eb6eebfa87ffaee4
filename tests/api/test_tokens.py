"""Tokens: made, shown once, with a role and an end, revoked at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from servmon.services.tokens import TokenBook, TokenService
from tests.fix_api import TOKEN


class SetClock:
    """A clock that shows what it is set to."""

    seconds = 0.0

    def wall(self) -> float:
        return self.seconds

    monotonic = wall


def bearer(token: str) -> dict[str, str]:
    return {"headers": {"Authorization": f"Bearer {token}"}}


async def test_a_token_is_shown_once_and_stored_as_a_digest(api, db):
    made = (await api.post("/tokens/", {"name": "wallboard"})).json
    assert made["token"].startswith(f"svm_{made['prefix']}_")
    assert (made["role"], made["created_by"], made["expires_at"]) == ("read", "admin", None)
    listed = (await api.get("/tokens/")).json["items"]
    assert listed == [{name: value for name, value in made.items() if name != "token"}]
    stored = await db.fetch("select t::text as whole from access_token t union all select a::text from audit a")
    assert len(stored) == 2
    assert not any(made["token"] in row["whole"] for row in stored)


async def test_a_new_token_counts_at_once_and_a_revoked_one_no_longer(api):
    made = (await api.post("/tokens/", {"name": "wallboard"})).json
    assert (await api.get("/services/", **bearer(made["token"]))).status == 200
    assert (await api.send("DELETE", f"/tokens/{made['id']}")).status == 204
    assert (await api.get("/services/", **bearer(made["token"]))).status == 401
    assert (await api.send("DELETE", f"/tokens/{made['id']}")).status == 404
    (shown,) = (await api.get("/tokens/")).json["items"]
    assert shown["revoked_at"] is not None


async def test_a_name_is_free_again_once_its_token_is_revoked(api):
    made = (await api.post("/tokens/", {"name": "wallboard"})).json
    assert (await api.post("/tokens/", {"name": "wallboard"})).status == 409
    await api.send("DELETE", f"/tokens/{made['id']}")
    assert (await api.post("/tokens/", {"name": "wallboard"})).status == 201


async def test_an_expired_token_does_not_count(connection):
    clock = SetClock()
    book = TokenBook([], clock)
    service = TokenService(connection, book)
    soon = datetime.now(UTC) + timedelta(hours=1)  # noqa: TID251 - the service has the real clock
    clock.seconds = soon.timestamp() - 60
    made = await service.create_token("night", "read", created_by="test", expires_at=soon)
    assert book.find(made["token"]).name == "night"
    clock.seconds = soon.timestamp()
    assert book.find(made["token"]) is None


async def test_every_wrong_field_of_a_new_token_is_named(api):
    cases = [
        ({}, ["name"]),
        ({"name": ""}, ["name"]),
        ({"name": "a\tb", "expires_at": "2020-01-01T00:00:00Z"}, ["name", "expires_at"]),
        ({"name": "a", "role": "root"}, ["role"]),
        ({"name": "a", "expires_at": "tomorrow"}, ["expires_at"]),
        ({"name": "a", "scope": "x"}, ["scope"]),
    ]
    for body, fields in cases:
        reply = await api.post("/tokens/", body)
        assert (reply.status, reply.wrong_fields) == (422, fields), body


async def test_after_many_wrong_tokens_an_address_has_to_wait_and_right_ones_still_count(door):
    replies = [await door.get("/metrics", **bearer(f"wrong{number}")) for number in range(35)]
    assert [reply.status for reply in replies] == [401] * 30 + [429] * 5
    assert 1 <= int(replies[-1].headers["Retry-After"]) <= 60
    assert (await door.get("/metrics", **bearer(TOKEN))).status == 200
