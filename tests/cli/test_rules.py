"""``servmon rules`` against a real API."""

from __future__ import annotations

import json

from tests.fix_api import OPERATE_TOKEN

UNSELECTED = (
    "note: outages that none of the service_down rules selects are told to nobody; one without a selection takes them\n"
)


async def test_a_rule_is_made_changed_and_removed(cli):
    given = ("--kind", "long_outage", "--site", "pop-north", "--severity", "critical", "-o", "after=7200")
    assert await cli("rules", "add", "lasting", *given) == (
        0, "lasting: long_outage of site pop-north, told to default\n", ""
    )  # fmt: skip
    code, out, _ = await cli("rules", "show", "lasting", "--json")
    made = json.loads(out)
    assert (made["after"], made["severities"], made["source"]) == (7200, ["CRITICAL"], "api")
    change = ("rules", "change", "lasting", "--tag", "core", "--off", "-o", "channels=[]")
    code, out, err = await cli(*change)
    assert (code, out, err) == (
        0, "lasting: long_outage of site pop-north, tag core, told to none; it is off\n", ""
    )  # fmt: skip
    code, out, _ = await cli("rules", "list")
    rows = [line.split("\t") for line in out.splitlines()]
    assert ["lasting", "long_outage", "no", "site pop-north, tag core", "none", "api"] in rows
    assert ["multiple_services_down", "multiple_services_down", "yes", "", "default", "default"] in rows
    assert await cli("rules", "change", "lasting", "--on", "-o", "channels=null") == (
        0, "lasting: long_outage of site pop-north, tag core, told to default\n", ""
    )  # fmt: skip
    assert await cli("rules", "remove", "lasting") == (0, "lasting is deleted\n", "")
    assert (await cli("rules", "show", "lasting"))[0] == 1
    assert "lasting" not in (await cli("alerts", "rules", "list"))[1]


async def test_who_is_left_without_anybody_who_hears_of_them_is_said(cli):
    code, out, err = await cli("rules", "add", "core", "--tag", "core")
    assert (code, out, err) == (0, "core: service_down of tag core, told to default\n", UNSELECTED)
    assert (await cli("rules", "add", "rest"))[2] == ""
    assert (await cli("rules", "change", "rest", "--off"))[2] == UNSELECTED
    assert (await cli("rules", "remove", "rest"))[2] == UNSELECTED
    assert (await cli("rules", "remove", "core"))[2] == ""


async def test_a_rule_that_cannot_be_is_said(cli):
    code, _, err = await cli("rules", "add", "x", "-o", "after=1")
    assert (code, "is no key of a rule of the kind service_down" in err) == (1, True)
    code, _, err = await cli("rules", "add", "x", "-o", "after")
    assert (code, err) == (2, "--option: 'after' is not NAME=VALUE, as in after=7200\n")
    assert (await cli("rules", "add", "x", "--kind", "odd"))[0] == 2
    code, _, err = await cli("rules", "add", "x", "--severity", "bad")
    assert (code, "severities" in err) == (1, True)
    code, _, err = await cli("rules", "change", "long_outage", "--off")
    assert (code, "is servmon's own" in err) == (1, True)
    code, _, err = await cli("rules", "change", "long_outage")
    assert (code, err) == (2, "nothing is given that could change\n")
    assert (await cli("rules", "add", "x", token=OPERATE_TOKEN))[0] == 1
