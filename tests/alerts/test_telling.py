"""The whole daemon with real receivers: who is told, of what, and how often."""

from __future__ import annotations

import os
import signal
from datetime import datetime

import pytest

from tests.fix_daemon import FAST
from tests.fix_servers import settled

pytestmark = pytest.mark.timeout(90)
PATIENCE_SECONDS = 20.0


def mail_to(port: int, name: str = "email", more: str = "") -> str:
    return (
        f'[channels.{name}]\nkind = "smtp"\nhost = "127.0.0.1"\nport = {port}\ntls = "none"\n'
        f'sender = "servmon@isp.example"\nrecipients = ["noc@isp.example"]\n{more}'
    )


def watching(port: int, alert: str, more: str = "") -> str:
    return (
        f'{FAST}[outage]\nwitnesses = ["127.0.0.1"]\n[alert]\n{alert}\n{more}[[endpoints]]\nid = "web"\n'
        f'name = "A web server"\nurl = "http://127.0.0.1:{port}/"\ncheck_interval = 1\nowner = "core team"\n'
    )


async def until(server, subjects: int) -> None:
    await settled(lambda: len(server.mails) >= subjects, PATIENCE_SECONDS)


async def test_a_lone_outage_makes_exactly_two_mails_in_one_thread(servmon_daemon, mail_server, site):
    mail = await mail_server()
    daemon = servmon_daemon(watching(site.port, "", mail_to(mail.port)))
    await daemon.start()
    await daemon.get_until("/services/web/status", lambda status: status["status"] == "UP")
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


async def test_a_kill_in_the_middle_of_an_outage_tells_nothing_twice(servmon_daemon, mail_server, site):
    mail = await mail_server()
    daemon = servmon_daemon(watching(site.port, "", mail_to(mail.port)))
    await daemon.start()
    await daemon.get_until("/services/web/status", lambda status: status["status"] == "UP")
    await site.stop()
    await until(mail, 1)
    await daemon.stop(signal.SIGKILL)
    await daemon.start()
    await daemon.get_until("/services/web/status", lambda status: status["state"] == "down")
    await site.start()
    await settled(lambda: any(subject.startswith("UP") for subject in mail.subjects), PATIENCE_SECONDS)
    await daemon.stop()
    # A kill between sending and marking may repeat a mail, which then bears the same id.
    heads = {one["Message-ID"]: one["Subject"].split(":")[0] for one in mail.mails}
    assert list(heads.values()) == ["DOWN", "UP"]


async def test_an_outage_while_postgres_is_away_is_told_and_stored_afterwards(servmon_daemon, mail_server, site):
    mail = await mail_server()
    daemon = servmon_daemon(watching(site.port, "", mail_to(mail.port)))
    await daemon.start()
    await daemon.get_until("/services/web/status", lambda status: status["status"] == "UP")
    pid = daemon.postgres_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        await site.stop()
        await until(mail, 1)
    finally:
        os.kill(pid, signal.SIGCONT)
    (outage,) = (await daemon.get_until("/outages/", lambda page: page["items"]))["items"]
    assert datetime.fromisoformat(outage["start_time"])
    found = await daemon.get_until(
        f"/outages/{outage['id']}", lambda stored: stored["notification_channels"] == ["email"]
    )
    assert not found["resolved"]
    await daemon.stop()
    assert mail.subjects == ["DOWN: A web server (MAJOR)"]
