"""`servmon doctor`: each thing that stands in the way is found, and says what to do."""

from __future__ import annotations

import resource
from functools import partial

import pytest

from servmon import doctor
from servmon.doctor import Level, examine, machine
from servmon.settings import load
from tests.fix_servers import Page

ALLOWED = 'allow_networks = ["127.0.0.0/8", "::1/128"]\n'


@pytest.fixture
def findings(tmp_path):
    async def find(text: str = "", environ: dict[str, str] | None = None) -> dict[str, doctor.Finding]:
        file = tmp_path / "servmon.toml"
        file.write_text(
            f'[servmon]\ndata_dir = "{tmp_path}"\n[alert]\nnotification_channels = []\n{text}', encoding="utf-8"
        )
        return {one.subject: one async for one in examine(load(file, {}), environ or {})}

    return find


async def test_a_private_postgres_and_loopback_need_nothing(findings):
    found = await findings()
    assert found["Postgres"].level is Level.OK
    assert found["ICMP"].level is Level.OK
    assert found["disk"].level is Level.OK


async def test_nobody_to_tell_is_a_warning(findings):
    found = await findings()
    assert (
        str(found["channels"])
        == "warning channels: none: nobody is told of outages\n        -> add a table [channels.NAME]"
    )


async def test_a_channel_that_cannot_be_reached_is_an_error_without_its_secret(findings, open_port, closed_port):
    found = await findings(
        '[channels.a]\nkind = "exec"\ncommand = ["true"]\n'
        '[channels.b]\nkind = "exec"\ncommand = ["/nowhere/at-all"]\n'
        f'[channels.c]\nkind = "webhook"\nurl = "http://127.0.0.1:{open_port}/planted"\n{ALLOWED}'
        f'[channels.d]\nkind = "webhook"\nurl = "http://127.0.0.1:{closed_port}/planted"\n{ALLOWED}'
        f'[channels.e]\nkind = "smtp"\nhost = "127.0.0.1"\nport = {closed_port}\n'
        'sender = "a@isp.example"\nrecipients = ["b@isp.example"]\n'
    )
    said = {name: (found[f"channel {name}"].level, found[f"channel {name}"].sentence) for name in "abcde"}
    refused = f"127.0.0.1:{closed_port}: Connect call failed ('127.0.0.1', {closed_port})"
    assert said == {
        "a": (Level.OK, "can be reached"),
        "b": (Level.ERROR, "/nowhere/at-all is no program that can be run"),
        "c": (Level.OK, "can be reached"),
        "d": (Level.ERROR, refused),
        "e": (Level.ERROR, refused),
    }
    assert "planted" not in "".join(map(str, found.values()))


async def test_a_channel_whose_name_leads_to_where_no_message_may_go_is_an_error(findings, open_port):
    urls = {"a": "localhost", "b": "127.1", "c": "localhost"}
    text = "".join(
        f'[channels.{n}]\nkind = "webhook"\nurl = "http://{h}:{open_port}/planted"\n' for n, h in urls.items()
    )
    found = await findings(text + ALLOWED)
    said = {name: str(found[f"channel {name}"]) for name in urls}
    assert 'is not a public address, so every message is refused; allow_networks = ["' in said["a"]
    assert said["b"].startswith("error   channel b: 127.1 (127.0.0.1) is not a public address")
    assert '["127.0.0.1/32"]' in said["b"]
    assert found["channel c"].level is Level.OK
    assert "planted" not in "".join(said.values())


def test_witnesses_that_answer_and_such_as_never_did_are_told_apart(findings, netns):
    def found(named: str) -> doctor.Finding:
        return netns.run_async(partial(findings, f"[outage]\nwitnesses = {named}\n"))["witnesses"]

    some = found('["127.0.0.1", "10.7.0.9"]')
    assert (some.level, some.sentence) == (Level.OK, "127.0.0.1 answers; silent: 10.7.0.9")
    none = found('["10.7.0.9"]')
    assert (none.level, none.sentence[:26]) == (Level.WARNING, "none of 10.7.0.9 answers: ")
    assert found("[]").level is Level.WARNING


async def test_a_database_that_does_not_answer_is_an_error_without_its_password(findings, closed_port):
    found = await findings(f'[database]\nurl = "postgresql://u:hunter2@127.0.0.1:{closed_port}/x"\n')
    assert found["Postgres"].level is Level.ERROR
    assert "hunter2" not in str(found["Postgres"])
    assert f"127.0.0.1:{closed_port}" in str(found["Postgres"])


async def test_a_database_that_answers_is_named_with_its_version(findings, database):
    found = (await findings(f'[database]\nurl = "{database}"\n'))["Postgres"]
    assert (found.level, "version" in found.sentence) == (Level.OK, True)


async def test_too_few_descriptors_say_how_many_are_needed(findings, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (1024, 1024))
    found = (await findings())["descriptors"]
    assert found.sentence == "RLIMIT_NOFILE is 1024, so 624 sockets at once are possible, not 5000"
    assert found.remedy.startswith("raise it to 5400 (systemd: LimitNOFILE=)")


async def test_results_that_will_not_fit_on_the_disk_are_foretold(findings):
    endpoints = "".join(
        f'[[endpoints]]\nid = "e{n}"\nurl = "icmp://127.0.0.1"\ncheck_interval = 1\n' for n in range(100)
    )
    found = (await findings(f"[cleanup]\nretention_days = 36500\n{endpoints}"))["disk"]
    assert found.sentence.startswith("100 endpoints of the file make 8,640,000 results a day, 45.7 TB in 36500 days; ")
    assert found.level is Level.WARNING


async def test_a_pooler_before_the_database_is_noticed(findings, pgbouncer):
    found = (await findings(f'[database]\nurl = "{await pgbouncer("transaction")}"\n'))["Postgres"]
    assert (found.level, found.sentence.startswith("[database] url leads through a pooler")) == (Level.WARNING, True)


async def test_a_disk_too_small_for_the_spool_is_foretold(findings):
    found = await findings('[database]\nspool_max_mb = 1000000000\nurl = "postgresql://u@127.0.0.1:1/x"\n')
    assert found["spool"].sentence.startswith("the spool may grow to 1.05e+03 TB while Postgres is away; ")


async def test_an_elasticsearch_that_is_away_and_a_proxy_that_is_not_used_are_said(findings, closed_port):
    found = await findings(
        f'[elasticsearch]\nhosts = ["http://127.0.0.1:{closed_port}"]\n', {"https_proxy": "http://p.example"}
    )
    assert (found["Elasticsearch"].level, "Cannot connect" in found["Elasticsearch"].sentence) == (Level.WARNING, True)
    assert "https_proxy is set and not used" in found["proxies"].sentence


@pytest.mark.parametrize(
    ("status", "body", "level", "sentence"),
    [
        (200, '{"version": {"number": "8.19.1"}}', Level.OK, ", version 8.19.1"),
        (200, '{"version": {"number": "7.17.0"}}', Level.WARNING, " is version 7.17.0"),
        (401, "{}", Level.WARNING, " does not accept us"),
        (200, "<html>", Level.WARNING, ""),
        (503, "[]", Level.WARNING, " answers 503, not as Elasticsearch does"),
        (200, '{"version": []}', Level.WARNING, " answers 200, not as Elasticsearch does"),
    ],
)
async def test_elasticsearch_is_judged_by_what_it_answers(findings, web_server, status, body, level, sentence):
    server = await web_server()
    server.pages["/"] = Page(status, body, {"Content-Type": "application/json"})
    found = (await findings(f'[elasticsearch]\nhosts = ["http://127.0.0.1:{server.port}"]\napi_key = "planted"\n'))[
        "Elasticsearch"
    ]
    assert (found.level, found.sentence.endswith(sentence)) == (level, True), found
    assert "planted" not in str(found)


async def test_a_unit_that_starts_what_is_not_there_is_an_error(findings, tmp_path, monkeypatch):
    assert (await findings())["systemd"].level is Level.OK
    unit = tmp_path / "servmon.service"
    monkeypatch.setattr(machine, "UNIT", unit)
    unit.write_text("[Service]\nExecStart=/nowhere/servmon run\n", encoding="utf-8")
    found = (await findings())["systemd"]
    assert (found.level, found.sentence) == (Level.ERROR, f"{unit} starts /nowhere/servmon, which is not there")
    unit.write_text("[Service]\nExecStart=/bin/sh run\n", encoding="utf-8")
    setuid = tmp_path / "check_icmp"
    setuid.write_text("#!/bin/sh\n", encoding="utf-8")
    setuid.chmod(0o4755)
    found = await findings(f'[[endpoints]]\nid = "x"\nprotocol = "EXEC"\nurl = "192.0.2.1"\ncommand = ["{setuid}"]\n')
    assert found["systemd"].level is Level.OK
    assert found["plug-ins"].sentence.startswith(f"{setuid} is setuid, and the unit's NoNewPrivileges")
