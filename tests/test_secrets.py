"""A secret that stands in the configuration gets out nowhere, whatever is asked and whatever goes wrong."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from servmon.api.app import ROUTES
from tests.fix_daemon import SEEING, RunningServmon
from tests.test_cli import servmon

PLANTED = "planted"


def configuration(database: str, closed: int) -> str:
    """A secret in every place that takes one; nobody who should get one is there."""
    separator = "&" if "?" in database else "?"
    web = f"http://127.0.0.1:{closed}"
    return f"""
[database]
url = "{database}{separator}password={PLANTED}-db"
[log]
level = "debug"
[alert]
notification_channels = ["hook", "mail", "pager", "manager", "chat"]
group_wait = 0
heartbeat_url = "{web}/{PLANTED}-heartbeat"
heartbeat_interval = 1
[channels.hook]
kind = "webhook"
url = "{web}/{PLANTED}-hook"
secret = "{PLANTED}-signature"
headers = {{ "X-Key" = "{PLANTED}-header" }}
allow_networks = ["127.0.0.0/8"]
[channels.mail]
kind = "smtp"
host = "127.0.0.1"
port = {closed}
sender = "a@isp.example"
recipients = ["b@isp.example"]
username = "servmon"
password = "{PLANTED}-mail"
[channels.pager]
kind = "pagerduty"
url = "{web}/{PLANTED}-pager"
routing_key = "{PLANTED}-routing"
allow_networks = ["127.0.0.0/8"]
[channels.manager]
kind = "alertmanager"
url = "{web}/{PLANTED}-manager"
allow_networks = ["127.0.0.0/8"]
[channels.chat]
kind = "apprise"
urls = ["json://planted:{PLANTED}-pass@127.0.0.1:{closed}/{PLANTED}-path"]
allow_networks = ["127.0.0.0/8"]
[elasticsearch]
hosts = ["{web}"]
api_key = "{PLANTED}-elastic"
sync_interval = 1
{SEEING}
[[endpoints]]
id = "dead"
url = "http://127.0.0.1:{closed}/"
check_interval = 1
detection_threshold = 1
username = "u"
password = "{PLANTED}-basic"
headers = {{ "X-Api-Key" = "{PLANTED}-key", "Cookie" = "sid={PLANTED}-cookie" }}
[[endpoints]]
id = "token"
url = "https://127.0.0.1:{closed}/"
check_interval = 1
bearer_token = "{PLANTED}-bearer"
"""


async def every_answer(daemon: RunningServmon) -> str:
    """What every route that can be read answers, and what some that cannot be served say."""
    said = []
    for route in ROUTES:
        if route.method == "GET" and "event" not in route.path:
            path = re.sub(r"{\w+}", "dead", route.path)
            said.append(await daemon.answer("GET", path))
    said.append(await daemon.answer("POST", "/config/reload", {"force": "x"}))
    said.append(await daemon.answer("POST", "/services/", {"url": f"http://u:{PLANTED}-typed@127.0.0.1/"}))
    return "\n".join(said)


async def every_command(daemon: RunningServmon) -> str:
    said = []
    for command in (("config", "show"), ("config", "check"), ("config", "diff"), ("doctor",)):
        _, out, err = await servmon(*command, "--config", str(daemon.file))
        said += [out, err]
    return "\n".join(said)


async def test_a_planted_secret_is_in_no_log_answer_metric_or_command(servmon_daemon, database, closed_port):
    daemon = servmon_daemon(configuration(database, closed_port))
    daemon.environment |= {
        "SERVMON_PUBLIC_URL": "https://servmon.example",
        "SERVMON_LINK_KEY": f"{PLANTED}-link-key-of-thirty-two-characters",
    }
    await daemon.start()
    (outage,) = (await daemon.get_until("/outages/active", lambda found: found["items"]))["items"]
    for channel in ("hook", "mail", "pager", "manager", "chat"):
        await daemon.get_until("/readyz", lambda found, name=channel: any(name in one for one in found["degraded"]))
    said = [await every_answer(daemon), await daemon.answer("GET", f"/outages/{outage['id']}/alerts")]
    daemon.configure(configuration(database, closed_port) + f'[api]\nport = 1\ntoken = ["{PLANTED}-list"]\n')
    daemon.signal(signal.SIGHUP)
    await daemon.logged("configuration not applied")
    said.append(await daemon.answer("GET", "/readyz"))
    daemon.configure(configuration(database, closed_port).replace(f"{PLANTED}-mail", f"{PLANTED}-other"))
    daemon.signal(signal.SIGHUP)
    await daemon.logged("configuration applied")
    said.append(await every_command(daemon))
    await daemon.stop()
    text = "\n".join((*said, daemon.log()))
    assert "dead" in text
    assert [line for line in text.splitlines() if PLANTED in line] == []
    assert left_on_disk(daemon.data_dir) == set()


def left_on_disk(data_dir: Path) -> set[str]:
    """Files with a secret, but for those without which servmon could not start again, for its account alone."""
    found = {path for path in data_dir.rglob("*") if path.is_file() and PLANTED.encode() in path.read_bytes()}
    needed = {path for path in found if "configurations" in path.parts or path.name.startswith("spool.sqlite")}
    return {str(path) for path in found - needed} | {
        f"{path} for all" for path in needed if path.stat().st_mode & 0o077
    }
