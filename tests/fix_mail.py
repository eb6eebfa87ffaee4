"""A real mail server that keeps what it gets, and can refuse, hang or go away."""

from __future__ import annotations

import asyncio
import email
import email.policy
import ssl
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from tests.fix_servers import free_port


class MailServer:
    """Takes mail on 127.0.0.1. ``reply`` is what it says to a mail: 250 takes it; ``None`` says nothing at all."""

    def __init__(self, **options: Any) -> None:
        self.port = free_port()
        self.mails: list[EmailMessage] = []
        self.recipients: list[list[str]] = []
        self.asked_for: list[str] = []
        self.reply: str | None = "250 OK"
        self.refused: set[str] = set()
        self.refusal = "550 no such user"
        self.to_senders = "250 OK"
        # For these it answers nothing at all.
        self.silent_for: set[str] = set()
        self._options = options
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        make = lambda: SMTP(self, hostname="mail.example", enable_SMTPUTF8=True, **self._options)  # noqa: E731
        self._server = await loop.create_server(make, "127.0.0.1", self.port)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    @property
    def subjects(self) -> list[str]:
        return [mail["Subject"] for mail in self.mails]

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return self.to_senders

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        self.asked_for.append(address)
        if address in self.silent_for:
            await asyncio.Event().wait()
        if address in self.refused:
            return self.refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - its name
        if self.reply is None:
            await asyncio.Event().wait()
        if self.reply.startswith("250"):
            self.mails.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
            self.recipients.append(envelope.rcpt_tos)
        return self.reply


def knows(user: str, password: str) -> Callable[..., AuthResult]:
    """An authenticator that takes one login."""

    def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, login: Any) -> AuthResult:
        fits = (login.login, login.password) == (user.encode(), password.encode())
        return AuthResult(success=fits, handled=False)  # the server says so itself

    return authenticate


@pytest.fixture
async def mail_server():
    """Starts mail servers: ``await mail_server()``, with ``tls_context=...`` for STARTTLS."""
    started: list[MailServer] = []

    async def start(*, tls_context: ssl.SSLContext | None = None, **options: Any) -> MailServer:
        if tls_context is not None:
            options["tls_context"] = tls_context
        server = MailServer(**options)
        await server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        await server.stop()
