"""What the pages show: of what is stored, of what is remembered, of hostile names, and while Postgres is away."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from servmon.api.health import Vitals
from servmon.api.requests import DEFAULT_LIMIT
from servmon.clock import now
from servmon.model import FailureKind, Outage, Phases, Severity, Status
from servmon.services.alerts import AlertService
from servmon.web import overview
from servmon.web import page as pages
from servmon.web.overview import by_cause
from tests.fix_api import OPERATE_TOKEN, READ_TOKEN, UNKNOWN_UUID, services_on, serving, window
from tests.fix_pages import BROWSER, page_of, send_form, text_of

HOSTILE = "<script>alert('x')</script>\" onload=\"x & </title>"
AWAY = "Postgres is away: this is what servmon remembers"


async def create(api, endpoint_id: str, **fields) -> None:
    body = {"id": endpoint_id, "url": "tcp://192.0.2.1:1", "name": endpoint_id.upper(), **fields}
    assert (await api.post("/services/", body)).status == 201


async def shown(api, path: str) -> str:
    reply = await api.get(path, headers=BROWSER)
    assert reply.status == 200, text_of(reply)
    return text_of(reply)


def links(reply) -> list[str]:
    return [html.unescape(one) for one in re.findall(r'href="([^"]*)"', reply.body.decode())]


async def test_the_overview_says_what_is_down_since_when_and_who_sees_to_it(api, history, connection):
    for endpoint_id in ("edge-1", "edge-2", "fine"):
        await create(api, endpoint_id)
    await history.check("fine", Status.UP)
    await history.check("edge-1", Status.DOWN)
    older = await history.outage("edge-1", minutes=125)
    newer = await history.outage("edge-2", minutes=10)
    await AlertService(connection).acknowledge(older.id, "alice", "on my way")
    await api.post("/maintenance/", window("fine", description="fibre work"))
    reply = await api.get("/ui/", headers=BROWSER)
    said = text_of(reply)
    assert "1 down 0 degraded 1 unknown 1 up 1 in a window" in said
    assert "2 open outages" in said
    assert re.search(r"EDGE-2 10 min connection refused since .* EDGE-1 2 h 5 min connection refused", said)
    assert re.search(r"alice sees to it, since [-\d]+ [:\d]+ UTC : on my way", said)
    assert "Planned work now fibre work until" in said
    assert {f"../ui/outages/{newer.id}", "../ui/services/edge-1", "../ui/services/?status=DOWN"} <= set(links(reply))
    assert '<meta http-equiv="refresh" content="30">' in reply.body.decode()
    assert "<title>2 down - servmon</title>" in reply.body.decode()


async def test_where_nothing_is_watched_nothing_is_down(api):
    assert "Nothing is down, and nothing is watched yet. Planned work now None." in await shown(api, "/ui/")


async def test_what_fails_and_is_no_outage_yet_stands_below_what_is_down(daemon, connection, monkeypatch):
    monkeypatch.setattr(overview, "SUSPECTS_SHOWN", 1)
    for view in (daemon.view, None):
        async with serving(services_on(connection, view), live=view) as api:
            if view is not None:
                assert "not yet an outage" not in await shown(api, "/ui/")
                for endpoint_id in ("a", "b"):
                    await create(api, endpoint_id, detection_threshold=3)
                    await daemon.finds(endpoint_id, Status.DOWN, error_message=HOSTILE)
            said = await shown(api, "/ui/")
            assert re.search(r"Nothing is down. Failing, not yet an outage 2 services A \d+ s <script>alert", said)
            assert re.search(r"since [-\d]+ [:\d]+ UTC · 1 failed check · an outage after 2 more … and 1 more Pl", said)
            assert b"<script>" not in (await api.get("/ui/", headers=BROWSER)).body


async def test_servmons_own_troubles_stand_on_the_overview(connection):
    vitals = Vitals(degraded=lambda: ["alerts: the <mail> server is away"])
    async with serving(services_on(connection), vitals=vitals) as api:
        reply = await api.get("/ui/", headers=BROWSER)
    assert "servmon itself alerts: the <mail> server is away" in text_of(reply)


def outage_of(endpoint_id: str, minutes: int, caused_by: str | None = None) -> Outage:
    start = now() - timedelta(minutes=minutes)
    return Outage(endpoint_id, endpoint_id, Severity.MAJOR, "", start, start, caused_by=caused_by)


def test_what_another_one_causes_stands_below_it():
    found = by_cause(
        [
            outage_of("leaf", 1, "switch"), outage_of("own", 2), outage_of("switch", 3, "router"),
            outage_of("orphan", 4, "gone"), outage_of("router", 5), outage_of("self", 6, "self"),
            outage_of("a", 7, "b"), outage_of("b", 8, "a"),
        ]
    )  # fmt: skip
    below = {trouble.outage.id: [one.id for one in trouble.causes] for trouble in found}
    assert list(below)[:4] == ["own", "orphan", "router", "self"]
    assert below["router"] == ["leaf", "switch"]
    # Nobody is lost where each is said to be the other's doing.
    assert {"a", "b"} <= below.keys()


async def test_services_are_found_by_status_site_tag_and_text(api, history):
    await create(api, "a", site="pop north", tags=["core"])
    await create(api, "b", name="Mail & more", site="dc")
    await create(api, "off", is_active=False)
    await history.check("a", Status.DOWN)
    for query, expected in (
        ("", {"a", "b", "off"}), ("?status=&site=&tag=&q=", {"a", "b", "off"}), ("?status=DOWN", {"a"}),
        ("?site=pop+north", {"a"}), ("?tag=core", {"a"}), ("?q=%26+MORE", {"b"}), ("?site=dc&status=DOWN", set()),
        ("?utm_source=mail", {"a", "b", "off"}),
    ):  # fmt: skip
        reply = await api.get(f"/ui/services{query}", headers=BROWSER)
        found = {one.rpartition("/")[2] for one in links(reply) if "/services/" in one}
        assert found - {""} == expected, query
        assert ("No service fits." in text_of(reply)) == (not expected)
    assert 'value="pop north"' in (await api.get("/ui/services/?site=pop+north", headers=BROWSER)).body.decode()
    said = await shown(api, "/ui/services/")
    assert re.search(r"DOWN A a connection refused tcp://192.0.2.1:1 pop north .*UNKNOWN Mail & more b .*OFF OFF", said)


async def test_lists_go_on_where_the_page_before_ended(api, connection, history):
    bulk = [
        {"action": "create", "fields": {"id": f"e{n:03}", "url": "tcp://192.0.2.1:1"}} for n in range(DEFAULT_LIMIT + 1)
    ]
    assert (await api.post("/services/bulk", {"operations": bulk})).status == 200
    first = await api.get("/ui/services/?q=e", headers=BROWSER)
    assert "e100" not in text_of(first)
    (further,) = [one for one in links(first) if one.startswith("?")]
    assert further.startswith("?q=e&cursor=")
    second = await api.get(f"/ui/services/{further}", headers=BROWSER)
    assert [one for one in links(second) if one.startswith("../../ui/services/e")] == ["../../ui/services/e100"]
    assert [one for one in links(second) if one.startswith("?")] == ["?"]


async def test_a_service_shows_what_is_known_of_it(api, history):
    about = {"owner": "NOC", "runbook_url": "https://wiki.isp.example/?a=1&b=2"}
    await create(api, "router", site="pop")
    await create(api, "a", site="pop", tags=["core"], depends_on=["router"], **about)
    await history.check("a", Status.UP, Status.DOWN)
    outage = await history.outage("a", resolved=True)
    await api.post("/maintenance/", window("a", description="card swap", start=5, end=6))
    reply = await api.get("/ui/services/a", headers=BROWSER)
    said = text_of(reply)
    for part in (
        "DOWN A", "connection refused (refused)", "Target TCP tcp://192.0.2.1:1", "Site pop", "Tags core", "Owner NOC",
        "Depends on router", "Last 24 hours available", "Last 30 days available", "Planned work card swap from",
        "Outages OVER A 5 min", "suspected → down : tested", "Last checks", "UP", "12.5 ms",
    ):  # fmt: skip
        assert part in said, part
    assert {"https://wiki.isp.example/?a=1&b=2", f"../../ui/outages/{outage.id}"} <= set(links(reply))
    assert "Takes down a" in await shown(api, "/ui/services/router")
    assert "It is switched off" not in said


async def test_a_service_that_is_off_or_was_never_checked_says_so(api):
    await create(api, "new")
    await create(api, "off", is_active=False)
    assert "It was not checked yet." in await shown(api, "/ui/services/new")
    assert "It is switched off: nobody asks it." in await shown(api, "/ui/services/off")


async def test_an_outage_shows_what_happened_and_who_may_sees_to_it_by_a_button(api, history):
    await create(api, "a")
    outage = await history.outage("a", description="host answers ping, port 443 refuses")
    where = f"/ui/outages/{outage.id}"
    reader, operator = await page_of(api, READ_TOKEN), await page_of(api, OPERATE_TOKEN)
    reply = await api.get(where, headers=reader, skip_token=True)
    assert "A is down for 30 min host answers ping, port 443 refuses Nobody sees to it yet." in text_of(reply)
    assert b"/acknowledge" not in reply.body
    assert (await send_form(api, f"{where}/acknowledge", reader, note="")).status == 403
    reply = await api.get(where, headers=operator, skip_token=True)
    assert f'action="../../ui/outages/{outage.id}/acknowledge"' in reply.body.decode()
    strangers = {**operator, "Origin": "https://evil.example"}
    assert (await send_form(api, f"{where}/acknowledge", strangers, note="")).status == 403
    reply = await send_form(api, f"{where}/acknowledge", operator, note="<b>card</b> swap")
    assert (reply.status, reply.headers["Location"]) == (303, f"../../../ui/outages/{outage.id}")
    said = await shown(api, where)
    assert re.search(r"operator sees to it, since \S+ \S+ UTC : <b>card</b> swap", said)
    assert re.search(r"What happened .* suspected → down: tested .* acknowledged by operator: <b>card</b> swap", said)


async def test_the_button_is_noted_in_the_audit_just_as_the_change_through_the_api(api, history):
    await create(api, "a")
    outage = await history.outage("a")
    await send_form(api, f"/ui/outages/{outage.id}/acknowledge", await page_of(api), note="x")
    await api.post(f"/outages/{outage.id}/acknowledge", {"note": "x"})
    entries = (await api.get("/audit?action=acknowledge_outage")).json["items"]
    assert len(entries) == 2
    by_button, by_api = [
        {**one, "at": "", "request_id": "", "after": {**one["after"], "acknowledged_at": ""}} for one in entries
    ]
    assert by_button == by_api


async def test_the_button_refuses_what_is_over_unknown_or_too_long(api, history):
    await create(api, "a")
    page = await page_of(api)
    over = await history.outage("a", resolved=True)
    reply = await send_form(api, f"/ui/outages/{over.id}/acknowledge", page, note="")
    assert (reply.status, "the outage is over" in text_of(reply)) == (409, True)
    assert (await send_form(api, f"/ui/outages/{UNKNOWN_UUID}/acknowledge", page)).status == 404
    assert (await send_form(api, f"/ui/outages/{over.id}/acknowledge", page, note="x" * 2001)).status == 422
    assert b"/acknowledge" not in (await api.get(f"/ui/outages/{over.id}", headers=page, skip_token=True)).body


async def test_outages_are_found_by_state_severity_and_service(api, history):
    for endpoint_id in ("a", "b"):
        await create(api, endpoint_id)
    over, still = await history.outage("a", resolved=True), await history.outage("b")
    for query, expected in (
        ("", {over.id, still.id}), ("?state=open&severity=&endpoint_id=", {still.id}), ("?state=over", {over.id}),
        ("?endpoint_id=a", {over.id}), ("?severity=CRITICAL", set()),
    ):  # fmt: skip
        reply = await api.get(f"/ui/outages/{query}", headers=BROWSER)
        assert {one[-36:] for one in links(reply) if "/outages/" in one} - {"../../ui/outages/"} == expected, query


async def test_planned_work_is_listed_and_each_window_has_its_page(api):
    await create(api, "a", site="pop", tags=["core"])
    body = window(
        "a", sites=["pop"], tags=["core"], description="card <i>swap</i>", rrule="FREQ=WEEKLY", timezone="UTC"
    )
    made = (await api.post("/maintenance/", body)).json
    reply = await api.get("/ui/maintenance/", headers=BROWSER)
    assert re.search(
        r"card <i>swap</i> until .* more mute, again and again: a; site pop; tag core; by admin", text_of(reply)
    )
    assert f"../../ui/maintenance/{made['id']}" in links(reply)
    said = await shown(api, f"/ui/maintenance/{made['id']}")
    assert "Sites pop Tags core Services a Rule FREQ=WEEKLY (UTC) Next" in said
    assert "Planned by admin" in said


async def test_names_and_messages_of_strangers_are_text_and_nothing_else(api, daemon, connection, history):
    fields = {"name": HOSTILE, "site": HOSTILE, "tags": [HOSTILE], "owner": HOSTILE, "contact": HOSTILE}
    await create(api, "h", **fields)
    await daemon.view.refresh()
    await daemon.finds("h", Status.DOWN, failure_kind=FailureKind.PATTERN, error_message=HOSTILE)
    outage_id = daemon.view.current("h").outage_id
    await api.post(f"/outages/{outage_id}/notes", {"text": HOSTILE})
    await api.post("/maintenance/", window("h", description=HOSTILE))
    made = (await api.get("/maintenance/")).json["items"][0]["id"]
    vitals = Vitals(degraded=lambda: [HOSTILE])
    async with serving(services_on(connection, daemon.view), live=daemon.view, vitals=vitals) as live:
        page = await page_of(live)
        await send_form(live, f"/ui/outages/{outage_id}/acknowledge", page, note=HOSTILE)
        for path in (
            "", "services/", "services/h", "outages/", f"outages/{outage_id}", "maintenance/", f"maintenance/{made}",
            f"services/?{urlencode({'q': HOSTILE})}", f"outages/?{urlencode({'site': HOSTILE})}",
        ):  # fmt: skip
            reply = await live.get(f"/ui/{path}", headers=page, skip_token=True)
            body = reply.body.decode()
            assert reply.status == 200, path
            assert (
                re.findall(r"<script|</title>.*</title>|javascript:|\" onload|@import|url\(", body, re.DOTALL) == []
            ), path
            assert HOSTILE in html.unescape(body), path
            assert "form-action 'self'" in reply.headers["Content-Security-Policy"]
            assert re.findall(r"(?:src|action|href)=\"(?!\.|\?|#)[^\"]*\"", body) == [], path


async def seen_by(daemon, connection, do: Callable[[Any], Any]) -> None:
    async with serving(
        services_on(connection, daemon.view), live=daemon.view, vitals=Vitals(is_away=lambda: daemon.away)
    ) as api:
        await create(api, "router", name="Core router")
        await create(api, "a", depends_on=["router"])
        await daemon.finds("a", Status.UP, phases=Phases(connect_ms=1.5))
        await daemon.finds("router", Status.DOWN, error_message="it is off")
        await do(api)


async def test_while_postgres_is_away_the_pages_show_what_the_daemon_remembers(daemon, connection):
    async def look(api) -> None:
        outage_id = daemon.view.current("router").outage_id
        page = await page_of(api)
        daemon.away = True
        await connection.pool.close()
        for path, parts in (
            ("", ["1 down 0 degraded 0 unknown 1 up", "Core router 0 s", "Not known while Postgres is away."]),
            ("services/", ["DOWN Core router router", "it is off", "UP A a"]),
            ("services/?status=DOWN&q=core", ["DOWN Core router router"]),
            ("services/router", ["down since", "it is off", "Takes down a"]),
            ("outages/?state=open", ["Core router 0 s"]),
            (f"outages/{outage_id}", ["Core router is down for 0 s", "What the verdict rests on"]),
        ):
            reply = await api.get(f"/ui/{path}", headers=page, skip_token=True)
            assert (reply.status, reply.headers["Servmon-Stale"]) == (200, "true"), (path, text_of(reply))
            assert AWAY in reply.body.decode(), path
            for part in parts:
                assert part in text_of(reply), (path, part)
            assert b"/acknowledge" not in reply.body
        for path in ("outages/", "maintenance/", "services/nobody"):
            reply = await api.get(f"/ui/{path}", headers=page, skip_token=True)
            assert (reply.status, "Retry-After" in reply.headers) == (503, True), path
            assert text_of(reply).startswith("Not just now "), path
            assert AWAY not in reply.body.decode(), path
        reply = await send_form(api, f"/ui/outages/{outage_id}/acknowledge", page)
        assert reply.status == 503

    await seen_by(daemon, connection, look)


async def test_when_postgres_goes_away_under_a_page_it_says_so_too(daemon, connection):
    async def look(api) -> None:
        await connection.pool.close()
        for path in ("", "services/router"):
            reply = await api.get(f"/ui/{path}", headers=BROWSER)
            assert (reply.status, AWAY in reply.body.decode()) == (200, True), path

    await seen_by(daemon, connection, look)


async def test_templates_are_read_beside_the_checks_and_once(door):
    pages._read_templates.cache_clear()
    pages._environment.cache_clear()
    await door.get("/ui/login", headers=BROWSER)
    assert pages._read_templates.cache_info().currsize == 1
    assert {name for _, name in [*pages._environment().cache]} >= {
        "login.html",
        "overview.html",
        "outage.html",
        "parts.html",
    }


@pytest.mark.parametrize(("value", "said"), [(100.0, "100.000 %"), (99.99999, "99.999 %"), (-1e-9, "0.000 %")])
def test_only_what_was_never_down_was_up_for_all_of_the_time(value, said):
    assert pages._percent(value) == said
