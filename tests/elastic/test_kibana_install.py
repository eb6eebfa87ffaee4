"""`servmon kibana install` against a small Kibana over real HTTP: once, again, over what is old, and when it fails."""

from __future__ import annotations

import asyncio
import copy

import pytest
from typer.testing import CliRunner

from servmon.cli import app
from servmon.elastic.kibana import client
from servmon.elastic.kibana.dashboard import DASHBOARD
from tests.fix_kibana import KEY
from tests.fix_servers import is_silent, server_tls

SENDING = '[elasticsearch]\nhosts = ["http://127.0.0.1:9200"]\nsync_interval = 30\n'
PUBLIC_URL = "https://servmon.isp.example/watch"


@pytest.fixture
def configured(tmp_path, kibana):
    """The path of a configuration that leads to the Kibana."""
    path = tmp_path / "servmon.toml"
    path.write_text(
        f'{SENDING}[servmon]\npublic_url = "{PUBLIC_URL}"\n[kibana]\nurl = "{kibana.url}"\napi_key = "{KEY}"\n'
    )
    return path


async def run(configured, *arguments: str, command: str = "install"):
    """The exit status, and what the command says on either stream; the key is in neither."""
    told = await asyncio.to_thread(
        CliRunner().invoke, app, ["kibana", command, "--config", str(configured), *arguments]
    )
    assert KEY not in told.stdout + told.stderr
    assert "Traceback" not in told.stderr
    assert told.exception is None or isinstance(told.exception, SystemExit), told.exception
    return told.exit_code, told.stdout, told.stderr


async def test_all_is_put_into_an_empty_kibana(kibana, configured):
    code, out, err = await run(configured)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"Kibana 8.15.3 at {kibana.url}, space default",
        "imported: 3 data views, 8 visualisations, 1 dashboard",
        f"dashboard: {kibana.url}/app/dashboards#/view/{DASHBOARD}",
        "rule Service Down Alert: created",
        "rule Service Response Time Alert: created, disabled",
        "rule Multiple Services Down Alert: created",
        "rule Active Outages Alert: created, disabled",
        "rule Long Duration Outage Alert: created",
    ]
    assert len(kibana.objects) == 12
    assert [rule["enabled"] for rule in kibana.rules.values()] == [True, False, True, False, True]


async def test_that_nothing_is_sent_is_said(kibana, configured):
    configured.write_text(configured.read_text().removeprefix(SENDING))
    code, _, err = await run(configured, "--dry-run")
    assert code == 0
    assert err == "warning: elasticsearch.hosts is not set: nothing is sent, so the dashboard stays empty\n"


async def test_again_changes_nothing(kibana, configured):
    await run(configured)
    objects, rules = copy.deepcopy(kibana.objects), copy.deepcopy(kibana.rules)
    code, out, _ = await run(configured)
    assert code == 0
    assert out.count("brought up to date") == 5
    assert (kibana.objects, kibana.rules) == (objects, rules)


async def test_an_upgrade_replaces_ours_and_keeps_what_people_set(kibana, configured):
    await run(configured)
    rules = copy.deepcopy(kibana.rules)
    theirs = {"id": "mail", "group": "query matched", "params": {"to": ["noc@isp.example"]}, "uuid": "u1"}
    for rule in kibana.rules.values():
        rule |= {
            "name": "as it once was",
            "params": {},
            "enabled": False,
            "actions": [theirs],
            "alert_delay": {"active": 3},
        }
    for one in kibana.objects.values():
        one["attributes"]["title"] = "as it once was"
    assert (await run(configured))[0] == 0
    assert "as it once was" not in str(kibana.objects)
    for key, rule in kibana.rules.items():
        assert rule["params"] == rules[key]["params"]
        assert rule["name"] == rules[key]["name"]
        assert (rule["enabled"], rule["actions"], rule["alert_delay"]) == (False, [theirs], {"active": 3})


async def test_thresholds_and_windows_come_from_the_settings(kibana, configured):
    with configured.open("a") as file:
        file.write("[alert]\nmultiple_services = 7\nresponse_time_ms = 250.0\nlong_outage_after = 900\n")
        file.write('[[endpoints]]\nid = "slow"\nurl = "tcp://192.0.2.1:1"\ncheck_interval = 3600\n')
    assert (await run(configured))[0] == 0
    rules = {rule["name"]: rule["params"] for rule in kibana.rules.values()}
    assert rules["Multiple Services Down Alert"]["threshold"] == [7]
    assert rules["Service Response Time Alert"]["threshold"] == [250]
    assert "now-900s" in rules["Long Duration Outage Alert"]["esQuery"]
    assert rules["Active Outages Alert"]["timeWindowSize"] == 2 * 30 + 60
    assert rules["Service Response Time Alert"]["timeWindowSize"] == 2 * 30 + 3600 + 60


async def test_an_open_outage_is_sent_more_often_than_checks_and_so_looked_for(kibana, configured):
    configured.write_text(configured.read_text().replace("sync_interval = 30", "sync_interval = 7200"))
    assert (await run(configured))[0] == 0
    rules = {rule["name"]: rule["params"] for rule in kibana.rules.values()}
    assert rules["Active Outages Alert"]["timeWindowSize"] == 2 * 300 + 60
    assert rules["Service Response Time Alert"]["timeWindowSize"] == 2 * 7200 + 60 + 60


async def test_another_space_has_its_own(kibana, configured):
    await run(configured)
    code, out, _ = await run(configured, "--space", "noc")
    assert code == 0
    assert f"{kibana.url}/s/noc/app/dashboards#/view/{DASHBOARD}" in out
    assert {space for space, *_ in kibana.objects} == {"default", "noc"}
    # A rule's id is given only once in all spaces.
    assert len({id_ for _, id_ in kibana.rules}) == 10


async def test_a_connector_is_told_in_every_rule_and_once_only(kibana, configured):
    await run(configured)
    for _ in range(2):
        assert (await run(configured, "--connector", "log"))[0] == 0
    for rule in kibana.rules.values():
        assert [action["group"] for action in rule["actions"]] == ["query matched", "recovered"]
        assert all(PUBLIC_URL in action["params"]["message"] for action in rule["actions"])


async def test_a_dry_run_changes_nothing(kibana, configured):
    code, out, _ = await run(configured, "--dry-run", "--connector", "log")
    assert code == 0
    assert "would be imported: 3 data views, 8 visualisations, 1 dashboard" in out
    assert out.count("would be created") == 5
    assert (kibana.changes, kibana.objects, kibana.rules) == ([], {}, {})
    await run(configured)
    before = list(kibana.changes)
    assert (await run(configured, "--dry-run"))[1].count("would be brought up to date") == 5
    assert kibana.changes == before


async def test_outages_and_services_link_back_to_servmon(kibana, configured):
    await run(configured)
    view = kibana.objects["default", "index-pattern", "servmon-outage"]
    assert f"{PUBLIC_URL}/ui/outages/{{{{value}}}}" in view["attributes"]["fieldFormatMap"]
    assert f"{PUBLIC_URL}/ui/services/{{{{value}}}}" in view["attributes"]["fieldFormatMap"]


async def test_export_prints_what_install_imports(kibana, configured):
    await run(configured)
    code, out, _ = await run(configured, command="export")
    assert code == 0
    assert len(out.splitlines()) == len(kibana.objects)
    assert PUBLIC_URL in out


MISSING_KEY = "set xpack.encryptedSavedObjects.encryptionKey in kibana.yml"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"version": "8.8.2"}, "this is Kibana 8.8.2; the dashboard needs 8.9 or newer"),
        ({"version": "7.17.0"}, "this is Kibana 7.17.0; the dashboard needs 8.9 or newer"),
        ({"health": {"has_permanent_encryption_key": False}}, MISSING_KEY),
        ({"health": {"is_sufficiently_secure": False}}, "rules need API keys"),
        ({"may_create_rules": False}, "may not create Elasticsearch query rules; it needs the privileges"),
    ],
)
async def test_what_is_in_the_way_is_said_before_anything_is_written(kibana, configured, change, sentence):
    for name, value in change.items():
        setattr(kibana, name, value)
    code, out, err = await run(configured)
    assert (code, out) == (1, "")
    assert sentence in err
    assert kibana.changes == []


async def test_8_10_is_newer_than_8_9(kibana, configured):
    kibana.version = "8.10.0-SNAPSHOT"
    assert (await run(configured, "--dry-run"))[0] == 0


REFUSALS = [
    ({"type": "conflict"}, "another of this id that cannot be overwritten"),
    ({"type": "ambiguous_conflict", "destinations": [{"id": "a"}, {"id": "b"}]}, "several copies of it (a, b)"),
    ({"type": "missing_references", "references": [{"type": "lens", "id": "x"}]}, "it needs lens x"),
    ({"type": "unsupported_type"}, "knows no objects of this type"),
    (
        {"type": "unknown", "message": "mapping \x1b[31mset\r\nto strict", "statusCode": 400},
        "mapping  [31mset to strict",
    ),
]


@pytest.mark.parametrize(("error", "sentence"), REFUSALS)
async def test_success_false_is_a_failure_that_names_each_object(kibana, configured, error, sentence):
    errors = [{"id": f"servmon-{n}", "type": "lens", "meta": {"title": f"Panel {n}"}, "error": error} for n in (1, 2)]
    kibana.instead["POST", "_import"] = 200, {"success": False, "successCount": 10, "errors": errors}
    code, out, err = await run(configured)
    assert code == 1
    assert "imported" not in out
    assert "visualisation 'Panel 1': " in err
    assert "visualisation 'Panel 2': " in err
    assert sentence.replace("  ", " ") in err
    assert "\x1b" not in err
    assert kibana.rules == {}


FAILURES = [
    (401, {"message": "expired"}, "does not know these credentials; set kibana.api_key"),
    (403, {"message": "Unable to bulk_create dashboard"}, "it needs the Kibana privileges"),
    (404, {"message": "Not Found"}, "is the base path in kibana.url right"),
    (409, {"message": "conflict"}, "something else changed it at the same time"),
    (413, "<html>too large</html>", "raise its limit"),
    (429, {"message": "slow down"}, "run this again later"),
    (500, {"message": "An internal server error occurred."}, "an error inside Kibana; its log says more"),
    (503, "Kibana server is not ready yet", "it is not ready yet"),
    (302, "", "it leads elsewhere, as to a log-in page"),
    (200, "<html>Log in</html>", "that is no answer of Kibana's"),
]
ASKED = [
    ("GET", "/status"),
    ("GET", "/_health"),
    ("GET", "/rule_types"),
    ("POST", "/_import"),
    ("GET", "/alerting/rule/"),
    ("POST", "/alerting/rule/"),
    ("PUT", "/alerting/rule/"),
]


# Each failure of one request, and one failure of each request.
CASES = [(("POST", "/_import"), *failure) for failure in FAILURES] + [(asked, *FAILURES[6]) for asked in ASKED]


@pytest.mark.parametrize(("asked", "status", "body", "sentence"), CASES)
async def test_every_failure_is_a_sentence_and_exit_1(kibana, configured, asked, status, body, sentence):
    if asked[0] == "PUT":
        await run(configured)
    kibana.instead[asked] = status, body
    code, _, err = await run(configured)
    assert code == 1
    assert f"Kibana answered {status}" in err
    assert sentence in err
    if isinstance(body, dict):
        assert f'Kibana said: "{body["message"]}"' in err


async def test_a_wrong_key_is_said(kibana, configured):
    configured.write_text(f'[kibana]\nurl = "{kibana.url}"\napi_key = "wrong"\n')
    code, _, err = await run(configured)
    assert code == 1
    assert "does not know these credentials" in err


async def test_a_forgotten_base_path_is_said(kibana, configured):
    configured.write_text(f'[kibana]\nurl = "http://127.0.0.1:{kibana.port}"\napi_key = "{KEY}"\n')
    code, _, err = await run(configured)
    assert code == 1
    assert "is the base path in kibana.url right" in err


async def test_nobody_there_is_said(closed_port, configured):
    configured.write_text(f'[kibana]\nurl = "http://127.0.0.1:{closed_port}"\n')
    code, _, err = await run(configured)
    assert code == 1
    assert "cannot be reached" in err


async def test_silence_is_said(tcp_server, configured, monkeypatch):
    monkeypatch.setattr(client, "DEADLINE_SECONDS", 0.2)
    server = await tcp_server(is_silent)
    configured.write_text(f'[kibana]\nurl = "http://127.0.0.1:{server.port}"\n')
    code, _, err = await run(configured)
    assert code == 1
    assert "no answer within 0.2 s" in err


async def test_a_certificate_that_nobody_vouches_for_is_refused_and_the_right_authority_accepted(
    web_server, ca, configured
):
    server = await web_server(tls=server_tls(ca, "127.0.0.1"))
    authority = configured.with_name("ca.pem")
    ca.cert_pem.write_to_path(str(authority))
    settings = f'[kibana]\nurl = "https://127.0.0.1:{server.port}"\napi_key = "{KEY}"\n'
    configured.write_text(settings)
    code, _, err = await run(configured)
    assert code == 1
    assert "no trusted connection" in err
    assert "kibana.ca_file names the authority" in err
    assert server.requests == []
    configured.write_text(f'{settings}ca_file = "ca.pem"\n')
    assert "Kibana answered 404" in (await run(configured))[2]
    assert [request.path for request in server.requests] == ["/api/status"]


async def test_a_ca_file_that_is_none_is_said(configured):
    configured.write_text('[kibana]\nurl = "https://127.0.0.1:1"\nca_file = "servmon.toml"\n')
    code, _, err = await run(configured)
    assert code == 1
    assert "kibana.ca_file" in err
    assert "cannot be used" in err


async def test_a_space_that_is_not_there(kibana, configured):
    code, _, err = await run(configured, "--space", "nowhere")
    assert code == 1
    assert "there is no space 'nowhere'" in err
    assert kibana.changes == []


async def test_a_connector_that_is_not_there_names_those_that_are(kibana, configured):
    code, _, err = await run(configured, "--connector", "pager")
    assert code == 1
    assert "there is no connector 'pager' in this space; there are log (Log), mail (Mail)" in err
    assert kibana.changes == []


async def test_a_connector_that_needs_more_than_a_message(kibana, configured):
    code, _, err = await run(configured, "--connector", "mail")
    assert code == 1
    assert "is of type .email, which needs more than a message" in err
    assert kibana.changes == []


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("", "kibana.url is not set"),
        ('url = "kibana:5601"', "must be a URL such as"),
        ('url = "https://elastic:secret@kibana"', "must not hold a user or password"),
        ('url = "https://kibana"\nspace = "../x"', "must be the id of a space"),
        ('url = "https://kibana"\nusername = "u"', "username and password belong together"),
        ('url = "https://k"\napi_key = "x"\nusername = "u"\npassword = "secret"', "exclude each other"),
    ],
)
async def test_settings_that_cannot_be_are_said(configured, lines, sentence):
    configured.write_text(f"[kibana]\n{lines}\n")
    code, _, err = await run(configured)
    assert code == 2
    assert sentence in err
    assert "secret" not in err
