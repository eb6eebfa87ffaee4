"""`servmon doctor`: each thing that stands in the way is found, and says what to do."""

from __future__ import annotations

import resource

import pytest

from servmon import doctor
from servmon.doctor import Level, examine
from servmon.settings import load


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
    assert (await findings('[channels.noc]\nkind = "exec"\ncommand = ["true"]\n'))["channels"].level is Level.OK


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
    assert found.sentence == "RLIMIT_NOFILE is 1024, so 824 sockets at once are possible, not 5000"
    assert found.remedy.startswith("raise it to 5200 (systemd: LimitNOFILE=)")


async def test_results_that_will_not_fit_on_the_disk_are_foretold(findings):
    endpoints = "".join(
        f'[[endpoints]]\nid = "e{n}"\nurl = "icmp://127.0.0.1"\ncheck_interval = 1\n' for n in range(100)
    )
    found = (await findings(f"[cleanup]\nretention_days = 36500\n{endpoints}"))["disk"]
    assert found.sentence.startswith("100 endpoints of the file make 8,640,000 results a day, 45.7 TB in 36500 days; ")
    assert found.level is Level.WARNING


async def test_an_elasticsearch_that_is_away_and_a_proxy_that_is_not_used_are_said(findings, closed_port):
    found = await findings(
        f'[elasticsearch]\nhosts = ["http://127.0.0.1:{closed_port}"]\n', {"https_proxy": "http://p.example"}
    )
    assert (found["Elasticsearch"].level, "refused" in found["Elasticsearch"].sentence) == (Level.WARNING, True)
    assert "https_proxy is set and not used" in found["proxies"].sentence
