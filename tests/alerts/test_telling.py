"""The whole daemon with real receivers: who is told, of what, and how often."""

from __future__ import annotations

import html
import re
import signal
from datetime import UTC, datetime, timedelta

import aiohttp

from tests.fix_daemon import QUICK
from tests.fix_servers import Page, settled
from tests.test_cli import servmon


def mail_to(port: int, name: str = "email", more: str = "") -> str:
    return (
        f'[channels.{name}]\nkind = "smtp"\nhost = "127.0.0.1"\nport = {port}\ntls = "none"\n'
        f'sender = "servmon@isp.example"\nrecipients = ["noc@isp.example"]\n{more}'
    )


def watching(port: int, alert: str, more: str = "") -> str:
    return (
        f'{QUICK}[alert]\n{alert}\n{more}[[endpoints]]\nid = "web"\n'
        f'name = "A web server"\nurl = "http://127.0.0.1:{port}/"\ncheck_interval = 1\nowner = "core team"\n'
    )


async def watched(servmon_daemon, configuration: str, *, public: bool = False):
    """A daemon that runs and has found the site up; ``public`` ones know how they are reached."""
    daemon = servmon_daemon(configuration)
    if public:
        daemon.environment["SERVMON_PUBLIC_URL"] = f"http://127.0.0.1:{daemon.port}"
    await daemon.start()
    await daemon.get_until("/services/web/status", lambda status: status["status"] == "UP")
    return daemon


async def until(server, subjects: int) -> None:
    await settled(lambda: len(server.mails) >= subjects)


async def test_a_lone_outage_makes_exactly_two_mails_in_one_thread(servmon_daemon, mail_server, site):
    mail = await mail_server()
    daemon = await watched(servmon_daemon, watching(site.port, "", mail_to(mail.port)))
    await site.stop()
    await until(mail, 1)
    await site.start()
    await until(mail, 2)
    await daemon.get_until("/outages/", lambda page: page["items"] and page["items"][0]["resolved"])
    await daemon.stop()
    down, up = mail.mails
    assert down["Subject"] == "DOWN: A web server (MAJOR)"
    assert up["Subject"].startswith("UP: A web server (down for ")
    assert down["References"] == up["References"]
    text = down.get_body(("plain",)).get_content()
    assert "A web server is down since" in text
    assert "refused the connection" in text
    assert "Owner: core team" in text


async def test_the_command_line_tells_who_was_told_and_tries_a_channel(servmon_daemon, mail_server, site):
    mail = await mail_server()
    daemon = await watched(servmon_daemon, watching(site.port, "", mail_to(mail.port)))
    await site.stop()
    await until(mail, 1)
    (outage,) = (await daemon.get("/outages/active"))["items"]
    await daemon.get_until(
        f"/outages/{outage['id']}/alerts", lambda found: any(one["sent_at"] for one in found["notifications"])
    )
    code, out, _ = await servmon("alerts", "explain", outage["id"], "--config", str(daemon.file))
    assert code == 0
    assert "down: sent: to email" in out
    assert "email: DOWN: A web server (MAJOR): sent " in out
    code, out, _ = await servmon("channels", "test", "email", "--config", str(daemon.file))
    assert (code, out) == (0, "email: sent; look whether it arrived\n")
    assert mail.subjects[-1] == "servmon: a test, nothing is down"
    await mail.stop()
    code, _, err = await servmon("channels", "test", "email", "--config", str(daemon.file))
    assert code == 1
    assert err.startswith("email: 127.0.0.1: ")
    code, _, err = await servmon("channels", "test", "sms", "--config", str(daemon.file))
    assert (code, err) == (2, "there is no channel 'sms'; there are email\n")
    await daemon.stop()


async def test_new_settings_of_alerts_count_without_a_restart(servmon_daemon, mail_server, site):
    first, second = await mail_server(), await mail_server()
    daemon = await watched(servmon_daemon, watching(site.port, "", mail_to(first.port)))
    daemon.configure(watching(site.port, "", mail_to(second.port)))
    daemon.signal(signal.SIGHUP)
    await daemon.logged("configuration applied")
    await site.stop()
    await until(second, 1)
    await daemon.stop()
    assert first.mails == []


async def test_somebody_else_notices_when_servmon_is_well_and_when_it_is_gone(servmon_daemon, web_server, site):
    watch = await web_server()
    watch.pages["/ping"] = Page()
    alert = f'notification_channels = []\nheartbeat_url = "{watch.url}/ping"\nheartbeat_interval = 1'
    daemon = servmon_daemon(watching(site.port, alert))
    await daemon.start()
    await settled(lambda: len(watch.requests) >= 3)
    await daemon.stop()
    assert {(request.method, request.path) for request in watch.requests} == {("POST", "/ping")}
    assert f"{watch.port}/ping" not in daemon.log()


async def its_link_still_acknowledges(daemon, mail) -> None:
    """The one link in a mail of before the kill: looked at it does nothing, its button acknowledges."""
    said = "".join(part.get_content() for part in mail.iter_parts())
    links = re.findall(rf"http://127.0.0.1:{daemon.port}/ui/[^\s\"<]+", said)
    (link,) = {html.unescape(link) for link in links}
    (outage,) = (await daemon.get("/outages/active"))["items"]
    explain = f"/outages/{outage['id']}/alerts"
    async with aiohttp.ClientSession() as stranger:
        for method in ("HEAD", "GET"):
            async with stranger.request(method, link) as answer:
                assert answer.status == 200
        assert (await daemon.get(explain))["acknowledgement"] is None
        async with stranger.post(link) as answer:
            assert answer.status == 200
    assert (await daemon.get(explain))["acknowledgement"]["acknowledged_by"] == "email (by a link)"


async def test_a_kill_in_the_middle_of_an_outage_tells_nothing_twice(servmon_daemon, mail_server, site):
    mail = await mail_server()
    daemon = await watched(servmon_daemon, watching(site.port, "", mail_to(mail.port)), public=True)
    await site.stop()
    await until(mail, 1)
    await daemon.stop(signal.SIGKILL)
    await daemon.start()
    await daemon.get_until("/services/web/status", lambda status: status["state"] == "down")
    await its_link_still_acknowledges(daemon, mail.mails[0])
    await site.start()
    await settled(lambda: any(subject.startswith("UP") for subject in mail.subjects))
    await daemon.stop()
    # A kill between sending and marking may repeat a mail, which then bears the same id.
    heads = {one["Message-ID"]: one["Subject"].split(":")[0] for one in mail.mails}
    assert list(heads.values()) == ["DOWN", "UP"]


async def test_an_outage_while_postgres_is_away_is_told_and_stored_afterwards(servmon_daemon, mail_server, site):
    mail = await mail_server()
    daemon = await watched(servmon_daemon, watching(site.port, "", mail_to(mail.port)))
    with daemon.hanging_postgres():
        await daemon.logged("results wait for Postgres")
        await site.stop()
        await until(mail, 1)
        assert daemon.results_on_disk()
    await daemon.logged("Postgres takes results again")
    (outage,) = (await daemon.get_until("/outages/", lambda page: page["items"]))["items"]
    assert datetime.fromisoformat(outage["start_time"])
    found = await daemon.get_until(
        f"/outages/{outage['id']}", lambda stored: stored["notification_channels"] == ["email"]
    )
    assert not found["resolved"]
    await daemon.stop()
    assert mail.subjects == ["DOWN: A web server (MAJOR)"]


async def test_planned_work_is_announced_and_its_end_names_what_is_still_down(servmon_daemon, mail_server, site):
    mail = await mail_server()
    daemon = await watched(servmon_daemon, watching(site.port, "end_grace = 4", mail_to(mail.port)))
    begins, ends = (datetime.now(UTC) + timedelta(seconds=seconds) for seconds in (-1, 3600))  # noqa: TID251 - real time
    planned = {"endpoint_ids": ["web"], "description": "New firmware", "notify": ["email"]}
    window = await daemon.send(
        "POST", "/maintenance/", {**planned, "start_time": begins.isoformat(), "end_time": ends.isoformat()}
    )
    await until(mail, 1)
    await site.stop()
    await daemon.get_until("/services/web/status", lambda status: status["status"] == "DOWN")
    await daemon.send("POST", f"/maintenance/{window['id']}/end", {})
    (outage,) = (await daemon.get_until("/outages/active", lambda page: page["items"]))["items"]
    await until(mail, 2)
    await site.start()
    await until(mail, 3)
    await daemon.stop()
    begun, over, up = mail.subjects
    assert begun.startswith("MAINTENANCE BEGINS: New firmware (until ")
    assert over == "MAINTENANCE OVER: New firmware: 1 of 1 still down"
    assert up.startswith("UP: New firmware: 1 of 1 (down for ")
    assert outage["start_time"] < outage["declared_at"]


async def test_a_rule_made_over_the_api_counts_at_once_and_says_by_what_values_it_fired(
    servmon_daemon, mail_server, site
):
    mail = await mail_server()
    ways = mail_to(mail.port) + mail_to(mail.port, "boss")
    daemon = await watched(servmon_daemon, watching(site.port, "group_wait = 1", ways))
    await daemon.send("POST", "/alerts/rules", {"name": "any", "kind": "active_outages", "channels": ["boss"]})
    code, out, _ = await servmon("alerts", "rules", "list", "--config", str(daemon.file))
    assert (code, out.splitlines()[0].split("\t")[:3]) == (0, ["any", "active_outages", "yes"])
    await site.stop()
    await until(mail, 2)
    fires = "1 service is down: A web server, threshold 1"
    assert set(mail.subjects) == {"DOWN: A web server (MAJOR)", f"RULE: {fires} (MAJOR)"}
    fired = next(one for one in (await daemon.get("/alerts/active"))["items"] if one["kind"] == "active_outages")
    assert (fired["channels"], fired["reason"]) == (["boss"], fires)
    shown = await daemon.get(f"/alerts/{fired['id']}")
    assert [one["reason"] for one in shown["decisions"]] == [f"to boss: {fired['reason']}"]
    await daemon.stop(signal.SIGKILL)
    await daemon.start()
    await daemon.get_until("/services/web/status", lambda status: status["state"] == "down")
    await site.start()
    await settled(lambda: {"OVER", "UP"} <= {one.split(":")[0] for one in mail.subjects})
    await daemon.stop()
    heads = {one["Message-ID"]: one["Subject"].split(":")[0] for one in mail.mails}
    assert sorted(heads.values()) == ["DOWN", "OVER", "RULE", "UP"]
