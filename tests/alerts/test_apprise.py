"""The services behind Apprise, stood in for by receivers of ours: its threads, its addresses, its failures."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import sys

import pytest
from pydantic import SecretStr

from servmon.alerts.alert import MessageKind
from servmon.alerts.channels import SETTINGS, open_channel
from servmon.alerts.channels import apprise as ours
from servmon.alerts.channels.base import ChannelError
from servmon.doctor import neighbours
from servmon.doctor.finding import Level
from servmon.settings import SettingsError, load
from servmon.settings.effective import effective, secrets_in
from tests.alerts.test_channels import message
from tests.fix_servers import Page, free_port, is_silent

LOOPBACK = ("127.0.0.0/8",)


def apprise(*urls: str, **fields):
    return open_channel(SETTINGS["apprise"](**{"urls": urls, "allow_networks": LOOPBACK, **fields}))


async def test_apprise_brings_a_message_to_each_url(web_server):
    first, second = await web_server(), await web_server()
    first.pages["/a"] = Page()
    await apprise(f"json://127.0.0.1:{first.port}/a", f"json://127.0.0.1:{second.port}/").send(message())
    (request,) = first.requests
    found = json.loads(request.body)
    assert (request.path, found["title"].replace("\u200b", ""), found["type"]) == ("/a", message().subject, "failure")
    assert found["message"].splitlines()[0] == "Kern & Söhne is down since 03:00."
    assert len(second.requests) == 1


async def test_an_end_is_good_news_there(web_server):
    server = await web_server()
    for kind, said in ((MessageKind.RECOVERED, "success"), (MessageKind.PLANNED, "info")):
        await apprise(f"json://127.0.0.1:{server.port}/").send(message(kind))
        assert json.loads(server.requests[-1].body)["type"] == said


async def test_what_one_receiver_has_it_is_not_sent_again_while_the_other_is_tried(web_server):
    good, bad = await web_server(), await web_server()
    bad.pages["/"] = Page(500, "planted-answer")
    urls = (f"json://127.0.0.1:{good.port}/", f"json://127.0.0.1:{bad.port}/")
    served: tuple[str, ...] = ()
    for _ in range(2):
        with pytest.raises(ChannelError, match=r"^number 2 \(json://\) answered 500$") as caught:
            await apprise(*urls).send(message(served=served))
        assert not caught.value.permanent
        served += caught.value.served
    assert len(served) == 1
    bad.pages["/"] = Page()
    await apprise(*urls).send(message(served=served))
    assert (len(good.requests), len(bad.requests)) == (1, 3)
    await apprise(*urls).send(message())
    assert (len(good.requests), len(bad.requests)) == (2, 4)
    await apprise(f"{urls[1]}?another").send(message(served=served))
    assert len(bad.requests) == 5  # in the place of one that was served stands another one by now
    await apprise(urls[0]).send(message(served=served))
    assert len(good.requests) == 2


async def test_a_receiver_that_hangs_or_is_not_there_is_a_passing_failure(tcp_server):
    server = await tcp_server(is_silent)
    for port in (server.port, free_port()):
        with pytest.raises(ChannelError, match=r"number 1 \(json://\) could not be told") as caught:
            await apprise(f"json://127.0.0.1:{port}/planted?rto=0.2").send(message())
        assert not caught.value.permanent
        assert "planted" not in str(caught.value)


async def test_one_that_ends_never_is_given_up_and_holds_nobody_else_up(tcp_server, web_server, monkeypatch):
    silent, good = await tcp_server(is_silent), await web_server()
    monkeypatch.setattr(ours, "DEADLINE_SECONDS", 0.1)
    monkeypatch.setattr(ours, "MOST_THREADS", 2)
    channel = apprise(f"json://127.0.0.1:{silent.port}/?rto=30")
    for _ in range(2):
        with pytest.raises(ChannelError, match="did not answer within"):
            await channel.send(message())
    with pytest.raises(ChannelError, match="is not tried: 2 earlier tries still hang"):
        await channel.send(message())
    monkeypatch.setattr(ours, "DEADLINE_SECONDS", 10)
    await apprise(f"json://127.0.0.1:{good.port}/").send(message())
    assert len(good.requests) == 1


async def test_an_address_that_is_not_public_is_refused_unless_it_is_named(web_server, mail_server):
    server, mail = await web_server(), await mail_server()
    urls = (
        f"json://127.0.0.1:{server.port}/", f"json://localhost:{server.port}/", f"json://2130706433:{server.port}/",
        f"mailto://127.0.0.1:{mail.port}?from=a@isp.example&to=b@isp.example",
    )  # fmt: skip
    for url in urls:
        with pytest.raises(ChannelError, match=r"was not told: (127\.0\.0\.1|::1) is not a public address; name its"):
            await apprise(url, allow_networks=()).send(message())
    assert (server.requests, mail.mails) == ([], [])


async def test_a_redirect_does_not_lead_where_a_message_may_not_go(web_server):
    first, second = await web_server(), await web_server()
    first.pages["/"] = Page(302, "", {"Location": f"http://127.0.0.2:{second.port}/"})
    with pytest.raises(ChannelError, match=r"127\.0\.0\.2 is not a public address|answered 302"):
        await apprise(f"json://127.0.0.1:{first.port}/?redirect=yes", allow_networks=("127.0.0.1/32",)).send(message())
    assert second.requests == []


async def test_only_the_threads_of_apprise_are_guarded(web_server):
    server = await web_server()
    with pytest.raises(ChannelError):
        await apprise(f"json://127.0.0.1:{server.port}/", allow_networks=()).send(message())
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.close()


async def test_what_is_too_long_for_the_service_is_cut_for_it(web_server):
    server = await web_server()
    given = message(body="line\n" * 20_000)
    await apprise(f"json://127.0.0.1:{server.port}/").send(given)
    (request,) = server.requests
    said = json.loads(request.body)["message"]
    assert "… cut here: " in said
    assert len(said) <= 32_768
    assert apprise("discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js").text_limit == 2000


async def test_chat_markup_of_strangers_rings_for_nobody(web_server):
    server = await web_server()
    evil = "@everyone <!channel> <@U1> @here [bank](https://evil.example) noc@isp.example {{ 7*7 }}"
    await apprise(f"json://127.0.0.1:{server.port}/").send(message(subject=evil, body=evil))
    found = json.loads(server.requests[0].body)
    for said in (found["title"], found["message"]):
        for markup in ("@everyone", "<!", "<@", "@here", "]("):
            assert markup not in said
        assert "noc@isp.example {{ 7*7 }}" in said
        assert said.replace("\u200b", "").strip() == evil


# Its addresses are secrets


def configured(tmp_path, urls: str):
    file = tmp_path / "c.toml"
    file.write_text(
        f'[alert]\nnotification_channels = []\n[channels.chat]\nkind = "apprise"\n{urls}\n', encoding="utf-8"
    )
    return file


@pytest.mark.parametrize(
    ("urls", "sentence"),
    [
        ('urls = ["json://h.example", "nosuch://planted/x"]', "channels.chat.urls: number 2 (nosuch://) is no URL"),
        ('urls = ["planted"]', "channels.chat.urls: number 1 (without a schema) is no URL that Apprise takes"),
        ('urls = ["tgram://planted"]', "channels.chat.urls: number 1 (tgram://) is no URL that Apprise takes"),
        ("urls = []", "channels.chat.urls"),
        ('urls_env = "NOT_SET"', "the environment variable NOT_SET, which urls_env names, is empty or not set"),
        ('urls = ["json://h.example"]\nallow_networks = ["10.0.0.1/8"]', "must be a network such as 10.0.0.0/8"),
    ],
)  # fmt: skip
def test_a_url_that_apprise_does_not_take_is_one_sentence_without_the_url(tmp_path, urls, sentence):
    with pytest.raises(SettingsError) as caught:
        load(configured(tmp_path, urls), {})
    (line,) = caught.value.lines
    assert sentence in line
    assert "planted" not in line


def test_its_urls_may_stand_in_a_file_or_a_variable_and_are_shown_nowhere(tmp_path):
    (tmp_path / "urls").write_text(
        "# the chats\njson://h.example/planted-one?to=a,b\n\njsons://u:planted-pass@h.example/two\n", encoding="utf-8"
    )
    loaded = load(configured(tmp_path, 'urls_file = "urls"'), {})
    urls = loaded.settings.channels["chat"].urls
    assert urls == (
        SecretStr("json://h.example/planted-one?to=a,b"), SecretStr("jsons://u:planted-pass@h.example/two"),
    )  # fmt: skip
    assert "planted" not in repr(loaded)
    assert {one.name: one.value for one in effective(loaded)}["channels.chat.urls"] == '["***", "***"]'
    assert {*secrets_in(loaded.settings)} == {*(url.get_secret_value() for url in urls), "planted-pass"}
    from_variable = load(configured(tmp_path, 'urls_env = "CHATS"'), {"CHATS": '["json://h.example/1"]'})
    assert from_variable.settings.channels["chat"].urls == (SecretStr("json://h.example/1"),)


async def test_the_doctor_looks_up_the_names_in_the_urls_and_no_token(monkeypatch):
    asked: set[str] = set()
    loop = asyncio.get_running_loop()
    look_up = loop.getaddrinfo

    async def recorded(host, *given, **options):
        asked.add(host)
        if host.endswith(".invalid"):  # as a resolver says, where there is one
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return await look_up(host, *given, **options)

    monkeypatch.setattr(loop, "getaddrinfo", recorded, raising=False)
    secret = "tgram://123456789:abcdefg_hijklmnop/12315544/"
    sections = {
        "a": SETTINGS["apprise"](urls=("json://localhost/planted", secret)),
        "b": SETTINGS["apprise"](urls=(secret, "ntfy://planted-topic")),
        "c": SETTINGS["apprise"](urls=(secret, "xml://hooks.invalid/planted")),
        "d": SETTINGS["apprise"](urls=("ntfy://localhost/planted",), allow_networks=("127.0.0.0/8", "::1/128")),
    }
    said = [str(finding) async for finding in neighbours.channels(sections)]
    assert said[0].startswith("error   channel a: number 1 (json://): localhost (")
    assert "is not a public address, so every message is refused" in said[0]
    assert "2 URLs that Apprise takes; none was tried" in said[1]
    assert said[2].startswith("error   channel c: number 2 (xml://): hooks.invalid does not resolve")
    assert "1 URLs that Apprise takes; none was tried" in said[3]
    assert asked == {"localhost", "hooks.invalid"}
    assert not any(word in "".join(said) for word in ("abcdefg", "planted"))


async def test_the_doctor_counts_the_urls_and_shows_none():
    section = SETTINGS["apprise"](urls=("json://1.1.1.1/planted", "json://1.1.1.1/2"))
    (found,) = [finding async for finding in neighbours.channels({"chat": section})]
    assert (found.level, found.subject) == (Level.OK, "channel chat")
    assert str(found).count("planted") == 0
    assert "2 URLs that Apprise takes; none was tried" in str(found)


async def test_its_own_log_does_not_reach_ours(web_server):
    server = await web_server()
    server.pages["/planted"] = Page(500)
    heard: list[logging.LogRecord] = []
    ear = logging.Handler(logging.DEBUG)
    ear.emit = heard.append
    root = logging.getLogger()
    level = root.level
    root.addHandler(ear)
    root.setLevel(logging.DEBUG)
    try:
        with pytest.raises(ChannelError):
            await apprise(f"json://127.0.0.1:{server.port}/planted").send(message())
    finally:
        root.removeHandler(ear)
        root.setLevel(level)
    assert [record for record in heard if record.name == "apprise"] == []


def test_without_such_a_channel_it_is_not_loaded(tmp_path):
    script = (
        "import servmon.daemon, sys, servmon.alerts.channels as c;"
        "c.open_channel(c.SETTINGS['webhook'](url='https://h.example/'));"
        "sys.exit(bool(sys.modules.keys() & {'apprise', 'requests', 'urllib3.connection', 'yaml', 'jinja2'}))"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False).returncode == 0
