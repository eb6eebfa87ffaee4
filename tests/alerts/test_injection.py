"""Names, banners and error texts are a stranger's: in every kind of channel they come out as text and do nothing."""

from __future__ import annotations

import asyncio
import json
import stat
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from servmon.alerts.alert import Alert, Member, MessageKind, News, NewsKind
from servmon.alerts.channels import SETTINGS, open_channel
from servmon.alerts.messages import compose
from servmon.model import Endpoint, Outage, Severity

AT = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
ATTACKS = {
    "mail header": "x\r\nBcc: everybody@isp.example\r\n\r\nbody",
    "line feed": "x\nSeverity: CRITICAL\nUP: all is well",
    "dot line": "x\r\n.\r\nMAIL FROM:<evil@isp.example>",
    "html": "<script>alert(1)</script><img src=http://evil.example/x onerror=alert(1)>",
    "attribute": "\" onmouseover='alert(1)' x=\"",
    "markdown": "[click](http://evil.example) ![x](http://evil.example/p.png) # h **b**",
    "chat": "@everyone <!channel> <@U123> @here",
    "argument": "--config=/etc/passwd",
    "shell": "$(touch evil); `touch evil` | touch evil && touch evil",
    "template": "{{ 7*7 }} {% for x in y %} ${7*7} {{ ''.__class__ }} %(x)s {0}",
    "terminal": "\x1b[2J\x1b]0;owned\x07\x08\x08",
    "unicode": "\u202egnp.exe \u2028next\u2029para \x00nul \x85nel",
    "json": '", "severity": "WARNING", "x": "',
}


def hostile(text: str):
    """A message all of whose parts that a stranger has a say in are ``text``."""
    endpoint = Endpoint(
        id="edge-1", name=text, url="tcp://h.example:1", protocol="TCP", site=text, tags=(text,),
        options={"owner": text, "contact": text, "circuit_id": text, "runbook_url": text},
    )  # fmt: skip
    outage = Outage("00000000-0000-4000-8000-000000000009", endpoint.id, Severity.MAJOR, text, AT, AT)
    news = News("n", NewsKind.DOWN, AT, Severity.MAJOR, text, endpoint, outage)
    member = Member(outage.id, endpoint.id, text, AT, text, takes_down=(text,))
    alert = Alert(
        "00000000-0000-4000-8000-000000000002", "service_down", text, Severity.MAJOR, AT, AT, ("noc",),
        {outage.id: member},
    )  # fmt: skip
    return compose("00000000-0000-4000-8000-000000000001", "noc", alert, MessageKind.DOWN, AT, [news])


def lines_of(text: str) -> list[str]:
    return text.replace("\r\n", "\n").split("\n")


def is_tame(text: str) -> bool:
    """Without control characters, and nothing that a terminal or a reader of lines could be moved by."""
    return all(char.isprintable() or char in "\n\r\t" for char in text)


attacked = pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS.keys())


def test_our_own_words_have_as_many_lines_whatever_a_stranger_writes():
    shapes = {len(lines_of(hostile(text).body)) for text in ATTACKS.values()}
    assert shapes == {len(lines_of(hostile("plain").body))}
    for text in ATTACKS.values():
        assert is_tame(hostile(text).body), text
        assert "\n" not in hostile(text).subject


WORDS = {
    "ours": {},
    "a template": {
        "subject": "{{ title }} {{ outage.name }}",
        "text": "{{ outage.name }} {{ endpoint.site }} {{ endpoint.tags|join }} {{ outage.description }}",
        "html": "<p title=\"{{ outage.name }}\">{{ outage.description }}</p><a href='{{ endpoint.runbook_url }}'>x</a>",
    },
}
worded = pytest.mark.parametrize("words", WORDS.values(), ids=WORDS.keys())


@attacked
@worded
async def test_in_mails(mail_server, text, words):
    server = await mail_server()
    section = SETTINGS["smtp"](
        host="127.0.0.1", port=server.port, tls="none", sender="a@isp.example", recipients=("b@isp.example",), **words
    )
    await open_channel(section).send(hostile(text))
    (mail,) = server.mails
    assert server.recipients == [["b@isp.example"]]
    allowed = {
        "From", "To", "Subject", "Date", "Message-ID", "References", "Auto-Submitted", "X-Servmon-Alert", "X-Peer",
        "MIME-Version", "Content-Type",
    }  # fmt: skip
    assert {*mail.keys()} <= allowed
    assert len(mail["Subject"].splitlines()) == 1
    plain = mail.get_body(("plain",)).get_content()
    page = mail.get_body(("html",)).get_content()
    assert is_tame(plain)
    assert is_tame(page)
    assert len(lines_of(plain)) == len(lines_of(hostile("plain").body)) if not words else len(lines_of(plain)) == 2
    tags = page.replace("<!doctype html>", "")
    assert "<script" not in tags
    assert "<img" not in tags
    assert "onmouseover='" not in tags
    assert "49" not in plain.replace(text, "")


@attacked
@pytest.mark.parametrize("kind", ["webhook", "pagerduty", "alertmanager", "apprise"])
async def test_in_what_is_posted(web_server, text, kind):
    server = await web_server()
    own = {
        "webhook": {"url": f"{server.url}/"},
        "pagerduty": {"url": f"{server.url}/", "routing_key": "k"},
        "alertmanager": {"url": f"{server.url}/"},
        "apprise": {"urls": (f"json://127.0.0.1:{server.port}/",)},
    }[kind]
    given = hostile(text)
    await open_channel(SETTINGS[kind](**own, allow_networks=("127.0.0.0/8",))).send(given)
    (request,) = server.requests
    found = json.loads(request.body)
    assert not any("evil" in f"{name}{value}" for name, value in request.headers.items())
    if kind == "webhook":
        assert (found["subject"], found["severity"], found["text"]) == (given.subject, "MAJOR", given.body)
    elif kind == "pagerduty":
        assert (found["payload"]["summary"], found["payload"]["severity"]) == (given.subject, "error")
        assert found["event_action"] == "trigger"
    elif kind == "alertmanager":
        (alert,) = found
        assert (alert["annotations"]["severity"], alert["annotations"]["summary"]) == ("major", given.subject)
        assert {*alert["labels"]} == {"alertname", "service", "alert_id"}
    else:
        said = found["title"] + found["message"]
        assert [markup for markup in ("@everyone", "@here", "<!", "<@", "](") if markup in said] == []
        assert is_tame(said.replace("\u200b", ""))
        assert found["type"] == "failure"


@attacked
async def test_in_a_program(tmp_path, text):
    out, program = tmp_path / "out.json", tmp_path / "page"
    program.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        f"json.dump([sys.argv[1:], sorted(os.environ), json.load(sys.stdin)], open({str(out)!r}, 'w'))\n",
        encoding="utf-8",
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    given = hostile(text)
    await open_channel(SETTINGS["exec"](command=(str(program), "noc"))).send(given)
    arguments, environment, found = json.loads(await asyncio.to_thread(out.read_text, encoding="utf-8"))
    assert arguments == ["noc"]
    assert {*environment} <= {"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "HOME"}
    assert (found["subject"], found["severity"]) == (given.subject, "MAJOR")
    assert not (tmp_path / "evil").exists()


@attacked
async def test_a_receiver_that_answers_with_it_puts_no_line_into_ours(mail_server, text):
    """What a mail server says ends in our log and in the message for the fallback."""
    server = await mail_server()
    server.reply = "554 " + "".join(char for char in text if char.isprintable())
    section = SETTINGS["smtp"](
        host="127.0.0.1", port=server.port, tls="none", sender="a@isp.example", recipients=("b@isp.example",)
    )
    with pytest.raises(Exception, match="554") as caught:
        await open_channel(section).send(replace(hostile(text)))
    assert len(str(caught.value).splitlines()) == 1
