"""``/alerts/rules`` over a real Postgres, and the book by which a daemon goes."""

from __future__ import annotations

import asyncpg
import pytest

from servmon.alerts.rule_book import RuleBook, with_rules
from servmon.alerts.settings import AlertSection, RuleKind, RuleSection
from servmon.services.alert_rules import AlertRuleService
from servmon.store.feed import CHANNEL
from servmon.store.local import LocalFile
from servmon.store.notebook import Notebook
from tests.fix_api import services_on, serving

SLOW = {"name": "slow web", "kind": "response_time", "threshold_ms": 800, "tags": ["web"]}
FILE = AlertSection(rules=(RuleSection(name="of the file", sites=("pop-north",)),))


@pytest.fixture
async def office(connection):
    """The API of a servmon whose file has one rule and two channels."""
    services = services_on(connection)
    services = type(services)(
        *(getattr(services, name) for name in ("connection", "availability", "outages", "alerts", "tokens")),
        AlertRuleService(connection, lambda: FILE, lambda: ("email", "noc")),
    )
    async with serving(services) as client:
        yield client


async def test_a_rule_is_made_shown_changed_replaced_and_deleted(office):
    made = await office.post("/alerts/rules", SLOW)
    assert (made.status, made.headers["Location"]) == (201, "/alerts/rules/slow%20web")
    assert made.json["window"] == 300
    assert made.json["source"] == "api"
    assert "count" not in made.json
    shown = await office.get("/alerts/rules/slow%20web")
    assert shown.json == made.json
    changed = await office.send("PATCH", "/alerts/rules/slow%20web", {"window": 600, "channels": ["noc"]})
    assert (changed.json["window"], changed.json["threshold_ms"], changed.json["channels"]) == (600, 800.0, ["noc"])
    replaced = await office.send("PUT", "/alerts/rules/slow%20web", {**changed.json, "window": 60, "channels": None})
    assert (replaced.json["window"], replaced.json["channels"]) == (60, None)
    bare = await office.send("PUT", "/alerts/rules/slow%20web", {"kind": "active_outages"})
    assert (bare.json["kind"], bare.json["tags"], bare.json["count"]) == ("active_outages", [], None)
    assert (await office.send("DELETE", "/alerts/rules/slow%20web")).status == 204
    assert (await office.get("/alerts/rules/slow%20web")).status == 404


async def test_the_list_has_the_files_first_then_those_made_here_then_what_holds_unwritten(office):
    await office.post("/alerts/rules", {"name": "b", "kind": "long_outage", "after": 60})
    await office.post("/alerts/rules", {"name": "a"})
    items = (await office.get("/alerts/rules")).json["items"]
    assert [(one["name"], one["source"]) for one in items] == [
        ("of the file", "config"),
        ("b", "api"),
        ("a", "api"),
        ("multiple_services_down", "default"),
    ]


@pytest.mark.parametrize(("name", "words"), [("of the file", "change it there"), ("long_outage", "servmon's own")])
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_what_is_the_files_or_servmons_own_is_read_only(office, method, name, words):
    reply = await office.send(method, f"/alerts/rules/{name}", None if method == "DELETE" else {"enabled": False})
    assert reply.status == 409
    assert words in reply.json["detail"]


async def test_a_name_is_given_once(office):
    assert (await office.post("/alerts/rules", {"name": "of the file"})).status == 409
    assert (await office.post("/alerts/rules", {"name": "a"})).status == 201
    assert (await office.post("/alerts/rules", {"name": "a"})).status == 409
    moved = await office.send("PATCH", "/alerts/rules/a", {"name": "b"})
    assert (moved.status, moved.wrong_fields) == (422, ["name"])


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "name"),
        ({"name": "a", "kind": "anomaly"}, "kind"),
        ({"name": "a", "threshold_ms": 5}, "threshold_ms"),
        ({"name": "a", "kind": "response_time", "window": 5}, "window"),
        ({"name": "a", "kind": "multiple_services_down", "count": 2, "share": 5}, "kind"),
        ({"name": "a", "channels": ["sms"]}, "channels"),
        ({"name": "a", "tags": ["a\x07b"]}, "tags"),
        ({"name": "isolated"}, "name"),
        ({"name": "a", "colour": "red"}, "colour"),
        ({"name": "a", "tags": "web"}, "tags"),
    ],
)
async def test_what_is_wrong_is_named(office, fields, field):
    reply = await office.post("/alerts/rules", fields)
    assert reply.status == 422, reply.body
    assert reply.wrong_fields == [field]


async def test_a_change_of_kind_takes_the_keys_of_the_old_one_away(office):
    await office.post("/alerts/rules", SLOW)
    changed = await office.send("PATCH", "/alerts/rules/slow%20web", {"kind": "long_outage", "after": 60})
    assert (changed.status, changed.json["after"], changed.json["tags"]) == (200, 60, ["web"])


async def test_every_change_stands_in_the_audit_with_before_and_after(office):
    await office.post("/alerts/rules", SLOW)
    await office.send("PATCH", "/alerts/rules/slow%20web", {"window": 600})
    last = (await office.get("/audit")).json["items"][0]
    assert (last["action"], last["before"]["window"], last["after"]["window"]) == ("update_rule", 300, 600)


async def test_a_daemon_hears_of_a_change_reads_it_and_knows_it_without_postgres(
    office, connection, database, tmp_path
):
    heard: list[str] = []
    listening = await asyncpg.connect(database)
    try:
        await listening.add_listener(CHANNEL, lambda *_: heard.append("changed"))
        book = RuleBook(connection.pool, Notebook(LocalFile(tmp_path)))
        assert not await book.refresh()
        await office.post("/alerts/rules", SLOW)
        await listening.execute("select")
        assert heard == ["changed"]
        assert await book.refresh()
        assert not await book.refresh()
    finally:
        await listening.close()
    later = RuleBook(connection.pool, Notebook(LocalFile(tmp_path)))
    await later.recall()
    assert later.stored == book.stored
    rules = with_rules(FILE, later.stored).rules_of(RuleKind.RESPONSE_TIME)
    assert [(rule.name, rule.threshold_ms) for rule in rules] == [("slow web", 800)]


async def test_a_rule_that_this_servmon_does_not_know_is_left_out(office, connection, tmp_path):
    await office.post("/alerts/rules", SLOW)
    await connection.pool.execute('update alert_rule set rule = rule || \'{"kind": "prophecy"}\'')
    book = RuleBook(connection.pool, Notebook(LocalFile(tmp_path)))
    await book.refresh()
    assert book.stored == ()
    assert (await office.get("/alerts/rules/slow%20web")).status == 404
