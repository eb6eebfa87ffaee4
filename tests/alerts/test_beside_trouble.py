"""The whole daemon with a way out that is in trouble itself: who hears of it, and what it costs the checks."""

from __future__ import annotations

from datetime import datetime

import pytest

from tests.alerts.test_telling import mail_to
from tests.elastic.test_backlog import figures
from tests.fix_daemon import FAST
from tests.fix_servers import Page, is_silent, settled

pytestmark = [pytest.mark.deep, pytest.mark.timeout(400)]
OTHERS = 100


def hook_to(port: int, name: str) -> str:
    return f'[channels.{name}]\nkind = "webhook"\nurl = "http://127.0.0.1:{port}/"\nallow_networks = ["127.0.0.0/8"]\n'


async def test_where_the_mail_server_is_what_fails_the_fallback_is_told_within_two_minutes(
    servmon_daemon, mail_server, web_server
):
    mail, hook = await mail_server(), await web_server()
    hook.pages["/"] = Page()
    daemon = servmon_daemon(
        f'{FAST}[outage]\nwitnesses = ["127.0.0.1"]\n[alert]\nfallback_channel = "hook"\n{mail_to(mail.port)}'
        f'{hook_to(hook.port, "hook")}[[endpoints]]\nid = "mail"\nname = "The mail server"\n'
        f'url = "tcp://127.0.0.1:{mail.port}"\ncheck_interval = 1\n'
    )
    await daemon.start()
    await daemon.get_until("/services/mail/status", lambda status: status["status"] == "UP")
    await mail.stop()
    await settled(lambda: any(b"in place of email" in request.body for request in hook.requests), 180)
    (outage,) = (await daemon.get("/outages/active"))["items"]
    found = await daemon.get_until(
        f"/outages/{outage['id']}/alerts", lambda found: any(one["sent_at"] for one in found["notifications"])
    )
    (told,) = (one for one in found["notifications"] if one["sent_at"])
    assert told["channel"] == "hook"
    assert (moment(told["sent_at"]) - moment(outage["declared_at"])).total_seconds() <= 120
    await daemon.stop()


async def test_a_way_out_that_hangs_delays_no_other_and_no_check(
    servmon_daemon, mail_server, web_server, tcp_server, site
):
    mail, hook = await mail_server(), await web_server()
    hook.pages["/"] = Page()
    mail.reply = None
    open_port = (await tcp_server(is_silent)).port
    others = "".join(
        f'[[endpoints]]\nid = "e{one}"\nurl = "tcp://127.0.0.1:{open_port}"\ncheck_interval = 1\n'
        for one in range(OTHERS)
    )
    daemon = servmon_daemon(
        f'{FAST}[outage]\nwitnesses = ["127.0.0.1"]\n[alert]\nnotification_channels = ["email", "hook"]\n'
        f'group_wait = 0\n{mail_to(mail.port)}{hook_to(hook.port, "hook")}{others}[[endpoints]]\nid = "web"\n'
        f'url = "http://127.0.0.1:{site.port}/"\ncheck_interval = 1\n'
    )
    await daemon.start()
    await daemon.get_until("/services/web/status", lambda status: status["status"] == "UP")
    before = await figures(daemon)
    for turn in range(3):  # more would be flapping
        await site.stop()
        await settled(lambda number=2 * turn + 1: len(hook.requests) >= number, 30)
        await site.start()
        await settled(lambda number=2 * turn + 2: len(hook.requests) >= number, 30)
    after = await figures(daemon)
    page = await daemon.get("/outages/?limit=10")
    waited = []
    for outage in page["items"]:
        found = await daemon.get(f"/outages/{outage['id']}/alerts")
        by_hook = [one for one in found["notifications"] if one["channel"] == "hook"]
        assert all(one["sent_at"] for one in by_hook)
        assert not any(one["sent_at"] for one in found["notifications"] if one["channel"] == "email")
        waited += [(moment(one["sent_at"]) - moment(one["created_at"])).total_seconds() for one in by_hook]
    assert await daemon.stop() == 0

    def of(name: str) -> float:
        return after[name] - before[name]

    late = of("servmon_check_lateness_seconds_count") - of('servmon_check_lateness_seconds_bucket{le="0.1"}')
    print(f"\n{of('servmon_checks_total'):.0f} checks, {late:.0f} late; messages waited {max(waited):.2f} s")  # noqa: T201
    assert len(waited) == 6
    assert max(waited) < 1
    assert of("servmon_checks_skipped_total") == 0
    assert late <= 0.01 * of("servmon_checks_total")


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
