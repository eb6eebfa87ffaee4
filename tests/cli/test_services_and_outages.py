"""``servmon services`` and ``servmon outages`` against a real API, as a user or a script calls them."""

from __future__ import annotations

import json

from servmon.cli.services import LISTED, STATES
from servmon.cli.tables import table
from servmon.cli.when import readable
from servmon.clock import rfc3339
from servmon.model import State, Status
from tests.fix_api import OPERATE_TOKEN, READ_TOKEN, UNKNOWN_UUID, window
from tests.fix_cli import command, on_terminal, where
from tests.fix_servers import Page


async def test_an_endpoint_from_its_first_day_to_its_last(cli, open_port):
    target = f"tcp://127.0.0.1:{open_port}"
    assert await cli("services", "list") == (0, "", "")
    added = await cli("services", "add", "shop", target, "-o", "check_interval=30", "--site", "pop-north", "--tag", "a")
    assert added == (0, "shop is checked every 30 s\n", "")
    code, out, _ = await cli("services", "list", "--site", "pop-north")
    assert (code, out) == (0, f"shop\tunknown\t\t\tTCP\tpop-north\t30 s\ta\t{target}\t\n")
    assert await cli("services", "list", "--site", "elsewhere") == (0, "", "")
    code, out, _ = await cli("services", "update", "shop", "-o", "timeout=2.5", "--json")
    assert (code, json.loads(out)["timeout"]) == (0, 2.5)
    code, out, _ = await cli("services", "check", "shop")
    assert code == 0
    assert out.startswith("UP  shop: answered in ")
    code, out, _ = await cli("services", "show", "shop")
    assert f"url\t{target}" in out.splitlines()
    assert "now_status\tUP" in out.splitlines()
    code, out, _ = await cli("services", "history", "shop")
    assert [line.split("\t")[1] for line in out.splitlines()] == ["UP"]
    assert await cli("services", "remove", "shop") == (0, "shop is watched no longer; its history stays\n", "")
    assert await cli("services", "show", "shop") == (1, "", "there is no service endpoint with the id shop\n")


async def test_the_list_tells_the_state_of_each_and_since_when_and_chooses_by_it(cli, api, history):
    for endpoint_id, fields in (("shop", {}), ("mail", {}), ("edge", {}), ("old", {"is_active": False})):
        assert (await api.post("/services/", {"id": endpoint_id, "url": "tcp://192.0.2.1:1", **fields})).status == 201
    await history.check("mail", Status.DOWN)
    opened = await history.outage("shop")
    await api.post("/maintenance/", window("edge"))

    async def listed(*options):
        code, out, err = await cli("services", "list", *options)
        assert (code, err) == (0, "")
        return [line.split("\t") for line in out.splitlines()]

    since = readable(rfc3339(opened.declared_at))
    assert [row[:4] for row in await listed()] == [
        ["edge", "unknown", "", "now"],
        ["mail", "unknown", "", ""],
        ["old", "inactive", "", ""],
        ["shop", "down", since, ""],
    ]
    assert [row[0] for row in await listed("--state", "Down")] == ["shop"]
    assert [(row[0], row[-1]) for row in await listed("--status", "down")] == [("mail", "connection refused")]
    assert [row[0] for row in await listed("--state", "maintenance")] == ["edge"]
    (whole,) = json.loads((await cli("services", "list", "--state", "down", "--json"))[1])["items"]
    assert (whole["check_interval"], whole["now"]["outage_id"]) == (60, opened.id)
    code, out, err = await cli("services", "list", "--state", "dead")
    assert (code, out, "'dead' is none of up, degraded, suspected, down" in " ".join(err.split())) == (2, "", True)
    assert {*STATES} == {*State, "maintenance"}


def test_a_list_of_services_fits_a_terminal_of_eighty_columns():
    now = {"state": "suspected", "since": "2026-11-26T03:02:01.000000Z", "in_maintenance": False, "error_message": None}
    row = {"id": "edge-router-1", "protocol": "HTTPS", "site": "pop-north", "check_interval": 60, "tags": ["core"]}
    up, failing = (
        {**row, "url": "https://edge-1.pop-north.isp.example/", "now": one}
        for one in (now, {**now, "error_message": "no answer within 5 s from any of the four addresses"})
    )
    heading, line = table(LISTED, [up], 80)
    assert heading.split() == ["ID", "STATE", "SINCE", "SITE", "URL"]
    assert (len(line) <= 80, line.split()[:3]) == (True, ["edge-router-1", "suspected", "2026-11-26"])
    heading, line = table(LISTED, [failing], 80)
    assert heading.split() == ["ID", "STATE", "SINCE", "SITE", "WHY"]
    assert (len(line), line.endswith("…")) == (80, True)
    assert next(table(LISTED, [failing], 200)).split()[-3:] == ["TAGS", "URL", "WHY"]


async def test_a_check_exits_as_a_plugin_does(cli, closed_port):
    await cli("services", "add", "dead", f"tcp://127.0.0.1:{closed_port}", "-o", "retries=0")
    code, out, err = await cli("services", "check", "dead")
    assert (code, err) == (2, "")
    assert out == f"DOWN  dead: 127.0.0.1:{closed_port} refused the connection\n"
    await cli("services", "add", "dead-too", f"tcp://127.0.0.1:{closed_port}", "-o", "retries=0")
    code, out, _ = await cli("services", "check", "dead-too", "--json")
    assert (code, json.loads(out)["failure_kind"]) == (2, "refused")
    assert (await cli("services", "check", "nobody"))[0] == 3
    assert (await command("services", "check"))[0] == 3


async def test_outages_are_listed_acknowledged_and_resolved(cli, api, history):
    await api.post("/services/", {"id": "shop", "url": "tcp://127.0.0.1:1"})
    old = await history.outage("shop", minutes=50, resolved=True)
    opened = await history.outage("shop")
    code, out, err = await cli("outages", "list")
    assert (code, err, len(out.splitlines())) == (0, "", 1)
    line = out.rstrip("\n").split("\t")
    assert (line[0], line[1], line[4], line[6]) == ("shop", "MAJOR", "open", opened.id)
    code, out, _ = await cli("outages", "list", "--all", "--json")
    assert [one["id"] for one in json.loads(out)["items"]] == [opened.id, old.id]
    code, out, _ = await cli("outages", "list", "--all", "--limit", "1")
    assert len(out.splitlines()) == 1
    seen = await cli("outages", "acknowledge", opened.id, "on my way", token=OPERATE_TOKEN)
    assert seen == (0, "acknowledged by operator: nobody is reminded of it\n", "")
    code, out, _ = await cli("outages", "explain", opened.id)
    assert "acknowledged by operator: on my way" in out
    assert (await cli("outages", "unacknowledge", opened.id))[0] == 0
    assert "acknowledged" not in (await cli("outages", "explain", opened.id))[1]
    code, out, _ = await cli("outages", "resolve", opened.id, "a new card")
    assert (code, out.startswith("the outage of shop is resolved")) == (0, True)
    code, out, _ = await cli("outages", "show", opened.id)
    assert "resolution_notes\ta new card" in out.splitlines()
    assert await cli("outages", "list") == (0, "", "")


async def test_what_is_refused_is_a_sentence_on_stderr(cli, closed_port, tmp_path):
    code, out, err = await cli("services", "add", "x", "tcp://127.0.0.1:1", "-o", "timeout=-1", "-o", "timeot=3")
    assert (code, out) == (1, "")
    assert [line.partition(":")[0] for line in err.splitlines()] == ["timeout", "timeot"]
    code, _, err = await cli("services", "add", "x", "tcp://127.0.0.1:1", token=READ_TOKEN)
    assert (code, len(err.splitlines())) == (1, 1)
    assert await cli("services", "list", token="svm_0_wrong") == (1, "", "this token is not known here\n")
    assert (await cli("outages", "show", UNKNOWN_UUID))[0] == 1
    assert (await cli("services", "show", "a/../b"))[0] == 1
    code, _, err = await cli("services", "update", "x")
    assert (code, err) == (2, "nothing to change: say --option NAME=VALUE, --site or --tag\n")
    code, _, err = await command("services", "list", *where(tmp_path, f"http://127.0.0.1:{closed_port}"))
    assert (code, err) == (1, f"no servmon answers at http://127.0.0.1:{closed_port}: Connection refused\n")


async def test_odd_ids_and_words_get_a_sentence_too(cli):
    for odd in ("a b", "..", "a?b", "x" * 300, "\udcff", "\x1b[2J"):
        code, out, err = await cli("services", "show", odd)
        assert (code, out, "\x1b" in err) == (1, "", False)
    assert await cli("services", "list", "--text", "\udcff") == (0, "", "")
    assert (await cli("services", "add", "x", "tcp://\udcff"))[0] == 1


async def test_the_token_goes_nowhere_else(tmp_path, web_server):
    code, _, err = await command("services", "list", "--url", "http://127.0.0.1:1")
    assert (code, err) == (2, "--url needs --token-file: the token of the servmon here is sent nowhere else\n")
    for url in ("file:///etc/passwd", "http://[::1", "http://", "monitor:8350", "http://me:s3cret@h", "http://h:99999"):
        code, _, err = await command("services", "list", *where(tmp_path, url))
        assert (code, err.startswith("--url is no address such as"), "s3cret" in err) == (2, True, False)
    server, elsewhere = await web_server(), await web_server()
    server.pages["/services/"] = Page(302, "", {"Location": elsewhere.url})
    code, _, err = await command("services", "list", *where(tmp_path, server.url))
    assert (code, err) == (1, "what answers is no servmon: 302 Found\n")
    assert elsewhere.requests == []


async def test_no_proxy_sees_the_token(api, tmp_path, monkeypatch, web_server):
    proxy = await web_server()
    monkeypatch.setenv("http_proxy", proxy.url)
    assert await command("services", "list", *where(tmp_path, f"http://127.0.0.1:{api.port}")) == (0, "", "")
    assert proxy.requests == []


async def test_a_file_without_a_token_is_said(api, tmp_path):
    options = where(tmp_path, f"http://127.0.0.1:{api.port}", "two\nlines")
    code, _, err = await command("services", "list", *options)
    assert (code, err.startswith(f"{tmp_path}/token holds no token")) == (1, True)
    code, _, err = await command("services", "list", *options[:-1], str(tmp_path / "none"))
    assert (code, err.endswith("none: No such file or directory\n")) == (1, True)


async def test_a_terminal_gets_a_table_that_fits_and_nothing_that_moves_its_cursor(api, history, tmp_path):
    await api.post("/services/", {"id": "shop", "url": "tcp://127.0.0.1:1"})
    await history.outage("shop", description="\x1b[2J\x9b31mgone " + "x" * 200)
    options = where(tmp_path, f"http://127.0.0.1:{api.port}")
    heading, line = (await on_terminal("outages", "list", *options, columns=150)).splitlines()
    assert heading.split() == ["ENDPOINT", "SEVERITY", "SINCE", "LASTED", "STATE", "ID", "WHAT"]
    assert heading.index("WHAT") == line.index("\\x1b[2J\\x9b31mgone")
    assert (len(line), line[-1]) == (150, "…")
    assert await on_terminal("services", "list", "--tag", "none", *options) == "nothing is watched that fits\r\n"


async def test_an_answer_that_is_none_of_servmon(tmp_path, web_server):
    server = await web_server()
    server.pages["/services/"] = Page(200, "[]")
    code, _, err = await command("services", "list", *where(tmp_path, server.url))
    assert (code, err) == (1, f"what answers at {server.url} is no servmon: it sent no list\n")
    server.pages["/services/"] = Page(200, "<html>\x1b[2J")
    code, _, err = await command("services", "list", *where(tmp_path, server.url))
    assert (code, err) == (1, f"what answers at {server.url} is no servmon: it sent no JSON\n")


async def test_history_sums_up(cli, api, history):
    await api.post("/services/", {"id": "shop", "url": "tcp://127.0.0.1:1"})
    await history.check("shop", Status.UP, Status.DOWN)
    code, out, _ = await cli("services", "history", "shop", "--since", "8h")
    rows = [line.split("\t") for line in out.splitlines()]
    assert (code, [row[1:] for row in rows]) == (0, [["DOWN", "", "connection refused"], ["UP", "12.5", ""]])
    code, _, err = await cli("services", "history", "shop", "--since", "yesterday")
    assert code == 2
    assert "is no time" in " ".join(err.split()) or "must be a time" in " ".join(err.split())


async def test_what_is_said_of_an_outage_stands_in_its_timeline(cli, history):
    await cli("services", "add", "shop", "tcp://127.0.0.1:1")
    outage = (await history.outage("shop", resolved=True)).id
    as_operator = {"token": OPERATE_TOKEN}
    assert await cli("outages", "note", outage, "rain in the duct", **as_operator) == (0, "noted\n", "")
    code, out, _ = await cli("outages", "exclude", outage, "our own digger", "--false-alarm", "--json", **as_operator)
    excluded = json.loads(out)
    assert (code, excluded["excluded_reason"], excluded["false_alarm"]) == (0, "our own digger", True)
    assert await cli("outages", "include", outage, **as_operator) == (0, "the outage of shop counts again\n", "")
    code, out, _ = await cli("outages", "timeline", outage)
    told = [line.split("\t")[1:] for line in out.splitlines()]
    assert code == 0
    for expected in (["note", "operator", "rain in the duct"], ["excluded", "operator", "our own digger"]):
        assert expected in told
    for refused in (("note", outage, ""), ("exclude", outage, " "), ("include", UNKNOWN_UUID)):
        assert (await cli("outages", *refused))[0] == 1
    assert (await cli("outages", "note", outage, "x", token=READ_TOKEN))[0] == 1


async def test_a_purged_endpoint_leaves_no_history(cli, history):
    await cli("services", "add", "shop", "tcp://127.0.0.1:1")
    await history.check("shop", Status.UP)
    code, out, _ = await cli("services", "remove", "shop", "--purge")
    assert (code, out) == (0, "shop and all that was found out about it are gone\n")
    await cli("services", "add", "shop", "tcp://127.0.0.1:1")
    assert await cli("services", "history", "shop") == (0, "", "")
