"""/config: what is in force, and where it comes from, without a secret in it."""

from __future__ import annotations

from servmon.api.configuration import Configuration
from servmon.settings import load
from servmon.settings.effective import effective
from tests.fix_api import NOTHING, serving

TEXT = """
[service]
check_interval = 30
[api]
token = "planted-token"
[database]
url = "postgresql://me:planted-password@db.isp.example/servmon"
[channels.hook]
kind = "webhook"
url = "https://hook.isp.example/planted-path"
secret = "planted-secret"
[alert]
notification_channels = ["hook"]
"""


async def test_every_setting_has_its_value_and_its_source_and_no_secret_is_shown(tmp_path):
    file = tmp_path / "servmon.toml"
    file.write_text(TEXT, encoding="utf-8")
    loaded = load(file, {"SERVICE_CHECK_TIMEOUT": "7"})

    async def reload(_force: bool) -> int:
        return 0

    async with serving(NOTHING, running=Configuration(reload, lambda: effective(loaded))) as api:
        reply = await api.get("/config")
    shown = {one["name"]: (one["value"], one["source"]) for one in reply.json["items"]}
    assert shown["service.check_interval"] == (30, "file")
    assert shown["service.check_timeout"] == (7, "environment: SERVICE_CHECK_TIMEOUT")
    assert shown["service.check_retries"] == (3, "default")
    assert shown["api.token"] == ("***", "file")
    assert shown["alert.notification_channels"] == (["hook"], "file")
    assert b"planted" not in reply.body


async def test_without_a_daemon_there_is_no_configuration(door):
    reply = await door.get("/config")
    assert (reply.status, reply.json["detail"]) == (
        409,
        "this API runs without a daemon, so there is no configuration",
    )
