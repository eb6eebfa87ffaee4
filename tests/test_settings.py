"""One name for each setting, everywhere; every mistake named at once, with its place."""

from __future__ import annotations

import json
import os
import re
import time
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servmon.checks.settings import attempts_that_fit
from servmon.errors import StartError
from servmon.settings import Settings, SettingsError, default_data_dir, load
from servmon.settings.effective import secrets_in
from servmon.settings.environment import known_variables
from servmon.settings.toml_positions import key_lines


@pytest.fixture
def write(tmp_path):
    def to_file(text: str) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return to_file


@pytest.fixture
def wrong(write):
    """The lines about a file that cannot be used, without the file's folder."""

    def lines(text: str, **environ: str) -> list[str]:
        path = write(text)
        with pytest.raises(SettingsError) as caught:
            load(path, environ)
        return [line.replace(f"{path.parent}/", "") for line in caught.value.lines]

    return lines


def endpoint(name: str, *lines: str) -> str:
    return "\n".join(["[[endpoints]]", f'id = "{name}"', 'url = "http://127.0.0.1/"', *lines, ""])


# The seed's variables


SEED = {
    "SERVICE_CHECK_INTERVAL": ("service", "check_interval", 60, "30", 30),
    "SERVICE_CHECK_TIMEOUT": ("service", "check_timeout", 5, "2", 2),
    "SERVICE_CHECK_RETRIES": ("service", "check_retries", 3, "1", 1),
    "OUTAGE_DETECTION_THRESHOLD": ("outage", "detection_threshold", 3, "5", 5),
    "OUTAGE_VERIFICATION_ENABLED": ("outage", "verification_enabled", True, "false", False),
    "ALERT_NOTIFICATION_CHANNELS": ("alert", "notification_channels", ("email",), "noc", ("noc",)),
    "ELASTICSEARCH_SYNC_INTERVAL": ("elasticsearch", "sync_interval", 300, "10", 10),
    "CLEANUP_RETENTION_DAYS": ("cleanup", "retention_days", 30, "7", 7),
}


@pytest.mark.parametrize("variable", SEED)
def test_each_of_the_seeds_variables_has_its_default_and_can_be_set(write, variable):
    section, key, default, text, value = SEED[variable]
    path = write('[channels.noc]\nkind = "exec"\ncommand = ["true"]\n')
    assert getattr(getattr(load(path, {}).settings, section), key) == default
    assert getattr(getattr(load(path, {variable: text}).settings, section), key) == value


def test_every_variable_is_the_name_of_its_key_in_the_file(write):
    for variable, (section, key) in known_variables(Settings).items():
        assert variable == f"{section}_{key}".upper()
    assert {"SERVMON_DATA_DIR", "DATABASE_URL", "API_TOKEN", "SERVICE_MAX_SOCKETS"} <= known_variables(Settings).keys()


def test_the_environment_wins_over_the_file(write):
    path = write("[service]\ncheck_interval = 10\ncheck_retries = 0\n")
    service = load(path, {"SERVICE_CHECK_INTERVAL": " 20 "}).settings.service
    assert (service.check_interval, service.check_retries) == (20, 0)


def test_an_empty_variable_is_as_good_as_none(write):
    path = write("[service]\ncheck_interval = 10\n")
    assert load(path, {"SERVICE_CHECK_INTERVAL": "", "API_PORT": " "}).settings.service.check_interval == 10


def test_nothing_given_means_the_defaults():
    loaded = load(None, {})
    assert loaded.settings == Settings(servmon=loaded.settings.servmon)
    assert (loaded.endpoints, loaded.path) == ((), None)
    assert (loaded.settings.api.host, loaded.settings.api.port) == ("127.0.0.1", 8350)


def test_settings_built_by_hand_read_no_environment(monkeypatch):
    monkeypatch.setenv("SERVICE_CHECK_INTERVAL", "7")
    assert Settings().service.check_interval == 60
    assert load(None).settings.service.check_interval == 7


@pytest.mark.parametrize("text", ["a,b", " a , b ,", '["a", "b"]'])
def test_a_list_is_written_with_commas_or_as_json(write, text):
    path = write('[channels.a]\nkind = "exec"\ncommand = ["a"]\n[channels.b]\nkind = "exec"\ncommand = ["b"]\n')
    assert load(path, {"ALERT_NOTIFICATION_CHANNELS": text}).settings.alert.notification_channels == ("a", "b")
    path.write_text(path.read_text() + f"[alert]\nnotification_channels = {json.dumps(text)}\n")
    assert load(path, {}).settings.alert.notification_channels == ("a", "b")


# Foreign variables


FOREIGN = {
    "SERVICE_RESULT": "exit-code",
    "API_PORT": "tcp://10.0.0.1:80",
    "API_PORT_80_TCP": "tcp://10.0.0.1:80",
    "API_PORT_80_TCP_ADDR": "10.0.0.1",
    "API_SERVICE_HOST": "10.0.0.1",
    "API_SERVICE_PORT": "80",
    "API_SERVICE_PORT_HTTP": "80",
    "ELASTICSEARCH_SERVICE_HOST": "10.0.0.2",
    "ELASTICSEARCH_PORT": "tcp://10.0.0.2:9200",
    "DATABASE_PORT": "tcp://10.0.0.3:5432",
    "API": "",
    "SERVICE": "x",
    "LOGNAME": "root",
    "LOGS_DIRECTORY": "/var/log/x",
    "ENDPOINTS": "[1]",
    "CHANNELS_EMAIL_KIND": "x",
    "LOG_NAMESPACE": "x",
    "API_": "x",
    "_": "/usr/bin/env",
}


def test_foreign_variables_neither_stop_a_start_nor_are_warned_of(write):
    loaded = load(write("[alert]\nnotification_channels = []\n"), FOREIGN)
    assert loaded.warnings == ()
    assert loaded.settings.api.port == 8350


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("SERVICE_CHECK_INTERVALL", "SERVICE_CHECK_INTERVAL"),
        ("SERVICE_CHECKINTERVAL", "SERVICE_CHECK_INTERVAL"),
        ("DATABASE_URI", "DATABASE_URL"),
        ("service_check_interval", "SERVICE_CHECK_INTERVAL"),
        ("API_TOKEN_FILE", "api.token_file"),
    ],
)
def test_a_variable_that_looks_like_a_slip_is_warned_of_once(write, slip, meant):
    (warning,) = load(write("[alert]\nnotification_channels = []\n"), {slip: "1"}).warnings
    assert warning.startswith(f"environment: {slip}: ")
    assert meant in warning


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("SERVICE_CHECK_INTERVAL", "often", 'must be a whole number, not "often"'),
        ("SERVICE_CHECK_INTERVAL", "0", 'must be at least 1, not "0"'),
        ("SERVICE_CHECK_TIMEOUT", "nan", 'must be a finite number, not "nan"'),
        ("OUTAGE_VERIFICATION_ENABLED", "perhaps", 'must be true or false, not "perhaps"'),
        ("API_PORT", "70000", 'must be at most 65535, not "70000"'),
        ("LOG_LEVEL", "loud", "must be one of 'debug', 'info', 'warning' or 'error', not \"loud\""),
        ("ALERT_NOTIFICATION_CHANNELS", "[x", 'must be a list: "a,b" or JSON such as ["a", "b"]'),
        ("ALERT_NOTIFICATION_CHANNELS", "pager", 'there is no channel "pager"'),
        ("API_TOKEN", "two words", "a token is letters, digits and . _ ~ + / -"),
        ("DATABASE_URL", "mysql://me:planted@db/x", "must look like postgresql://user:password@host:5432/database"),
    ],
)
def test_a_known_variable_with_a_bad_value_is_an_error_that_names_it(variable, value, sentence):
    with pytest.raises(SettingsError) as caught:
        load(None, {variable: value})
    (line,) = caught.value.lines
    assert line.startswith(f"environment: {variable}: {sentence}")
    assert "planted" not in line


# What is wrong in the file


def test_every_mistake_is_named_at_once_by_line_and_key(wrong):
    lines = wrong(
        """\
[service]
check_interval = "soon"
check_interva = 3

[api]
port = 99999   # too high

[unknown]
x = 1

[log]
format = "xml"

[[endpoints]]
id = "a"
url = "http://127.0.0.1/"
timeout = -1

[[endpoints]]
url = "http://127.0.0.1/"
""",
        SERVICE_MAX_SOCKETS="many",
    )
    assert [line.split(": ")[:2] for line in lines] == [
        ["config.toml:2", "service.check_interval"],
        ["config.toml:3", "service.check_interva"],
        ["config.toml:6", "api.port"],
        ["config.toml:8", "unknown"],
        ["config.toml:12", "log.format"],
        ["config.toml:17", "endpoints[a].timeout"],
        ["config.toml:19", "endpoints[#2].id"],
        ["environment", "SERVICE_MAX_SOCKETS"],
    ]
    assert lines[0].endswith('must be a whole number, not "soon"')
    assert lines[1].endswith("unknown key; was check_interval meant?")
    assert "known here are alert, api, channels" in lines[3]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[service]\ncheck_interval = \n", "config.toml:2: not valid TOML: Invalid value (column 18)"),
        (f"a = {'9' * 5000}\n", "config.toml: not valid TOML: a number has thousands of digits"),
        ("a = 1\na = 2\n", "config.toml:2: not valid TOML: Cannot overwrite a value (column 6)"),
        ('x = """\n\n', "config.toml:3: not valid TOML: "),
        ("a = " + "[" * 5000 + "]" * 5000, "config.toml"),
    ],
)
def test_a_syntax_error_has_its_line(wrong, text, line):
    (found,) = wrong(text)
    assert found.startswith(line)


def test_a_file_that_is_not_text_is_named_with_the_line(tmp_path):
    path = tmp_path / "c.toml"
    path.write_bytes(b"[service]\n# caf\xe9\n")
    with pytest.raises(SettingsError, match=r"c\.toml:2: is not UTF-8 text"):
        load(path, {})


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path):
    path = tmp_path / "c.toml"
    path.write_bytes(b"\xef\xbb\xbf[service]\r\ncheck_interval = 9\r\n")
    assert load(path, {}).settings.service.check_interval == 9


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_named_file_that_is_missing_or_no_file_is_an_error(tmp_path, name):
    with pytest.raises(StartError, match=r"cannot be read: (No such file|Is a directory)"):
        load(tmp_path / name, {})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("service = 5\n", "config.toml:1: service: must be a table"),
        ("[[service]]\n", "config.toml:1: service: must be a table"),
        ("[endpoints]\nid = 'a'\n", "config.toml:1: endpoints: must be tables: write [[endpoints]]"),
        ("endpoints = [1]\n", "config.toml:1: endpoints: must be tables"),
        ("_env_file = 'x'\n", "config.toml:1: _env_file: unknown key"),
        ("servmon = 1\n", "config.toml:1: servmon: must be a table"),
        ("[service]\ncheck_interval = true\n", "config.toml:2: service.check_interval: must not be true"),
        ("[service]\ncheck_interval = 1.5\n", "config.toml:2: service.check_interval: must be a whole number, not 1.5"),
        ("[service]\ncheck_timeout = inf\n", "config.toml:2: service.check_timeout: must be a"),
        ("[api]\nhost = ''\n", "config.toml:2: api.host: must not be empty"),
        ("[api]\nhost = 1\n", "config.toml:2: api.host: must be text in quotes, not 1"),
        ("[api]\ntoken = ''\n", "config.toml:2: api.token: must not be empty"),
        ("[database]\nurl = ''\n", "config.toml:2: database.url: must not be empty"),
        ("[log]\nfile = ''\n", "config.toml:2: log.file: must not be empty"),
        ("[servmon]\npublic_url = 'servmon'\n", "config.toml:2: servmon.public_url: must be a URL such as"),
        ("[servmon]\ninstance = 'a b'\n", "config.toml:2: servmon.instance: must be letters, digits"),
        ("[channels.a]\n", "config.toml:1: channels.a.kind: must be one of smtp, "),
        ("[elasticsearch]\nhosts = ['es:9200']\n", "config.toml:2: elasticsearch.hosts: each host is a URL"),
        ("[alert]\nnotification_channels = 5\n", "config.toml:2: alert.notification_channels: must be a list"),
        (
            "[alert]\nnotification_channels = [\n'x',\n5]\n",
            "config.toml:4: alert.notification_channels.1: must be text",
        ),
        (
            "[alert]\nnotification_channels = 'email'\n",
            'config.toml:2: alert.notification_channels: there is no channel "e',
        ),
        ("[outage]\nverification_enabled = 'maybe'\n", "config.toml:2: outage.verification_enabled: must be true or"),
    ],
)
def test_one_sentence_says_what_is_wrong_and_what_would_be_right(wrong, text, sentence):
    lines = wrong(text)
    assert any(line.startswith(sentence) for line in lines), lines
    assert len(lines) == 1 or "endpoints" in sentence


def test_what_a_stranger_wrote_cannot_forge_a_line_of_the_report(wrong):
    (line,) = wrong('"a\\nroot: all is well\\u001b[2J" = 1\n')
    assert "\n" not in line
    assert "\x1b" not in line


# Secrets


def test_a_secret_is_in_no_text_about_the_settings(write):
    path = write(
        "[api]\ntoken = 'planted1'\n[alert]\nnotification_channels = 'a'\n"
        "[channels.a]\nkind = 'webhook'\nurl = 'https://h.example/planted2'\nheaders = {X = 'planted5'}\n"
    )
    loaded = load(path, {"DATABASE_URL": "postgres://u:planted3@h/d", "ELASTICSEARCH_API_KEY": "planted4"})
    for text in (repr(loaded), str(loaded.settings), repr(loaded.settings.channels)):
        assert "planted" not in text
    assert loaded.settings.api.token.get_secret_value() == "planted1"


def test_what_is_masked_are_secrets_and_passwords_but_no_word_that_stands_everywhere(write):
    path = write("[api]\ntoken = 'planted1'\n[channels.a]\nkind = 'webhook'\nurl = 'https://h/planted2'\n"
                 "headers = {X = 'planted3'}\n[alert]\nnotification_channels = []\n")  # fmt: skip
    found = set(secrets_in(load(path, {"DATABASE_URL": "postgres://servmon:pl%20anted@h/d"}).settings))
    assert {"planted1", "https://h/planted2", "planted3", "pl anted", "pl%20anted"} <= found
    assert "servmon" not in set(
        secrets_in(load(path, {"DATABASE_URL": "postgres://servmon:servmon@h/servmon"}).settings)
    )


def test_a_wrong_time_zone_or_name_is_said_once_and_with_what_would_be_right(wrong):
    quiet = '{ severities = ["MINOR"], begins = "25:00", ends = "07:00", timezone = "Mars" }'
    lines = wrong(f"[alert]\nquiet_hours = [{quiet}]\n[[alert.rules]]\nname = 'x'\nkind = 'nope'\n")
    assert [line.partition(": ")[2] for line in lines] == [
        'alert.quiet_hours.0.begins: must be a time such as "22:00", not "25:00"',
        """alert.quiet_hours.0.timezone: must be a time zone such as "Europe/Berlin", not 'Mars'""",
        (
            "alert.rules.0.kind: must be one of 'service_down', 'response_time', 'multiple_services_down', "
            "'active_outages' or 'long_outage', not \"nope\""
        ),
    ]


def test_a_wrong_secret_is_not_shown(wrong):
    lines = wrong("[api]\ntoken = 'planted secret'\n[database]\nurl = 5555\n[elasticsearch]\napi_key = ['planted']\n")
    assert len(lines) == 3
    assert not any("planted" in line or "5555" in line for line in lines)


# How each begins, whatever it is.
SECRETS = [("api", "token", ""), ("database", "url", "postgresql://"), ("elasticsearch", "api_key", "")]


@pytest.mark.parametrize(("section", "key", "begin"), SECRETS)
def test_a_secret_may_stand_in_a_file_beside_the_configuration_or_among_the_credentials(
    write, section, key, begin, tmp_path
):
    path = write(f"[{section}]\n{key}_file = 'secret'\n")
    (tmp_path / "secret").write_text(f"{begin}from-beside\n")
    assert getattr(getattr(load(path, {}).settings, section), key).get_secret_value() == f"{begin}from-beside"
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "secret").write_text(f"{begin}from-credentials")
    found = load(path, {"CREDENTIALS_DIRECTORY": str(credentials)}).settings
    assert getattr(getattr(found, section), key).get_secret_value() == f"{begin}from-credentials"


@pytest.mark.parametrize(("section", "key", "begin"), SECRETS)
def test_a_secret_may_stand_in_a_variable_of_any_name(write, section, key, begin):
    path = write(f"[{section}]\n{key}_env = 'MY_SECRET'\n")
    given = {"MY_SECRET": f"{begin}s"}
    assert getattr(getattr(load(path, given).settings, section), key).get_secret_value() == f"{begin}s"
    wins = given | {f"{section}_{key}".upper(): f"{begin}mine"}
    assert getattr(getattr(load(path, wins).settings, section), key).get_secret_value() == f"{begin}mine"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("token_file = 'none'", "token_file: "),
        ("token_file = 'empty'", "the file that token_file names is empty or not set"),
        ("token_env = 'NO_SUCH'", "the environment variable NO_SUCH, which token_env names, is empty or not set"),
        ("token_env = 5", "token_env must be text"),
        ("token = 'a'\ntoken_env = 'B'", "give one of token, token_file and token_env, not several"),
    ],
)
def test_a_secret_that_cannot_be_had_is_an_error(wrong, tmp_path, text, sentence):
    (tmp_path / "empty").touch()
    (line,) = wrong(f"[api]\n{text}\n")
    assert f"api.token: {sentence}" in line


# Folders


def test_the_data_folder_is_systemds_or_roots_or_the_users(monkeypatch):
    assert default_data_dir({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}) == Path("/var/lib/a")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_data_dir({"HOME": "/home/x"}) == Path("/var/lib/servmon")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_data_dir({"HOME": "/home/x"}) == Path("/home/x/.local/state/servmon")
    assert default_data_dir({"HOME": "/home/x", "XDG_STATE_HOME": "/s"}) == Path("/s/servmon")
    assert default_data_dir({"HOME": "/home/x", "XDG_STATE_HOME": "relative"}) == Path("/home/x/.local/state/servmon")


def test_a_path_in_the_file_is_relative_to_the_file(write, tmp_path):
    loaded = load(write("[servmon]\ndata_dir = 'data'\n[log]\nfile = '/x/y.log'\n"), {}).settings
    assert (loaded.servmon.data_dir, loaded.log.file) == (tmp_path / "data", Path("/x/y.log"))


def test_a_path_in_the_environment_is_relative_to_the_working_folder(write):
    loaded = load(write("[servmon]\ndata_dir = 'data'\n"), {"SERVMON_DATA_DIR": "here"}).settings
    assert loaded.servmon.data_dir == Path.cwd() / "here"


# Channels


def test_the_default_channel_that_does_not_exist_is_a_loud_warning(write):
    (warning,) = load(write(""), {}).warnings
    assert "NOBODY WILL BE TOLD" in warning
    assert "[channels.email]" in warning
    assert load(write("[channels.email]\nkind = 'exec'\ncommand = ['true']\n"), {}).warnings == ()


# Endpoints


def test_endpoints_of_the_file_belong_to_the_instance_and_take_the_settings_defaults(write):
    text = (
        "[servmon]\ninstance = 'north'\n[service]\ncheck_interval = 30\n" + endpoint("a") + endpoint("b", "retries = 0")
    )
    first, second = load(write(text), {"SERVICE_CHECK_TIMEOUT": "2"}).endpoints
    assert (first.id, first.source, first.check_interval, first.timeout, first.retries) == (
        "a",
        "config:north",
        30,
        2,
        3,
    )
    assert (second.id, second.retries) == ("b", 0)


def test_an_endpoint_without_an_id_is_told_to_have_one(wrong):
    (line,) = wrong("[[endpoints]]\nurl = 'http://127.0.0.1/'\n")
    assert line.startswith("config.toml:1: endpoints[#1].id: missing: an endpoint in the file needs an id that stays")


def test_a_repeated_id_names_both_lines(wrong):
    (line,) = wrong(endpoint("a") + endpoint("b") + endpoint("a"))
    assert line.startswith("config.toml:8: endpoints[a].id: is already the id of the endpoint in line 2;")


def test_a_dependency_on_nothing_known_is_named(wrong):
    (line,) = wrong(endpoint("a", 'depends_on = [["b", "c"], ["a1"]]') + endpoint("b") + endpoint("a1"))
    assert line == 'config.toml:4: endpoints[a].depends_on: "c" is the id of no endpoint in this file'


def test_a_parent_with_a_mistake_of_its_own_is_still_known(wrong):
    (line,) = wrong(endpoint("a", 'depends_on = ["b"]') + endpoint("b", "timeout = -1"))
    assert "endpoints[b].timeout" in line


def test_a_circle_of_dependencies_is_named_with_its_path(wrong):
    lines = wrong(
        endpoint("a", 'depends_on = ["b"]')
        + endpoint("b", 'depends_on = [["x"], ["c"]]')
        + endpoint("c", 'depends_on = ["a"]')
        + endpoint("x")
        + endpoint("self", 'depends_on = ["self"]')
    )
    assert [line.split("circle: ")[1].split(";")[0] for line in lines] == ["a → b → c → a", "self → self"]


RULE = '[[dependencies]]\nchildren = {{ {} }}\nparents = [["r1", "r2"], ["power"]]\n'
POP = "".join(endpoint(name, 'site = "pop"') for name in ("r1", "r2", "power", "web")) + endpoint("far", 'tags = ["x"]')


@pytest.mark.parametrize(
    ("children", "expected"),
    [
        ('site = "pop"', {"web"}),
        ('tag = ["x", "y"]', {"far"}),
        ('id = ["web", "r1"]', {"web"}),
        ('id = "far"', {"far"}),
    ],
)
def test_a_dependency_rule_selects_by_site_tag_or_id_and_no_parent(write, children, expected):
    loaded = load(write(POP + RULE.format(children)), {})
    (rule,) = loaded.dependencies
    assert {one.id for one in loaded.endpoints if rule.selects(one)} == expected
    assert rule.parents == (("r1", "r2"), ("power",))
    assert not [warning for warning in loaded.warnings if "dependencies" in warning]


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ('children = { site = "pop" }', "dependencies[#1].parents: is missing"),
        ('children = { site = "pop" }\nparents = []', "dependencies[#1].parents: "),
        ('children = {}\nparents = ["r1"]', "dependencies[#1].children: needs at least one of id, tag and site"),
        ('children = { sites = "pop" }\nparents = ["r1"]', "dependencies[#1].children.sites: "),
        ('children = { site = "pop" }\nparents = ["r9"]', 'parents: "r9" is the id of no endpoint in this file'),
        ('children = { site = "pop" }\nparents = ["r1"]\nfoo = 1', "dependencies[#1].foo: "),
    ],
)
def test_a_wrong_dependency_rule_is_named_with_its_line(wrong, table, line):
    lines = wrong(f"{POP}[[dependencies]]\n{table}\n")
    assert any(line in one for one in lines), lines
    assert all(one.startswith("config.toml:") for one in lines)


def test_a_circle_through_a_rule_is_named_with_its_path(wrong):
    text = endpoint("r1", 'depends_on = ["web"]') + endpoint("web", 'site = "pop"')
    (line,) = wrong(f'{text}[[dependencies]]\nchildren = {{ site = "pop" }}\nparents = ["r1"]\n')
    assert "circle: r1 → web → r1;" in line or "circle: web → r1 → web;" in line


def test_a_dependency_rule_that_selects_nothing_is_a_warning(write):
    warning, *_ = load(write(POP + RULE.format('site = "pup"')), {}).warnings
    assert "dependencies[#1].children: selects no endpoint of this file" in warning


def test_a_thousand_deep_chain_and_diamonds_are_no_circle(write):
    chain = [endpoint(f"n{i}", f'depends_on = [["n{i - 1}", "n{max(i - 2, 0)}"]]') for i in range(1, 1000)]
    assert len(load(write(endpoint("n0") + "".join(chain)), {}).endpoints) == 1000


@pytest.mark.parametrize(
    ("interval", "timeout", "fit"),
    [(60, 5, 8), (10, 5, 1), (10, 2, 3), (5, 5, 0), (1, 0.2, 1), (5, 4, 1), (21.25, 8, 2)],
)
def test_how_many_attempts_fit_before_the_deadline(interval, timeout, fit):
    assert attempts_that_fit(interval, timeout) == fit


def test_attempts_that_do_not_fit_are_a_warning_that_names_how_many_do(write):
    text = "[alert]\nnotification_channels = []\n" + endpoint("a", "check_interval = 10") + endpoint("b")
    (warning,) = load(write(text), {}).warnings
    assert warning.endswith(
        "config.toml:3: endpoints[a]: 1 of 4 attempts fit: they need 21.5 s, a check of 10 s interval has 8 s; "
        "lower the timeout or the retries, or raise the interval"
    )


def test_defaults_that_do_not_fit_are_one_warning_not_one_for_each_endpoint(write):
    text = "[alert]\nnotification_channels = []\n[service]\ncheck_interval = 5\n" + endpoint("a") + endpoint("b")
    (warning,) = load(write(text), {}).warnings
    assert ": service: not even 1 of 4 attempts fits: " in warning


OFF = '[[alert.rules]]\nname = "core"\ntags = ["core"]\nenabled = false\n'


def test_rules_of_which_none_counts_are_a_loud_warning(write):
    text = f"[alert]\nnotification_channels = []\n{OFF}"
    (warning,) = load(write(text), {}).warnings
    assert "config.toml:6: alert.rules.0.enabled: NOBODY WILL BE TOLD of outages: " in warning
    assert load(write(f'{text}[[alert.rules]]\nname = "rest"\n'), {}).warnings == ()
    assert load(write(text.replace("tags", 'kind = "long_outage"\ntags')), {}).warnings == ()


NO_WAY = "is not a public address, so every message is refused; allow_networks = [{}] allows it if meant"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('kind = "webhook"\nurl = "https://10.0.0.5:8443/planted"', 'url: 10.0.0.5 NO_WAY("10.0.0.5/32")'),
        (
            'kind = "alertmanager"\nurl = "http://[fd00::1]/"\nallow_networks = ["10.0.0.0/8"]',
            'url: fd00::1 NO_WAY("fd00::1/128")',
        ),
        (
            'kind = "webhook"\nurl_env = "HOOK"',
            'url_env: localhost (127.0.0.1, ::1) NO_WAY("127.0.0.1/32", "::1/128")',
        ),
        ('kind = "apprise"\nurls = ["tgram://1:planted/2", "json://192.168.1.9/planted"]',
         'urls: 192.168.1.9 NO_WAY("192.168.1.9/32")'),
    ],
)  # fmt: skip
def test_a_channel_whose_address_will_be_refused_is_named_before_it_is_needed(write, table, said):
    path = write(f"[alert]\nnotification_channels = []\n[channels.a]\n{table}\n")
    (warning,) = load(path, {"HOOK": "http://localhost/planted"}).warnings
    key, _, rest = said.partition(": ")
    server, _, networks = rest.partition(" NO_WAY")
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if text.startswith(f"{key} ="))
    assert warning == f"{path}:{line}: channels.a.{key}: {server} {NO_WAY.format(networks[1:-1])}"


@pytest.mark.parametrize(
    "table",
    [
        'kind = "webhook"\nurl = "https://10.0.0.5/"\nallow_networks = ["10.0.0.0/8"]',
        'kind = "webhook"\nurl = "https://localhost/"\nallow_networks = ["127.0.0.0/8"]',
        'kind = "webhook"\nurl = "https://9.9.9.9/"',
        'kind = "webhook"\nurl = "https://hooks.isp.example/"',
        'kind = "smtp"\nhost = "127.0.0.1"\nsender = "a@isp.example"\nrecipients = ["b@isp.example"]',
    ],
)
def test_a_channel_that_may_be_reached_is_not_warned_of(write, table):
    assert load(write(f"[alert]\nnotification_channels = []\n[channels.a]\n{table}\n"), {}).warnings == ()


def test_thousands_of_like_warnings_are_counted_not_listed(write):
    text = "[channels.email]\nkind = 'exec'\ncommand = ['true']\n" + "".join(
        endpoint(f"e{i}", "check_interval = 5") for i in range(50)
    )
    warnings = load(write(text), {}).warnings
    assert len(warnings) == 21
    assert warnings[-1] == "… and 30 more like these"


def test_twelve_thousand_endpoints_load_fast_enough_for_a_reload(write):
    path = write("".join(endpoint(f"e{i}", 'name = "Customer"', 'tags = ["x"]', "retries = 2") for i in range(12_000)))
    text = path.read_text(encoding="utf-8")
    began = time.process_time()
    tomllib.loads(text)
    parsed = time.process_time()
    assert len(load(path, {}).endpoints) == 12_000
    # Against the parser, which has to be waited for in any case: seconds would say how busy the machine is.
    assert time.process_time() - parsed < 8 * (parsed - began)


# Lines


def test_the_line_of_every_kind_of_key_is_found():
    text = """\
top = 1
[a]           # comment with [brackets] and "quotes"
b.c = '''
[not.a.table]
x = 1
'''
"quoted.key" = 1
list = [ 1, # one
  { inline = 2,
 }, "]" ]
[[t]]
x = 1
[[t.u]]
y = 1
[[t.u]]
y = 2
[t.v]
z = 1979-05-27 07:32:00
[[t]]
x = 2
"""
    text = text.replace("2,\n }", "2\n }")  # valid in TOML 1.1 only, but harmless to scan
    lines = key_lines(text)
    expected = {
        ("top",): 1,
        ("a",): 2,
        ("a", "b"): 3,
        ("a", "b", "c"): 3,
        ("a", "quoted.key"): 7,
        ("a", "list", 0): 8,
        ("a", "list", 1, "inline"): 9,
        ("a", "list", 2): 10,
        ("t", 0, "x"): 12,
        ("t", 0, "u", 1, "y"): 16,
        ("t", 0, "v", "z"): 18,
        ("t", 1): 19,
        ("t", 1, "x"): 20,
    }
    assert {path: lines.get(path) for path in expected} == expected


_words = st.text("abé #.=[]{}'\"\\\n\t", max_size=8)
_values = st.recursive(
    st.booleans() | st.integers(-9, 9) | _words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=3),
    max_leaves=8,
)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _inline(value) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_inline(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[\n" + "".join(f"# a [comment] 'here\n {_inline(inner)},\n" for inner in value) + "]"
    return json.dumps(value)


def _paths(value, path=()):
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in children:
        yield from _paths(inner, (*path, key))


@given(tables=st.dictionaries(_words, st.dictionaries(_words, _values, max_size=3), max_size=3))
def test_every_key_that_tomllib_reads_has_a_line_that_shows_it(tables):
    text = "".join(
        f"[[{_key(name)}]]\n" + "".join(f"{_key(key)}  =  {_inline(value)} # x\n" for key, value in table.items())
        for name, table in tables.items()
    )
    read = tomllib.loads(text)
    lines = key_lines(text)
    shown = text.split("\n")
    for path in _paths(read):
        if path and isinstance(path[-1], str):
            assert _key(path[-1]) in shown[lines[path] - 1]
        elif path:
            assert path in lines


@given(text=st.text("ab.=[]{}'\"#\n\\, ", max_size=60))
def test_the_scan_survives_any_text(text):
    key_lines(text)
