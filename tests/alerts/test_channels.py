"""Each way out against a real receiver."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import stat
import sys
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from servmon.alerts.alert import MessageKind, Notification
from servmon.alerts.calendar import event_of, ics
from servmon.alerts.channels import SETTINGS, open_channel
from servmon.alerts.channels.base import DEADLINE_SECONDS, ChannelError
from servmon.alerts.channels.reach import Reach
from servmon.alerts.heartbeat import beat
from servmon.alerts.messages import trial
from servmon.alerts.settings import AlertSection
from servmon.model import Severity
from servmon.settings import SettingsError, load
from servmon.tasks import cancel, spawn
from tests.fix_daemon import is_alive
from tests.fix_mail import knows
from tests.fix_servers import Page, free_port, is_silent, server_tls, settled

AT = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)


def message(kind: MessageKind = MessageKind.DOWN, **fields) -> Notification:
    given = {
        "id": "0b5e9b0e-0000-4000-8000-000000000001",
        "alert_id": "0b5e9b0e-0000-4000-8000-000000000002",
        "channel": "noc",
        "kind": kind,
        "severity": Severity.CRITICAL,
        "subject": "DOWN: <Kern & Söhne> (CRITICAL)",
        "body": "Kern & Söhne is down since 03:00.\n<script>alert(1)</script>\n",
        "created_at": AT,
        "content": {"kind": kind.value, "title": "Kern"},
    }
    return Notification(**{**given, **fields})


def smtp(port: int, **fields):
    return open_channel(
        SETTINGS["smtp"](
            **{
                "host": "127.0.0.1", "port": port, "tls": "none", "sender": "servmon@isp.example",
                "recipients": ("a@isp.example", "b@isp.example"), **fields,
            }
        )
    )  # fmt: skip


def webhook(url: str, **fields):
    return open_channel(SETTINGS["webhook"](**{"url": url, "allow_networks": ("127.0.0.0/8",), **fields}))


# Mail


async def test_a_mail_reaches_all_recipients_as_text_and_as_harmless_html(mail_server):
    server = await mail_server()
    await smtp(server.port).send(message())
    (mail,) = server.mails
    assert server.recipients == [["a@isp.example", "b@isp.example"]]
    assert mail["Subject"] == "DOWN: <Kern & Söhne> (CRITICAL)"
    assert mail["Message-ID"] == "<0b5e9b0e-0000-4000-8000-000000000001@isp.example>"
    assert (mail["Auto-Submitted"], mail["Importance"]) == ("auto-generated", "high")
    assert "<script>" in mail.get_body(("plain",)).get_content()
    page = mail.get_body(("html",)).get_content()
    assert "<script>" not in page
    assert "Kern &amp; Söhne" in page


async def test_a_notice_of_planned_work_brings_a_calendar_entry(mail_server):
    server = await mail_server()
    times = datetime(2026, 11, 29, 1, tzinfo=UTC), datetime(2026, 11, 29, 3, tzinfo=UTC)
    event = event_of("w@servmon", 1, *times, "Maintenance: Söhne, Kern", "x\ny", cancelled=True)
    await smtp(server.port).send(message(MessageKind.PLAN_CANCELLED, content={"calendar": event}))
    (mail,) = server.mails
    (part,) = mail.iter_attachments()
    assert (part.get_content_type(), part.get_filename()) == ("text/calendar", "maintenance.ics")
    assert part["Content-Type"].params["method"] == "CANCEL"
    assert part.get_payload(decode=True) == ics(event, "servmon@isp.example", AT)
    assert mail.get_body(("plain",)) is not None


async def test_nobody_is_called_for_planned_work(web_server):
    server = await web_server()
    server.pages["/"] = Page()
    pagerduty = SETTINGS["pagerduty"](url=f"{server.url}/", routing_key="k", allow_networks=("127.0.0.0/8",))
    alertmanager = SETTINGS["alertmanager"](url=f"{server.url}/", allow_networks=("127.0.0.0/8",))
    for section in (pagerduty, alertmanager):
        await open_channel(section).send(message(MessageKind.WINDOW_BEGINS))
        assert server.requests == []


async def test_the_end_of_an_outage_is_not_marked_as_urgent(mail_server):
    server = await mail_server()
    await smtp(server.port).send(message(MessageKind.RECOVERED))
    assert server.mails[0]["Importance"] is None


async def test_a_login_goes_over_starttls_to_a_server_whose_certificate_is_checked(mail_server, ca, tmp_path):
    server = await mail_server(
        tls_context=server_tls(ca, "127.0.0.1"), auth_required=True, auth_require_tls=True,
        authenticator=knows("servmon", "s3cret"),
    )  # fmt: skip
    login = {"tls": "starttls", "username": "servmon", "password": "s3cret"}
    with pytest.raises(ChannelError, match="certificate"):
        await smtp(server.port, **login).send(message())
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    login["ca_file"] = tmp_path / "ca.pem"
    await smtp(server.port, **login).send(message())
    assert len(server.mails) == 1
    with pytest.raises(ChannelError, match="refused the login with 535") as caught:
        await smtp(server.port, **{**login, "password": "wrong-one"}).send(message())
    assert not caught.value.permanent
    assert "wrong-one" not in str(caught.value)


@pytest.mark.parametrize(("reply", "permanent"), [("451 greylisted", False), ("554 no spam here", True)])
async def test_what_the_mail_server_says_decides_whether_it_is_tried_again(mail_server, reply, permanent):
    server = await mail_server()
    server.reply = reply
    with pytest.raises(ChannelError, match=reply) as caught:
        await smtp(server.port).send(message())
    assert caught.value.permanent is permanent


async def test_a_sender_whom_the_mail_server_refuses_is_tried_again_as_somebody_may_mend_that(mail_server):
    server = await mail_server()
    server.to_senders = "550 sender unknown"
    with pytest.raises(ChannelError, match="550 sender unknown") as caught:
        await smtp(server.port).send(message())
    assert not caught.value.permanent


async def test_unknown_recipients_are_named_and_the_others_get_the_mail(mail_server):
    server = await mail_server()
    server.refused = {"a@isp.example"}
    with pytest.raises(
        ChannelError, match=r"refused for a@isp\.example \(550 no such user\); the other recipients have it"
    ):
        await smtp(server.port).send(message())
    assert server.recipients == [["b@isp.example"]]
    server.refused |= {"b@isp.example"}
    with pytest.raises(ChannelError, match="every recipient is refused") as caught:
        await smtp(server.port).send(message())
    assert caught.value.permanent


async def test_a_recipient_who_is_put_off_gets_the_mail_later_and_the_others_once(mail_server):
    server = await mail_server()
    server.refused, server.refusal = {"a@isp.example"}, "450 greylisted"
    channel = smtp(server.port)
    with pytest.raises(ChannelError, match=r"refused for a@isp\.example \(450 greylisted\)") as caught:
        await channel.send(message())
    assert (caught.value.permanent, caught.value.served) == (False, ("b@isp.example",))
    server.refused = set()
    await channel.send(message(served=caught.value.served))
    await channel.send(message(id="0b5e9b0e-0000-4000-8000-000000000003"))
    assert server.recipients == [["b@isp.example"], ["a@isp.example"], ["a@isp.example", "b@isp.example"]]


FIVE = tuple(f"{name}@isp.example" for name in "abcde")


@pytest.fixture
async def hanging(mail_server, monkeypatch):
    """A mail server that has little time for those for whom it says nothing, so a busy machine is none that hangs."""
    server = await mail_server()
    patience = lambda recipient, _: 0.1 if recipient in server.silent_for else DEADLINE_SECONDS  # noqa: E731
    monkeypatch.setattr("servmon.alerts.channels.smtp._patience", patience)
    return server


async def test_a_mail_server_that_hangs_at_one_recipient_sends_it_to_the_others_at_once(hanging):
    hanging.silent_for, hanging.refused = {"b@isp.example"}, {"d@isp.example"}
    with pytest.raises(ChannelError) as caught:
        await smtp(hanging.port, recipients=FIVE).send(message())
    assert "b@isp.example (no answer within 8 s)" in str(caught.value)
    assert "d@isp.example (550 no such user)" in str(caught.value)
    assert not caught.value.permanent
    assert caught.value.served == ("a@isp.example", "c@isp.example", "e@isp.example")
    assert hanging.recipients == [[*caught.value.served]]
    assert hanging.asked_for.count("b@isp.example") == 1


async def test_a_mail_server_that_hangs_at_several_sends_it_to_those_it_took(hanging):
    hanging.silent_for = {"b@isp.example", "d@isp.example"}
    with pytest.raises(ChannelError, match=r"e@isp\.example \(not asked for, since the server hangs\)") as caught:
        await smtp(hanging.port, recipients=FIVE).send(message())
    assert caught.value.served == ("a@isp.example", "c@isp.example")
    assert hanging.recipients == [["a@isp.example", "c@isp.example"]]


async def test_a_mail_server_that_takes_nobody_before_it_hangs_is_a_passing_failure(mail_server, monkeypatch):
    monkeypatch.setattr("servmon.alerts.channels.smtp.RECIPIENT_SECONDS", 0.0)
    server = await mail_server()
    with pytest.raises(
        ChannelError, match=r"127\.0\.0\.1: it does not answer when it is asked for b@isp\.exam"
    ) as caught:
        await smtp(server.port, recipients=FIVE).send(message())
    assert (caught.value.permanent, caught.value.served, server.mails) == (False, (), [])


async def test_who_is_asked_for_alone_has_as_much_time_as_any_message(mail_server, monkeypatch):
    monkeypatch.setattr("servmon.alerts.channels.smtp.RECIPIENT_SECONDS", 0.0)
    server = await mail_server()
    await smtp(server.port).send(message(served=("a@isp.example",)))
    assert server.recipients == [["b@isp.example"]]


async def test_a_mail_server_that_is_not_there_is_one_sentence():
    with pytest.raises(ChannelError, match=r"127\.0\.0\.1: ") as caught:
        await smtp(free_port()).send(message())
    assert not caught.value.permanent


# Webhook


async def test_a_webhook_gets_signed_json(web_server):
    server = await web_server()
    await webhook(server.url + "/", secret="k3y", headers={"X-Team": "noc"}).send(message())
    (request,) = server.requests
    assert (request.method, request.headers["X-Team"]) == ("POST", "noc")
    assert request.headers["Idempotency-Key"] == message().id
    signed = request.headers["Servmon-Timestamp"].encode() + b"." + request.body
    assert request.headers["Servmon-Signature"] == f"sha256={hmac.new(b'k3y', signed, hashlib.sha256).hexdigest()}"
    found = json.loads(request.body)
    assert (found["id"], found["subject"], found["title"]) == (message().id, message().subject, "Kern")


@pytest.mark.parametrize(
    ("status", "headers", "permanent", "retry_after"),
    [
        (500, {}, False, None),
        (503, {"Retry-After": "120"}, False, 120),
        (429, {"Retry-After": "99999"}, False, 3600),
        (429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, False, None),
        (401, {}, False, None),
        (403, {}, False, None),
        (404, {}, True, None),
        (302, {"Location": "http://169.254.169.254/"}, True, None),
    ],
)
async def test_what_the_receiver_answers_decides(web_server, status, headers, permanent, retry_after):
    server = await web_server()
    server.pages["/"] = Page(status, "", headers)
    with pytest.raises(ChannelError, match=f"127.0.0.1 answered {status}") as caught:
        await webhook(server.url + "/").send(message())
    assert (caught.value.permanent, caught.value.retry_after) == (permanent, retry_after)
    assert len(server.requests) == 1  # a redirect is not followed


async def test_an_address_that_is_not_public_is_refused_unless_it_is_named(web_server):
    server = await web_server()
    for url in (server.url, f"http://localhost:{server.port}"):
        with pytest.raises(ChannelError, match="allow_networks"):
            await webhook(url + "/", allow_networks=()).send(message())
    assert server.requests == []


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        *((address, False) for address in (
            "10.0.0.1", "100.64.0.1", "127.0.0.1", "169.254.169.254", "224.0.0.1", "::1", "fe80::1%eth0", "fd00::1",
            "::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "::127.0.0.1",
            "::ffff:0:127.0.0.1", "64:ff9b:1::a9fe:a9fe", "fec0::1", "192.0.0.8", "0.0.0.0", "0177.0.0.1", "/run/x", "",
        )),
    ],
)  # fmt: skip
def test_which_addresses_a_message_may_go_to(address, allowed):
    assert Reach().allows(address) is allowed


async def test_a_receiver_that_cuts_in_the_middle_is_a_passing_failure(tcp_server):
    async def cuts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Le")

    server = await tcp_server(cuts)
    with pytest.raises(ChannelError) as caught:
        await webhook(f"http://127.0.0.1:{server.port}/planted-secret").send(message())
    assert not caught.value.permanent
    assert "planted-secret" not in str(caught.value)


# PagerDuty and Alertmanager


async def test_pagerduty_gets_one_incident_an_alert(web_server):
    server = await web_server()
    channel = open_channel(
        SETTINGS["pagerduty"](url=server.url + "/", routing_key="r0uting", allow_networks=("127.0.0.0/8",))
    )
    await channel.send(message())
    await channel.send(message(MessageKind.RECOVERED))
    trigger, resolve = (json.loads(request.body) for request in server.requests)
    assert (trigger["routing_key"], trigger["event_action"], trigger["dedup_key"]) == (
        "r0uting", "trigger", message().alert_id
    )  # fmt: skip
    assert (trigger["payload"]["severity"], trigger["payload"]["summary"]) == ("critical", message().subject)
    assert resolve == {"routing_key": "r0uting", "event_action": "resolve", "dedup_key": message().alert_id}


async def test_alertmanager_gets_an_alert_that_stands_until_it_is_over(web_server):
    server = await web_server()
    channel = open_channel(SETTINGS["alertmanager"](url=server.url + "/", allow_networks=("127.0.0.0/8",)))
    await channel.send(message())
    await channel.send(message(MessageKind.RECOVERED))
    ((down,), (up,)) = (json.loads(request.body) for request in server.requests)
    assert down["labels"] == up["labels"]
    assert down["labels"]["alert_id"] == message().alert_id
    assert down["endsAt"] == "2026-11-25T04:00:00.000000Z"
    assert up["endsAt"] == "2026-11-24T03:00:00.000000Z"
    assert down["annotations"]["severity"] == "critical"


@pytest.mark.parametrize("kind", ["webhook", "pagerduty", "alertmanager", "apprise"])
async def test_a_trial_goes_through_each_kind_and_does_not_stay(web_server, kind):
    server = await web_server()
    place = {"urls": (f"json://127.0.0.1:{server.port}/",)} if kind == "apprise" else {"url": f"{server.url}/"}
    more = {"routing_key": "k"} if kind == "pagerduty" else {}
    section = SETTINGS[kind](**place, **more, allow_networks=("127.0.0.0/8",))
    await open_channel(section).send(trial("noc", AT))
    request, *then = server.requests
    assert "servmon: a test, nothing is down" in request.body.decode()
    if kind == "alertmanager":
        assert json.loads(request.body)[0]["endsAt"] == "2026-11-24T03:05:00.000000Z"
    if kind == "pagerduty":
        first, last = json.loads(request.body), json.loads(then.pop().body)
        assert (first["event_action"], last["event_action"]) == ("trigger", "resolve")
        assert first["dedup_key"] == last["dedup_key"]
    assert then == []


async def test_an_incident_that_a_trial_leaves_open_is_said(web_server):
    server = await web_server()
    answers = iter([Page(202), Page(503)])
    server.pages = SimpleNamespace(get=lambda *_: next(answers))
    section = SETTINGS["pagerduty"](url=f"{server.url}/", routing_key="k", allow_networks=("127.0.0.0/8",))
    with pytest.raises(ChannelError, match=r"incident is left open: 127\.0\.0\.1 answered 503"):
        await open_channel(section).send(trial("noc", AT))


# Programs


def program(tmp_path, body: str):
    file = tmp_path / "page"
    file.write_text(f"#!{sys.executable}\n{body}", encoding="utf-8")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return open_channel(SETTINGS["exec"](command=(str(file), "-x", "; touch evil")))


async def test_a_program_reads_the_message_and_no_shell_its_arguments(tmp_path):
    out = tmp_path / "out.json"
    channel = program(
        tmp_path, f"import json, sys\njson.dump([sys.argv[1:], json.load(sys.stdin)], open({str(out)!r}, 'w'))\n"
    )
    await channel.send(message())
    arguments, found = json.loads(out.read_text(encoding="utf-8"))
    assert arguments == ["-x", "; touch evil"]
    assert found["subject"] == message().subject


@pytest.mark.parametrize(("status", "permanent"), [(1, False), (75, False), (64, True)])
async def test_its_exit_status_decides_whether_it_is_run_again(tmp_path, status, permanent):
    channel = program(tmp_path, f"import sys\nsys.stderr.write('no modem')\nsys.exit({status})\n")
    with pytest.raises(ChannelError, match=f"ended with exit code {status}: no modem") as caught:
        await channel.send(message())
    assert caught.value.permanent is permanent


async def test_a_program_sees_no_secret_of_servmons_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://servmon:planted@db.example/servmon")
    channel = program(tmp_path, "import os, sys\nsys.stderr.write(str(dict(os.environ)))\nsys.exit(1)\n")
    with pytest.raises(ChannelError, match="PATH") as caught:
        await channel.send(message())
    assert "planted" not in str(caught.value)


async def test_a_program_that_reads_nothing_and_writes_without_end_is_ended_with_its_children(tmp_path, monkeypatch):
    pid = tmp_path / "pid"
    pid.touch()
    channel = program(
        tmp_path,
        "import os, subprocess, sys\n"
        f"child = subprocess.Popen(['sleep', '60'])\nopen({str(pid)!r}, 'w').write(str(child.pid))\n"
        "while True: os.write(2, b'x' * 65536)\n",
    )
    for seconds in (0.5, 5, 25):  # a busy machine may need longer than the first to start it
        monkeypatch.setattr("servmon.alerts.channels.exec.DEADLINE_SECONDS", seconds)
        with pytest.raises(ChannelError, match="did not end within"):
            await channel.send(message(body="x" * 1_000_000))
        if child := pid.read_text(encoding="ascii"):
            break
    await settled(lambda: not is_alive(int(child)))


async def test_a_program_that_is_not_there_is_one_sentence():
    with pytest.raises(ChannelError, match="/not/there cannot be started"):
        await open_channel(SETTINGS["exec"](command=("/not/there",))).send(message())


# Settings


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('kind = "pigeon"', "channels.noc.kind: must be one of smtp, webhook, pagerduty, alertm"),
        ('kind = "smtp"\nhost = "h"\nsender = "x"\nrecipients = []', "channels.noc.sender: must be a mail address"),
        ('kind = "smtp"\nhost = "h"\nsender = "a@b.c"\nrecipients = ["d@e.f"]\nusername = "u"', "go together"),
        (
            'kind = "smtp"\nhost="h"\nsender="a@b.c"\nrecipients=["d@e.f"]\nusername="u"\npassword="p"\ntls="none"',
            "a password is not sent in the clear",
        ),
        ('kind = "webhook"\nurl = "file:///etc/passwd"', "channels.noc.url: must be an http or https URL"),
        ('kind = "webhook"\nurl = "https://u:planted@h.x/"', "channels.noc.url: must not hold a user or password"),
        ('kind = "webhook"\nurl = "https://h.example/"\nsecrte = "x"', "unknown key; was secret meant?"),
        ('kind = "webhook"\nurl = "https://h.example/"\nallow_networks = ["10.0.0.1/8"]', "must be a network such as"),
        ('kind = "exec"\ncommand = []', "channels.noc.command"),
        ('kind = "exec"\ncommand = ["x"]\nfallback = "sms"', 'there is no channel "sms"'),
    ],
)  # fmt: skip
def test_a_wrong_channel_is_one_sentence_with_its_place(tmp_path, text, sentence):
    file = tmp_path / "c.toml"
    file.write_text(f"[alert]\nnotification_channels = []\n[channels.noc]\n{text}\n", encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load(file, {})
    assert any(sentence in line and line.startswith(f"{file}:") for line in caught.value.lines), caught.value.lines
    assert "planted" not in str(caught.value)


def test_a_heartbeat_that_is_no_address_is_one_sentence(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('[alert]\nnotification_channels = []\nheartbeat_url = "planted"\n', encoding="utf-8")
    with pytest.raises(SettingsError, match=r"c.toml:3: alert.heartbeat_url: must be an http or https URL") as caught:
        load(file, {})
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    ("trouble", "path"), [(None, "/ping/abc?tag=x"), ("isolated", "/ping/abc/fail?tag=x")], ids=["well", "unwell"]
)
async def test_a_heartbeat_says_whether_servmon_is_well(web_server, trouble, path):
    watch = await web_server()
    section = AlertSection(heartbeat_url=f"{watch.url}/ping/abc?tag=x", heartbeat_interval=60)
    beating = spawn(beat(lambda: section, lambda: trouble), name="heartbeat")
    await settled(lambda: watch.requests)
    await cancel(beating)
    assert (watch.requests[0].path, watch.requests[0].body) == (path, (trouble or "").encode())


def test_a_secret_of_a_channel_may_stand_in_a_file_or_a_variable(tmp_path):
    file = tmp_path / "c.toml"
    (tmp_path / "hook").write_text("https://hooks.example/abc\n", encoding="utf-8")
    file.write_text(
        "[alert]\nnotification_channels = []\n"
        '[channels.noc]\nkind = "webhook"\nurl_file = "hook"\nsecret_env = "KEY"\n',
        encoding="utf-8",
    )
    channel = load(file, {"KEY": "k"}).settings.channels["noc"]
    assert channel.url.get_secret_value() == "https://hooks.example/abc"
    assert channel.secret.get_secret_value() == "k"
    assert "abc" not in repr(channel)


async def test_a_silent_mail_server_is_given_up(tcp_server, monkeypatch):
    server = await tcp_server(is_silent)
    monkeypatch.setattr("servmon.alerts.channels.smtp.DEADLINE_SECONDS", 0.2)
    with pytest.raises(ChannelError):
        await smtp(server.port).send(message())


WATCHED = '[[endpoints]]\nid = "relay"\nurl = "tcp://Mail.isp.example:25"\n'
BY_MAIL = 'kind = "smtp"\nhost = "mail.isp.example"\nsender = "a@b.c"\nrecipients = ["d@e.f"]\n'


@pytest.mark.parametrize(
    ("alert", "channel", "warned"),
    [
        ("", BY_MAIL, True),
        ("", 'kind = "webhook"\nurl = "https://mail.isp.example/planted"\n', True),
        ("", 'kind = "apprise"\nurls = ["gotify://mail.isp.example/planted12345"]\n', True),
        ("", BY_MAIL + 'fallback = "pager"\n', False),
        ('fallback_channel = "pager"\n', BY_MAIL, False),
        ('fallback_channel = "noc"\n', BY_MAIL, True),
        ("", BY_MAIL.replace("mail.isp", "other.isp"), False),
    ],
)
def test_a_channel_whose_server_is_watched_wants_a_fallback(tmp_path, alert, channel, warned):
    file = tmp_path / "c.toml"
    pager = '[channels.pager]\nkind = "exec"\ncommand = ["x"]\n'
    file.write_text(f"[alert]\nnotification_channels = []\n{alert}[channels.noc]\n{channel}{pager}{WATCHED}", "utf-8")
    warnings = load(file, {}).warnings
    assert bool(warnings) is warned, warnings
    if warned:
        assert "channels.noc: its server is watched here as 'relay', and it has no fallback" in warnings[0]
        assert "planted" not in warnings[0]
