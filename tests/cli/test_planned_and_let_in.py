"""``servmon maintenance``, ``silences`` and ``tokens`` against a real API."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest
import typer

from servmon.cli.when import lasted, later, span
from tests.fix_api import OPERATE_TOKEN, READ_TOKEN, UNKNOWN_UUID


async def test_a_window_is_planned_extended_and_ended(cli):
    await cli("services", "add", "r1", "icmp://127.0.0.1", "--site", "pop-north", "--tag", "core")
    planned = ("maintenance", "add", "--site", "pop-north", "--in", "10m", "--for", "2h", "card swap", "--json")
    code, out, err = await cli(*planned, token=OPERATE_TOKEN)
    assert (code, err) == (0, "")
    window = json.loads(out)
    begin, end = map(datetime.fromisoformat, (window["start_time"], window["end_time"]))
    assert end - begin == timedelta(hours=2)
    assert (window["sites"], window["description"], window["created_by"]) == (["pop-north"], "card swap", "operator")
    assert await cli("maintenance", "list", "--active") == (0, "", "")
    code, out, _ = await cli("maintenance", "list")
    assert out.rstrip("\n").split("\t")[2:] == ["site pop-north", "mute", "", "operator", window["id"], "card swap"]
    code, out, _ = await cli("maintenance", "add", "now", "--for", "30m", "--tag", "core", "--pause", "--json")
    running = json.loads(out)
    assert running["mode"] == "pause"
    code, out, _ = await cli("maintenance", "extend", running["id"], "1h", "--json")
    extended = json.loads(out)["end_time"]
    assert datetime.fromisoformat(extended) - datetime.fromisoformat(running["end_time"]) == timedelta(hours=1)
    assert (await cli("maintenance", "end", running["id"]))[0] == 0
    assert (await cli("maintenance", "list", "--active"))[1] == ""
    assert await cli("maintenance", "remove", window["id"]) == (0, f"{window['id']} is deleted\n", "")
    assert (await cli("maintenance", "show", window["id"]))[0] == 1


async def test_a_window_is_changed_in_what_is_given_alone(cli):
    await cli("services", "add", "r1", "icmp://127.0.0.1", "--site", "pop-north", "--tag", "core")
    _, out, _ = await cli("maintenance", "add", "--site", "pop-north", "--in", "1h", "--for", "2h", "swap", "--json")
    before = json.loads(out)
    change = ("maintenance", "update", before["id"], "--description", "two cards", "--pause", "--json")
    code, out, err = await cli(*change, token=OPERATE_TOKEN)
    assert (code, err) == (0, "")
    changed = {"description": "two cards", "mode": "pause"}
    assert {**json.loads(out), "updated_at": None} == {**before, **changed, "updated_at": None}
    until = before["end_time"].replace(before["end_time"][:4], "2036")
    code, out, _ = await cli("maintenance", "update", before["id"], "--until", until, "--tag", "core", "--json")
    assert (code, json.loads(out)["end_time"], json.loads(out)["tags"]) == (0, until, ["core"])
    code, _, err = await cli("maintenance", "update", before["id"])
    assert (code, "nothing is given that could change" in err) == (2, True)
    code, _, err = await cli("maintenance", "update", before["id"], "--site", "nowhere")
    assert (code, "nowhere" in err) == (1, True)


async def test_a_window_that_cannot_be_is_said(cli):
    code, _, err = await cli("maintenance", "add", "x", "--for", "2 hours", "--site", "a")
    assert (code, "is no span of time such as 90s, 10m" in " ".join(err.split())) == (2, True)
    assert (await cli("maintenance", "add", "x", "--for", "2h", "--in", "1h", "--at", "now", "--site", "a"))[0] == 2
    code, _, err = await cli("maintenance", "add", "x", "--for", "2h")
    assert (code, "endpoint_ids" in err) == (1, True)
    code, _, err = await cli("maintenance", "add", "x", "--for", "2h", "--at", "2026-11-23T15:43:49", "--site", "a")
    assert (code, "needs an offset" in " ".join(err.replace("│", "").split())) == (2, True)
    assert (await cli("maintenance", "add", "x", "--for", "2h", "--site", "a", token=READ_TOKEN))[0] == 1
    assert (await cli("maintenance", "end", UNKNOWN_UUID))[0] == 1


async def test_a_silence_is_made_listed_and_ended(cli):
    await cli("services", "add", "r1", "icmp://127.0.0.1", "--site", "pop-north")
    code, out, _ = await cli("silences", "add", "--site", "pop-north", "--for", "1h", "known", token=OPERATE_TOKEN)
    assert (code, "nothing is told of site pop-north until" in out) == (0, True)
    silence = out.partition(":")[0]
    code, out, _ = await cli("silences", "list")
    assert out.rstrip("\n").split("\t")[1:] == ["site pop-north", "operator", silence, "known"]
    assert (await cli("silences", "end", silence))[0] == 0
    assert await cli("silences", "list") == (0, "", "")
    code, _, err = await cli("silences", "add", "--for", "1h", "known")
    assert (code, "at least one has to say whom" in err) == (1, True)


async def test_a_token_is_made_once_alone_on_stdout_and_revoked_by_name(cli):
    code, out, err = await cli("tokens", "create", "wallboard", "--role", "operate", "--for", "30d")
    assert (code, err) == (0, "it may operate, as wallboard; it is shown this once\n")
    token = out.rstrip("\n")
    assert (await cli("services", "list", token=token))[0] == 0
    code, out, _ = await cli("tokens", "list")
    assert out.split("\t")[:2] == ["wallboard", "operate"]
    assert token not in out
    assert await cli("token", "revoke", "wallboard") == (0, "wallboard is revoked\n", "")
    assert await cli("services", "list", token=token) == (1, "", "this token is not known here\n")
    assert await cli("tokens", "list") == (0, "", "")
    assert "\trevoked 20" in (await cli("tokens", "list", "--all"))[1]
    code, _, err = await cli("tokens", "revoke", "wallboard")
    assert (code, err) == (1, "no token that counts is called 'wallboard'; see: servmon tokens list\n")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172_800), ("1d1h1m1s", 90_061)]
)
def test_a_span_is_what_people_type(text, seconds):
    assert span(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "0m", "10", "m", "1m1h", "-1h", "1.5h", "9999999d"])
def test_what_is_no_span_is_said(text):
    with pytest.raises(typer.BadParameter, match="is no span of time"):
        span(text)


def test_a_time_too_far_away_is_said():
    with pytest.raises(typer.BadParameter, match="too far"):
        later(None, timedelta(days=999_999_999))


def test_how_long_something_was_is_told_in_two_units():
    assert lasted("2026-11-23T15:00:00Z", "2026-11-25T16:01:02Z") == "2 d 1 h"
    assert lasted("2026-11-23T15:00:00Z", "2026-11-23T15:00:00Z") == "0 s"
