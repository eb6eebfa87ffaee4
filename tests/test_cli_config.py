"""`servmon config …` as a user calls it."""

from __future__ import annotations

import json
import stat

import pytest

from servmon.settings import load
from tests.fix_cli import command
from tests.fix_daemon import FAST
from tests.test_cli import servmon


def many(number: int) -> str:
    return FAST + "".join(
        f'[[endpoints]]\nid = "e{n}"\nurl = "icmp://127.0.0.1"\ncheck_interval = 60\n' for n in range(number)
    )


async def test_apply_says_what_came_of_it_and_force_passes_the_removal_guard(servmon_daemon):
    daemon = servmon_daemon(many(30))
    await daemon.start()
    daemon.configure(many(5))
    file = str(daemon.file)
    code, out, err = await servmon("config", "apply", "--config", file)
    assert (code, out) == (1, "")
    assert "it would remove 25 of 30 endpoints, such as e10, e11, e12" in err
    assert "servmon config apply --force" in err
    assert await servmon("config", "apply", "--force", "--config", file) == (0, "applied: 5 endpoints\n", "")
    assert len([one for one in (await daemon.get("/services/"))["items"] if one["is_active"]]) == 5
    daemon.configure("[service\n")
    code, _, err = await servmon("config", "apply", "--config", file)
    assert (code, "not valid TOML" in err) == (2, True)
    await daemon.stop()
    daemon.configure(many(5))
    code, _, err = await servmon("config", "apply", "--config", file)
    refused = f"no servmon answers at http://127.0.0.1:{daemon.port}: Connection refused"
    assert (code, err) == (1, f"{refused}; none runs here, or one that was started with another [api]\n")


async def test_diff_says_what_a_reload_would_do(servmon_daemon):
    daemon = servmon_daemon(many(3))
    file = str(daemon.file)
    code, _, err = await servmon("config", "diff", "--config", file)
    assert (code, err) == (1, "no configuration was applied yet, so everything would be new\n")
    await daemon.start()
    await daemon.stop()
    assert await servmon("config", "diff", "--config", file) == (0, "nothing would change\n", "")
    text = daemon.file.read_text(encoding="utf-8")
    text = text.replace("retry_interval = 1", "retry_interval = 7").replace('id = "e0"', 'id = "new"')
    daemon.file.write_text(text.replace(f"port = {daemon.port}", 'port = 1\ntoken = "s3cret"'), encoding="utf-8")
    code, out, _ = await servmon("config", "diff", "--config", file)
    assert code == 0
    assert out.splitlines() == [
        f"~ api.port: {daemon.port} -> 1  (needs a restart)",
        '~ api.token: null -> "***"  (needs a restart)',
        "~ service.retry_interval: 1 -> 7",
        "- endpoint e0: becomes inactive, its history stays",
        "+ endpoint new: icmp://127.0.0.1",
    ]


async def test_show_names_every_setting_its_origin_and_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("SERVICE_CHECK_INTERVAL", "30")
    file = tmp_path / "servmon.toml"
    file.write_text('[api]\ntoken = "s3cret"\n[alert]\nnotification_channels = []\n', encoding="utf-8")
    code, out, _ = await servmon("config", "show", "--config", str(file))
    assert code == 0
    lines = out.splitlines()
    assert "service.check_interval = 30  # environment: SERVICE_CHECK_INTERVAL" in lines
    assert 'api.token = "***"  # file' in lines
    assert "service.check_retries = 3  # default" in lines
    assert "s3cret" not in out


async def test_the_schema_is_one_and_knows_every_protocols_options():
    code, out, _ = await servmon("config", "schema")
    schema = json.loads(out)
    assert code == 0
    endpoint = schema["$defs"]["Endpoint"]["properties"]
    assert {"id", "url", "query_name", "packets", "send_hex", "depends_on", "use"} <= endpoint.keys()
    assert {"token", "token_file", "token_env"} <= schema["$defs"]["ApiSection"]["properties"].keys()


@pytest.fixture
def editor(tmp_path, monkeypatch):
    """Makes $EDITOR a script that puts ``text`` into the file."""

    def make(text: str) -> None:
        new, script = tmp_path / "new.toml", tmp_path / "editor"
        new.write_text(text, encoding="utf-8")
        script.write_text(f'#!/bin/sh\ncat "{new}" > "$1"\n', encoding="utf-8")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("VISUAL", str(script))

    return make


async def test_edit_replaces_the_file_only_when_it_is_right(tmp_path, editor):
    file = tmp_path / "servmon.toml"
    file.write_text("[alert]\nnotification_channels = []\n", encoding="utf-8")
    editor("[service]\ncheck_interval = 0\n")
    code, _, err = await servmon("config", "edit", "--config", str(file))
    assert code != 0
    assert "service.check_interval: must be at least 1, not 0" in err
    assert file.read_text(encoding="utf-8") == "[alert]\nnotification_channels = []\n"
    editor("[service]\ncheck_interval = 7\n")
    code, out, _ = await servmon("config", "edit", "--config", str(file))
    assert (code, out) == (0, f"{file}: replaced; a running servmon takes it up within seconds\n")
    assert file.read_text(encoding="utf-8") == "[service]\ncheck_interval = 7\n"
    assert not list(tmp_path.glob(".*"))


async def test_diff_says_that_a_secret_changed_and_not_to_what(servmon_daemon):
    daemon = servmon_daemon('[elasticsearch]\napi_key = "planted-one"\n')
    await daemon.start()
    await daemon.stop()
    daemon.configure('[elasticsearch]\napi_key = "planted-two"\n')
    code, out, _ = await servmon("config", "diff", "--config", str(daemon.file))
    assert (code, out) == (0, '~ elasticsearch.api_key: "***" -> another one\n')


COMMENTED = """\
# Ours since 2019.
[service]
check_interval = 30  # the boss wants it

[[endpoints]]
id = "web"  # do not rename
url = "http://192.0.2.1/"
"""


async def test_set_changes_one_value_and_no_comment(tmp_path):
    file = tmp_path / "servmon.toml"
    file.write_text(COMMENTED, encoding="utf-8")
    file.chmod(0o640)
    code, out, err = await servmon("config", "set", "service.check_interval", "20", "--config", str(file))
    assert (code, out) == (0, f"{file}: replaced; a running servmon takes it up within seconds\n"), err
    assert file.read_text(encoding="utf-8") == COMMENTED.replace("30  #", "20  #")
    assert file.stat().st_mode & 0o777 == 0o640
    code, _, err = await servmon("config", "set", "alert.notification_channels", '["noc"]', "--config", str(file))
    assert code == 2
    wrong, stays = err.splitlines()
    assert wrong.startswith(f'{file}:10: alert.notification_channels: there is no channel "noc"')
    assert stays == f"{file} stays as it was"
    for name, value, sentence in (
        ("interval", "20", "interval: a setting is SECTION.KEY, such as service.check_interval"),
        (
            "service.check_interval.x",
            "20",
            "service.check_interval.x: check_interval is a value in this file, and no table",
        ),
        ("service.check_retries", "null", "service.check_retries: TOML has no way to write None"),
    ):
        code, _, err = await servmon("config", "set", name, value, "--config", str(file))
        assert (code, err.splitlines()[0]) == (2, sentence)
    assert file.read_text(encoding="utf-8") == COMMENTED.replace("30  #", "20  #")
    assert [path.name for path in tmp_path.iterdir()] == ["servmon.toml"]


async def test_a_symbolic_link_goes_on_leading_to_the_file(tmp_path):
    (tmp_path / "real").mkdir()
    real, link = tmp_path / "real" / "a.toml", tmp_path / "servmon.toml"
    real.write_text(COMMENTED, encoding="utf-8")
    link.symlink_to(real)
    code, _, err = await servmon("config", "set", "service.check_retries", "1", "--config", str(link))
    assert (code, link.is_symlink()) == (0, True), err
    assert "check_retries = 1" in real.read_text(encoding="utf-8")


async def test_init_asks_a_few_questions_and_keeps_secrets_in_files_of_their_own(tmp_path):
    file = tmp_path / "servmon.toml"
    answers = [
        "mysql://x", "postgresql://servmon:planted@db.example/servmon",
        "pigeon", "smtp", "mail.example", "servmon@isp.example", "noc@isp.example, boss@isp.example", "servmon",
        "hunter2", "http://portal.example/a", "icmp://192.0.2.1", "nonsense://x", "https://portal.example/a", "",
    ]  # fmt: skip
    code, out, err = await servmon("config", "init", "--config", str(file), answers=answers)
    assert code == 0, err
    loaded = load(file, {})
    assert loaded.warnings == ()
    assert loaded.settings.database.url.get_secret_value() == "postgresql://servmon:planted@db.example/servmon"
    mail = loaded.settings.channels["email"]
    assert (mail.host, mail.recipients) == ("mail.example", ("noc@isp.example", "boss@isp.example"))
    assert mail.password.get_secret_value() == "hunter2"
    assert [one.id for one in loaded.endpoints] == ["portal.example-a", "192.0.2.1", "portal.example-a-2"]
    text = file.read_text(encoding="utf-8")
    assert "planted" not in text + out + err
    assert "hunter2" not in text + out + err
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("database_url", "mail_password")} == {0o600}
    assert f"  LoadCredential=mail_password:{tmp_path}/mail_password" in out.splitlines()


async def test_init_leaves_what_is_there_but_for_what_is_answered(tmp_path):
    file = tmp_path / "servmon.toml"
    file.write_text(COMMENTED, encoding="utf-8")
    answers = ["", "nobody", "icmp://192.0.2.7", ""]
    code, _, err = await servmon("config", "init", "--config", str(file), answers=answers)
    assert code == 0, err
    text = file.read_text(encoding="utf-8")
    assert text.startswith(COMMENTED)
    assert [one.id for one in load(file, {}).endpoints] == ["web", "192.0.2.7"]
    assert load(file, {}).warnings == ()


async def test_a_folder_that_is_not_there_is_said_before_anything_is_asked(tmp_path):
    file = tmp_path / "none" / "servmon.toml"
    for words in (("init",), ("set", "log.level", "debug")):
        code, _, err = await servmon("config", *words, "--config", str(file))
        assert (code, err.splitlines()[0]) == (2, f"{file}: there is no folder {file.parent}")


async def test_init_without_anybody_who_answers_writes_nothing(tmp_path):
    file = tmp_path / "servmon.toml"
    code, _, err = await servmon("config", "init", "--config", str(file))
    assert (code, "Aborted" in err) == (1, True)
    assert list(tmp_path.iterdir()) == []


async def test_an_editor_that_fails_is_named_and_the_file_stays_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setenv("VISUAL", "false")
    file = tmp_path / "servmon.toml"
    file.write_text("[service]\n", encoding="utf-8")
    code, _, err = await servmon("config", "edit", "--config", str(file))
    assert (code, err) == (1, f"{file} stays as it was: false ended with status 1\n")
    assert [one.name for one in tmp_path.iterdir()] == ["servmon.toml"]


async def test_who_names_no_file_where_the_service_has_one_hears_that_it_was_not_read(tmp_path, monkeypatch):
    file = tmp_path / "servmon.toml"
    file.write_text("[servic]\n", encoding="utf-8")
    monkeypatch.setattr("servmon.cli.base.SERVICE_FILE", file)
    code, out, err = await command("config", "check")
    assert (code, out) == (0, "environment: valid, 0 endpoints\n")
    assert err.startswith(f"only the environment is read: {file} would be with --config {file}\n")
