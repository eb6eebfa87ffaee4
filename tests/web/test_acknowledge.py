"""Links in messages: whoever looks changes nothing, the button acknowledges, and every other case has a clear page."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from servmon.alerts.alert import MessageKind
from servmon.alerts.channels import SETTINGS, open_channel
from servmon.alerts.channels.smtp import SmtpSection
from servmon.alerts.links import ACKNOWLEDGE_URL, VALID, BadLinkError, Claim, Links
from servmon.clock import now
from servmon.services.alerts import AlertService
from servmon.store import alerts
from servmon.store.alerts import Record
from tests.alerts.test_channels import message
from tests.fix_api import UNKNOWN_UUID, services_on, serving

PUBLIC = "https://servmon.example/monitor/"
KEY = "k" * 32
STRANGER = {"Authorization": ""}
ALERT = "00000000-0000-4000-8000-00000000a1e7"


def told(*outage_ids: str, kind: MessageKind = MessageKind.DOWN, **fields):
    """A message about these outages, all down."""
    outages = [{"outage_id": one, "endpoint_id": "e", "name": "E", "resolved_at": None} for one in outage_ids]
    return message(kind, alert_id=ALERT, content={"outages": outages}, **fields)


def link(*outage_ids: str, key: str = KEY, **fields) -> str:
    """The path of the link in such a message."""
    url = Links(PUBLIC, key).in_message(told(*outage_ids, **fields)).content[ACKNOWLEDGE_URL]
    assert url.startswith(f"{PUBLIC}ui/acknowledge/")
    return "/" + url.removeprefix(PUBLIC)


@pytest.fixture
async def pages(connection):
    async with serving(services_on(connection), links=Links(PUBLIC, KEY)) as client:
        await client.post("/services/", {"id": "edge-1", "name": "Edge <b>1</b>", "url": "tcp://127.0.0.1:1"})
        await client.post("/services/", {"id": "edge-2", "name": "Edge 2", "url": "tcp://127.0.0.1:1"})
        yield client


def text_of(reply) -> str:
    """What a person reads on the page."""
    body = reply.body.decode().partition("<main>")[2]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


async def seen_to(connection, outage) -> str | None:
    found = await AlertService(connection).explain(outage.id)
    return found["acknowledgement"] and found["acknowledgement"]["acknowledged_by"]


async def test_looking_changes_nothing_and_the_button_acknowledges_once(pages, history, connection):
    outage = await history.outage("edge-1")
    where = link(outage.id)
    for method in ("GET", "HEAD", "GET"):
        reply = await pages.send(method, where, headers=STRANGER)
        assert reply.status == 200
        assert await seen_to(connection, outage) is None
    assert '<form method="post"><button type="submit">I see to it</button></form>' in reply.body.decode()
    assert "Edge <b>1</b>: does somebody see to it?" in text_of(reply)
    assert "<b>1" not in reply.body.decode()
    for _ in range(2):
        reply = await pages.post(where, headers=STRANGER)
        assert reply.status == 200
        assert "noc (by a link) sees to it, since" in text_of(reply)
        assert b"<form" not in reply.body
    assert await seen_to(connection, outage) == "noc (by a link)"
    changes = (await pages.get("/audit?action=acknowledge_by_link")).json["items"]
    assert [(one["who"], one["target"], one["address"]) for one in changes] == [
        ("noc (by a link)", f"/outages/{outage.id}", "127.0.0.1")
    ]


async def test_the_form_as_a_browser_sends_it_with_what_a_mail_program_appended(pages, history, connection):
    outage = await history.outage("edge-1")
    as_browsers_do = {**STRANGER, "Origin": "null", "Content-Type": "application/x-www-form-urlencoded"}
    where = f"{link(outage.id)}?utm_source=mail&x="
    assert (await pages.get(where, headers=STRANGER)).status == 200
    assert (await pages.send("POST", where, headers=as_browsers_do, data=b"")).status == 200
    assert await seen_to(connection, outage) == "noc (by a link)"


async def test_who_saw_to_it_first_stays(pages, history, connection):
    outage = await history.outage("edge-1")
    await AlertService(connection).acknowledge(outage.id, "alice")
    reply = await pages.post(link(outage.id), headers=STRANGER)
    assert "Somebody sees to it" in text_of(reply)
    assert await seen_to(connection, outage) == "alice"


async def test_what_is_over_is_said_to_be_over(pages, history, connection):
    outage = await history.outage("edge-1", resolved=True)
    for method in ("GET", "POST"):
        reply = await pages.send(method, link(outage.id), headers=STRANGER)
        assert (reply.status, b"<form" in reply.body) == (200, False)
        assert text_of(reply).startswith("It is over Edge <b>1</b> up again was down from")
    assert await seen_to(connection, outage) is None


async def test_a_link_for_several_is_for_those_of_its_alert(pages, history, connection, database):
    down = [await history.outage("edge-1"), await history.outage("edge-2")]
    async with connection.pool.acquire() as db:
        await store_alert(db, down)
    where = link(*(one.id for one in down))
    reply = await pages.get(where, headers=STRANGER)
    assert "2 outages: does somebody see to it?" in text_of(reply)
    assert ">I see to all 2</button>" in reply.body.decode()
    await pages.post(where, headers=STRANGER)
    assert [await seen_to(connection, one) for one in down] == ["noc (by a link)"] * 2


async def store_alert(db, outages) -> None:
    at = outages[0].declared_at
    alert = {
        "id": ALERT, "rule": "service_down", "title": "2 endpoints", "severity": "MAJOR", "opened_at": at,
        "told_at": at, "channels": ["noc"], "reminders": 0, "closed_at": None,
    }  # fmt: skip
    members = [
        {
            "alert_id": ALERT, "outage_id": one.id, "endpoint_id": one.endpoint_id, "name": one.endpoint_id,
            "start_time": one.start_time, "resolved_at": None,
        }
        for one in outages
    ]  # fmt: skip
    await alerts.record(db, Record([], [alert], members, [], [], [], at))


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_a_link_that_nobody_signed_opens_nothing(pages, history, connection, method):
    outage = await history.outage("edge-1")
    good = link(outage.id)
    payload, _, signature = good.partition(".")
    other = link(UNKNOWN_UUID)
    forged = (
        link(outage.id, key="x" * 32), payload, f"{payload}.", f"{payload}.{signature[:-1]}", good + "A",
        f"{other.partition('.')[0]}.{signature}", "/ui/acknowledge/..%2F..", "/ui/acknowledge/%00", "/ui/acknowledge/ü",
        f"/ui/acknowledge/{'A' * 4000}.B",
    )  # fmt: skip
    for where in forged:
        reply = await pages.send(method, where, headers=STRANGER)
        assert reply.status == 403, where
        assert method == "HEAD" or "This link is not valid" in text_of(reply)
        assert b"Edge" not in reply.body
    assert await seen_to(connection, outage) is None


async def test_an_old_link_has_expired(pages, history, connection):
    outage = await history.outage("edge-1")
    links = Links(PUBLIC, KEY)
    token = links.token(Claim(outage.id, None, "noc", now() - timedelta(seconds=1)))
    for method in ("GET", "POST"):
        reply = await pages.send(method, f"/ui/acknowledge/{token}", headers=STRANGER)
        assert reply.status == 410
        assert "This link has expired" in text_of(reply)
    assert await seen_to(connection, outage) is None


async def test_an_outage_that_is_gone_is_no_riddle(pages):
    reply = await pages.post(link(UNKNOWN_UUID), headers=STRANGER)
    assert reply.status == 404
    assert "This outage is not known any more" in text_of(reply)


async def test_while_postgres_is_away_the_page_says_so(connection):
    async with serving(services_on(connection), links=Links(PUBLIC, KEY)) as client:
        await connection.pool.close()
        for method in ("GET", "POST"):
            reply = await client.send(method, link(UNKNOWN_UUID), headers=STRANGER)
            assert reply.status == 503
            assert "cannot reach its database just now Nothing was changed." in text_of(reply)
            assert reply.headers["Retry-After"]


async def test_the_page_may_do_nothing_but_send_its_form(pages, history):
    outage = await history.outage("edge-1")
    reply = await pages.get(link(outage.id), headers=STRANGER)
    policy = reply.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "form-action 'self'; base-uri 'none'; frame-ancestors 'none'" in policy
    assert (reply.headers["Referrer-Policy"], reply.headers["X-Frame-Options"]) == ("no-referrer", "DENY")
    assert reply.headers["Cache-Control"] == "no-store"
    body = reply.body.decode()
    assert re.findall(r"https?:|src=|href=|<script|javascript:|\son\w+=|@import|url\(", body) == []


async def test_without_a_public_url_there_is_no_page(connection):
    async with serving(services_on(connection)) as client:
        assert (await client.get("/ui/acknowledge/x", headers=STRANGER)).status == 404


# The links themselves


class Clock:
    """Stands still."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def wall(self) -> float:
        return self._seconds


def test_a_link_ends_after_three_days():
    at = 1_800_000_000.0
    token = Links(PUBLIC, KEY, Clock(at)).in_message(told(UNKNOWN_UUID)).content[ACKNOWLEDGE_URL].rpartition("/")[2]
    ends_at = at + VALID.total_seconds()
    claim = Links(PUBLIC, KEY, Clock(ends_at - 1)).read(token)
    assert claim == Claim(UNKNOWN_UUID, None, "noc", datetime.fromtimestamp(ends_at, UTC))
    with pytest.raises(BadLinkError) as caught:
        Links(PUBLIC, KEY, Clock(ends_at)).read(token)
    assert caught.value.expired


@pytest.mark.parametrize(
    ("kind", "outages", "linked"),
    [
        (MessageKind.DOWN, 1, True), (MessageKind.DOWN, 2, True), (MessageKind.RAISED, 1, True),
        (MessageKind.REMINDER, 1, True), (MessageKind.PARTLY, 2, True), (MessageKind.WINDOW_OVER, 1, True),
        (MessageKind.WINDOW_OVER, 2, False), (MessageKind.RECOVERED, 1, False), (MessageKind.EVENT, 0, False),
        (MessageKind.DOWN, 0, False), (MessageKind.SUMMARY, 1, False), (MessageKind.ESCALATED, 1, True),
        (MessageKind.LONG, 1, True), (MessageKind.RULE, 0, False),
    ],
)  # fmt: skip
def test_there_is_a_link_where_there_is_something_to_see_to(kind, outages, linked):
    given = told(*[UNKNOWN_UUID] * outages, kind=kind)
    assert (ACKNOWLEDGE_URL in Links(PUBLIC, KEY).in_message(given).content) is linked


def test_slow_answers_are_no_outage_that_somebody_could_see_to():
    given = told(UNKNOWN_UUID)
    slow = replace(given, content={**given.content, "rule_kind": "response_time"})
    assert Links(PUBLIC, KEY).in_message(slow).body == given.body


def test_what_is_over_by_then_has_no_link():
    given = told(UNKNOWN_UUID)
    over = [{**given.content["outages"][0], "resolved_at": "2026-11-24T03:00:00.000000Z"}]
    assert Links(PUBLIC, KEY).in_message(replace(given, content={"outages": over})).body == given.body


async def test_every_link_of_every_mail_can_be_looked_at_without_harm(pages, history, connection, mail_server):
    """As mail scanners do: GET and HEAD on whatever looks like an address, in all parts."""
    server = await mail_server()
    outage = await history.outage("edge-1")
    section = SmtpSection(
        host="127.0.0.1", port=server.port, tls="none", sender="a@isp.example", recipients=("b@isp.example",)
    )
    words = SETTINGS["smtp"](**{**section.model_dump(), "html": "<a href='{{ acknowledge_url }}'>{{ title }}</a>"})
    for settings in (section, words):
        channel = open_channel(settings, Links(PUBLIC, KEY))
        for kind in (MessageKind.DOWN, MessageKind.RAISED, MessageKind.REMINDER):
            await channel.send(told(outage.id, kind=kind))
    found = []
    for mail in server.mails:
        for kind in ("plain", "html"):
            said = html.unescape(mail.get_body((kind,)).get_content())
            found += re.findall(rf"{re.escape(PUBLIC)}([^\s\"'<]+)", said)
    assert len(found) == 3 * (1 + 2) + 3 * 2
    for path in found:
        for method in ("HEAD", "GET"):
            assert (await pages.send(method, f"/{path}", headers=STRANGER)).status == 200
    assert await seen_to(connection, outage) is None
    await pages.post(f"/{found[0]}", headers=STRANGER)
    assert await seen_to(connection, outage) == "noc (by a link)"


async def test_the_link_is_in_what_machines_read_too(web_server):
    server = await web_server()
    settings = SETTINGS["webhook"](url=server.url + "/", allow_networks=("127.0.0.0/8",))
    await open_channel(settings, Links(PUBLIC, KEY)).send(told(UNKNOWN_UUID))
    assert f'"acknowledge_url": "{PUBLIC}ui/acknowledge/' in server.requests[0].body.decode()
