"""The example file knows every option, and no other."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from pydantic import SecretStr

from servmon.alerts.channels import SETTINGS as CHANNELS
from servmon.alerts.settings import ChannelSection, RuleKind, RuleSection
from servmon.model import Endpoint, Section
from servmon.probes import PROBES
from servmon.probes.tls import TlsOptions
from servmon.settings import Settings, load
from servmon.settings.toml_positions import key_lines
from servmon.settings.written_values import holds, is_secret, may_be_a_file

EXAMPLE = Path(__file__).parent.parent / "config.example.toml"
TEXT = EXAMPLE.read_text(encoding="utf-8")
NOT_WRITTEN = {"options", "key", "source", "revision", "created_at", "updated_at", "archived_at"}
ENDPOINT_KEYS = {field.name for field in fields(Endpoint)} - NOT_WRITTEN
SECTIONS = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}
# No default that TOML could write down, or another one on every machine; or, the last, set as shipped.
UNWRITABLE_DEFAULTS = {"data_dir", "public_url", "url", "hosts", "api_key", "token", "file", "notification_channels"}
UNWRITABLE_DEFAULTS |= {
    "fallback_channel",
    "heartbeat_url",
    "rules",
    "escalation",
    "quiet_hours",
    "username",
    "password",
    "ca_file",
    "client_cert",
}
UNWRITABLE_DEFAULTS |= {"escalation", "quiet_hours"}
UNWRITABLE_DEFAULTS |= {"client_key", "listen_url", "socket", "socket_group", "trusted_proxies", "cors_origins"}
UNWRITABLE_DEFAULTS |= {"link_key"}


# What every kind of channel takes; shown once.
COMMON = ChannelSection.model_fields.keys() - {"kind"}


def uncommented() -> str:
    return re.sub(r"^#(?=[\w\[])", "", TEXT, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def everything():
    """All tables of the file, its commented options included."""
    return tomllib.loads(uncommented())


def test_as_shipped_it_loads_without_a_warning():
    loaded = load(EXAMPLE, {})
    assert loaded.warnings == ()
    assert {endpoint.protocol for endpoint in loaded.endpoints} == {"HTTP", "TCP", "ICMP"}
    assert all("127.0.0.1" in endpoint.url for endpoint in loaded.endpoints)


def test_it_watches_the_port_that_the_api_listens_on_by_default():
    port = f":{Settings().api.port}"
    assert [port in endpoint.url for endpoint in load(EXAMPLE, {}).endpoints] == [True, True, False]


def test_as_shipped_it_sets_nothing_but_the_channels():
    settings = load(EXAMPLE, {"STATE_DIRECTORY": "/s"}).settings
    defaults = load(None, {"STATE_DIRECTORY": "/s"}).settings
    assert settings.model_copy(update={"alert": defaults.alert}) == defaults


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_is_in_it_at_its_default(everything, section):
    model = SECTIONS[section]
    secrets = {key for key, field in model.model_fields.items() if holds(field, SecretStr)}
    pointers = {key + end for key in secrets for end in ("_file", "_env")}
    assert everything[section].keys() == model.model_fields.keys() | pointers
    for key in model.model_fields.keys() - UNWRITABLE_DEFAULTS:
        default = model.model_fields[key].default
        assert everything[section][key] == (list(default) if isinstance(default, tuple) else default)


def test_every_field_of_an_endpoint_is_in_one_block(everything):
    assert everything["endpoints"][3].keys() >= ENDPOINT_KEYS


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.protocol)
def test_every_option_of_every_protocol_is_in_it(everything, tmp_path, probe):
    path = tmp_path / "all.toml"
    path.write_text(sound(everything), encoding="utf-8")
    protocols = {other.protocol for other in PROBES if other.options is probe.options}
    same = {endpoint.id for endpoint in load(path, {}).endpoints if endpoint.protocol in protocols}
    shown = {key for table in everything["endpoints"] if table["id"] in same for key in table}
    assert probe.options.model_fields.keys() - TlsOptions.model_fields.keys() <= shown


def test_every_option_that_protocols_share_is_in_one_block(everything):
    assert {key for table in everything["endpoints"] for key in table} >= TlsOptions.model_fields.keys()


@pytest.mark.parametrize("kind", CHANNELS)
def test_every_option_of_every_channel_is_in_it(everything, kind):
    model = CHANNELS[kind]
    shown = {key for table in everything["channels"].values() if table["kind"] == kind for key in table}
    pointers = {key + end for key, field in model.model_fields.items() if is_secret(field) for end in ("_file", "_env")}
    files = {f"{key}_file" for key, field in model.model_fields.items() if may_be_a_file(field)}
    assert shown >= model.model_fields.keys() - COMMON
    assert shown <= model.model_fields.keys() | pointers | files


def test_every_option_that_channels_share_is_in_one_block(everything):
    assert everything["channels"]["noc"].keys() >= COMMON


def test_every_key_of_a_rule_is_in_it(everything):
    assert {key for rule in everything["alert"]["rules"] for key in rule} == RuleSection.model_fields.keys()
    assert [rule["kind"] for rule in everything["alert"]["rules"]] == list(RuleKind)


def test_with_every_comment_taken_away_it_loads(everything, tmp_path):
    path = tmp_path / "all.toml"
    path.write_text(sound(everything), encoding="utf-8")
    loaded = load(path, {})
    assert len(loaded.endpoints) == len(everything["endpoints"])
    assert loaded.warnings == ()


def sound(everything) -> str:
    """The uncommented file without what excludes each other: pointers to secrets, and users in the place of keys."""
    text = re.sub(r"^(\w+_(file|env)|username|password) = .*\n", "", uncommented(), flags=re.MULTILINE)
    assert everything["api"]["token"] in text
    return text


def test_every_option_has_its_line_of_why():
    lines = TEXT.splitlines()
    for path, number in key_lines(uncommented()).items():
        if path[0] == "endpoints" or len(path) != 2:
            continue
        above = next(line for line in reversed(lines[: number - 1]) if not re.match(r"#?\w+ = ", line))
        assert above.startswith("# "), f"line {number}: nothing says why {path}"
