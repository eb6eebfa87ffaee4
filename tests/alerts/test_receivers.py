"""Whatever a receiver does for a while, what is owed arrives once it works, in its order, under the same key.

The real outbox with the real channels over real sockets; only the waits between tries are short.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest

from servmon.alerts import outbox as outbox_room
from servmon.alerts.alert import Notification
from servmon.alerts.channels import SETTINGS, open_channel, posting
from servmon.alerts.channels import apprise as apprise_room
from servmon.alerts.channels import smtp as smtp_room
from servmon.alerts.outbox import Outbox
from servmon.alerts.outcomes import Mark
from servmon.clock import now
from servmon.tasks import cancel, spawn
from tests.alerts.test_channels import message
from tests.fix_mail import MailServer, knows
from tests.fix_servers import free_port, server_tls, settled

LOOPBACK = ("127.0.0.0/8",)
NUMBER = 3


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr(outbox_room, "RETRY_SECONDS", (0.02, 0.05))
    for room in (posting, smtp_room, apprise_room):
        monkeypatch.setattr(room, "DEADLINE_SECONDS", 0.3)


class Owed:
    """An outbox with one channel, and some messages in it."""

    def __init__(self, channel, messages: list[Notification] | None = None) -> None:
        self.marks: dict[str, Mark] = {}
        self.troubles: dict[str, str] = {}
        self.outbox = Outbox(
            marked=lambda mark: self.marks.__setitem__(mark.id, mark),
            added=lambda _: None,
            over=lambda _: False,
            troubles=self.troubles,
            dry_run=lambda: False,
        )
        self.outbox.open({"noc": (channel, None)})
        self.messages = messages or [self._message(number) for number in range(NUMBER)]
        self.outbox.put(self.messages)

    def _message(self, number: int) -> Notification:
        return replace(
            message(created_at=now()), id=str(UUID(int=number)), alert_id=str(UUID(int=900 + number)),
            subject=f"DOWN: {number}",
        )  # fmt: skip

    async def arrive(self, works: Callable[[], object]) -> None:
        """See it fail, let it work, and wait until nothing is owed."""
        running = spawn(self.outbox.run(), name="outbox")
        await settled(lambda: any(mark.attempts >= 2 for mark in self.marks.values()))
        assert self.troubles
        assert not any(mark.sent_at for mark in self.marks.values())
        done = works()
        if asyncio.iscoroutine(done):
            await done
        await settled(lambda: self.outbox.waiting == 0)
        await cancel(running)
        assert all(self.marks[one.id].sent_at for one in self.messages)
        assert self.troubles == {}


class Moody:
    """Takes posts on one port, in whatever ``mood`` it is; ``taken`` are the bodies and headers it said 200 to."""

    def __init__(self, mood: str) -> None:
        self.port = free_port()
        self.mood = mood
        self.heard: list[tuple[bytes, bytes]] = []
        self.taken: list[tuple[bytes, bytes]] = []
        self._server: asyncio.Server | None = None
        self._open = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await settled(lambda: self._open == 0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            await self._answer(reader, writer)
        finally:
            writer.close()
            self._open -= 1

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        request = head, await reader.readexactly(int(length.partition(b":")[2]))
        self.heard.append(request)
        answer = {
            "well": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
            "500": b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
            "429": b"HTTP/1.1 429 Slow\r\nRetry-After: 0.05\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
            "cuts": b"HTTP/1.",
            "talks nonsense": b"\x00\xff\x00\xff\r\n\r\n",
            "hangs": None,
        }[self.mood]
        if answer is None:
            await reader.read()  # until the other side gives up
        else:
            if self.mood == "well":
                self.taken.append(request)
            writer.write(answer)


def idempotency_key(head: bytes, _body: bytes) -> str:
    return next(line for line in head.decode().split("\r\n") if line.startswith("Idempotency-Key: ")).split()[1]


KEYS = {
    "webhook": (idempotency_key, lambda one: one.id),
    "pagerduty": (lambda _head, body: json.loads(body)["dedup_key"], lambda one: one.alert_id),
    "alertmanager": (lambda _head, body: json.loads(body)[0]["labels"]["alert_id"], lambda one: one.alert_id),
    "apprise": (lambda _head, body: json.loads(body)["title"], lambda one: one.subject),
}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("mood", ["500", "429", "hangs", "refuses", "cuts", "talks nonsense"])
async def test_over_http(kind, mood):
    receiver = Moody(mood)
    place = {"urls": (f"json://127.0.0.1:{receiver.port}/?rto=0.2",)} if kind == "apprise" else {
        "url": f"http://127.0.0.1:{receiver.port}/"
    }  # fmt: skip
    if kind == "pagerduty":
        place["routing_key"] = "k"
    if mood != "refuses":
        await receiver.start()

    async def works() -> None:
        receiver.mood = "well"
        if mood == "refuses":
            await receiver.start()

    owed = Owed(open_channel(SETTINGS[kind](**place, allow_networks=LOOPBACK)))
    await owed.arrive(works)
    await receiver.stop()
    key_in, key_of = KEYS[kind]
    taken = [key_in(*request) for request in receiver.taken]
    # In order, each at least once; what was heard before bears the same key as what was taken.
    assert list(dict.fromkeys(taken)) == [key_of(one) for one in owed.messages]
    assert {key_in(*request) for request in receiver.heard} == {*taken}


async def cut_greeting(port: int) -> asyncio.Server:
    async def cuts(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.ex")
        writer.close()

    return await asyncio.start_server(cuts, "127.0.0.1", port)


def by_mail(port: int, **fields):
    given = {"host": "127.0.0.1", "port": port, "tls": "none", "sender": "a@isp.example", **fields}
    return open_channel(SETTINGS["smtp"](**{"recipients": ("b@isp.example", "c@isp.example"), **given}))


def arrived(server: MailServer, owed: Owed) -> None:
    found = [mail["Message-ID"] for mail in server.mails]
    assert list(dict.fromkeys(found)) == [f"<{one.id}@isp.example>" for one in owed.messages]


@pytest.mark.parametrize("mood", ["450 greylisted", "hangs", "refuses", "cuts", "all recipients put off"])
async def test_by_mail(mail_server, mood):
    server = await mail_server()
    cutting = None
    if mood == "hangs":
        server.reply = None
    elif mood == "all recipients put off":
        server.refused, server.refusal = {"b@isp.example", "c@isp.example"}, "451 later"
    elif mood.startswith("450"):
        server.reply = mood
    else:
        await server.stop()
    if mood == "cuts":
        cutting = await cut_greeting(server.port)

    async def works() -> None:
        server.reply, server.refused = "250 OK", set()
        if cutting is not None:
            cutting.close()
        if mood in ("refuses", "cuts"):
            await server.start()

    owed = Owed(by_mail(server.port))
    await owed.arrive(works)
    arrived(server, owed)


def got_by(server: MailServer, recipient: str) -> list[str]:
    return [mail["Subject"] for mail, to in zip(server.mails, server.recipients, strict=True) if recipient in to]


async def test_by_mail_one_of_several_put_off_gets_all_and_the_others_each_once(mail_server):
    server = await mail_server()
    server.refused, server.refusal = {"c@isp.example"}, "451 later"
    owed = Owed(by_mail(server.port))
    await owed.arrive(server.refused.clear)
    for recipient in ("b@isp.example", "c@isp.example"):
        assert got_by(server, recipient) == [one.subject for one in owed.messages]


async def test_by_mail_a_server_that_hangs_for_one_holds_up_no_other(mail_server, monkeypatch):
    monkeypatch.setattr("servmon.alerts.channels.smtp._patience", lambda who, _: 0.1 if who[0] == "b" else 30.0)
    server = await mail_server()
    server.silent_for = {"b@isp.example"}
    owed = Owed(by_mail(server.port))
    subjects = [one.subject for one in owed.messages]
    running = spawn(owed.outbox.run(), name="outbox")
    await settled(lambda: got_by(server, "c@isp.example") == subjects)
    # Once with the others, and then on its own.
    assert server.asked_for.count("b@isp.example") <= 2
    assert got_by(server, "b@isp.example") == []
    assert owed.outbox.waiting == NUMBER
    await cancel(running)


async def test_by_mail_who_is_put_off_over_a_restart_holds_up_nobody_in_either_life(mail_server):
    server = await mail_server()
    server.refused, server.refusal = {"c@isp.example"}, "451 later"
    first = Owed(by_mail(server.port))
    subjects = [one.subject for one in first.messages]
    running = spawn(first.outbox.run(), name="outbox")
    await settled(lambda: got_by(server, "b@isp.example") == subjects)
    await settled(lambda: len(first.marks) == NUMBER)
    await cancel(running)
    second = Owed(by_mail(server.port), [replace(one, served=first.marks[one.id].served) for one in first.messages])
    later = replace(first.messages[0], id=str(UUID(int=77)), subject="DOWN: later")
    second.outbox.put([later])
    running = spawn(second.outbox.run(), name="outbox")
    await settled(lambda: got_by(server, "b@isp.example") == [*subjects, "DOWN: later"])
    assert got_by(server, "c@isp.example") == []
    server.refused.clear()
    await settled(lambda: second.outbox.waiting == 0)
    await cancel(running)
    for recipient in ("b@isp.example", "c@isp.example"):
        assert got_by(server, recipient) == [*subjects, "DOWN: later"]


async def test_by_mail_a_certificate_that_is_renewed_and_a_login_that_is_mended(mail_server, ca, tmp_path):
    known = {"user": "servmon", "password": "old-one"}
    server = await mail_server(
        tls_context=server_tls(ca, "127.0.0.1"), auth_required=True, auth_require_tls=True,
        authenticator=lambda *given: knows(**known)(*given),  # noqa: PLW0108 - the password known by then
    )  # fmt: skip
    bundle = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(bundle)
    login = {"tls": "starttls", "username": "servmon", "password": "s3cret", "ca_file": bundle}
    owed = Owed(by_mail(server.port, **login))
    await owed.arrive(lambda: known.update(password="s3cret"))
    arrived(server, owed)
    server.mails.clear()
    strange = tmp_path / "another.pem"
    strange.write_bytes(type(ca)().cert_pem.bytes())
    owed = Owed(by_mail(server.port, **{**login, "ca_file": strange}))
    await owed.arrive(lambda: strange.write_bytes(bundle.read_bytes()))
    arrived(server, owed)
