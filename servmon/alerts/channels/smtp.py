"""``kind = "smtp"``: mail, as text and as HTML."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from email.message import EmailMessage
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import aiosmtplib
from pydantic import AfterValidator, Field, SecretStr, model_validator

from servmon.alerts.alert import Notification
from servmon.alerts.channels.base import DEADLINE_SECONDS, Channel, ChannelError
from servmon.alerts.channels.mail import mail_of
from servmon.alerts.settings import ChannelSection

_PORTS = {"starttls": 587, "tls": 465, "none": 25}
# RFC 5321: replies of 4yz may pass, those of 5yz do not.
_PERMANENT = 500
# A server that takes longer over one of several recipients is asked for the others without that one. The one who then
# is behind is asked for alone, with as much time as any message has.
RECIPIENT_SECONDS = 8.0
# Where it hangs at a second one, only those whom it took by then are sent the mail; more is not tried.
MOST_HANGING = 2


def _checked_address(value: str) -> str:
    local, at, domain = value.rpartition("@")
    if not (local and at and domain) or not value.isprintable() or any(char in value for char in " ,;<>"):
        raise ValueError(f"must be a mail address such as noc@isp.example, not {value!r}")
    return value


Address = Annotated[str, AfterValidator(_checked_address)]


class SmtpSection(ChannelSection):
    """A mail server and who gets the mail. Without ``port`` the usual one of ``tls`` is used."""

    kind: Literal["smtp"] = "smtp"
    host: str = Field(min_length=1)
    port: int | None = Field(None, ge=1, le=65_535)
    sender: Address
    recipients: tuple[Address, ...] = Field(min_length=1)
    tls: Literal["starttls", "tls", "none"] = "starttls"
    tls_verify: bool = True
    ca_file: Path | None = None
    username: str | None = None
    password: SecretStr | None = None

    shows_html: ClassVar[bool] = True

    @property
    def servers(self) -> frozenset[str]:
        """The mail server."""
        return frozenset({self.host})

    @model_validator(mode="after")
    def _fits(self) -> SmtpSection:
        if (self.username is None) is not (self.password is None):
            raise ValueError("username and password go together")
        if self.password is not None and self.tls == "none":
            raise ValueError('a password is not sent in the clear: set tls to "starttls" or "tls"')
        return self


class _Refusal(NamedTuple):
    """Why a recipient is not taken."""

    said: str
    is_permanent: bool = False


class _HangsError(TimeoutError):
    """The server does not answer for a ``recipient``; ``taken`` are those whom it took before."""

    def __init__(self, recipient: str, taken: Sequence[str]) -> None:
        super().__init__(f"it does not answer when it is asked for {recipient}")
        self.recipient = recipient
        self.taken = taken


class _Client(aiosmtplib.SMTP):
    """A conversation that one recipient among several does not hold up: it ends there, before anything is sent."""

    _taken: tuple[str, ...] = ()
    is_for_several = False

    async def rcpt(self, recipient: str, /, **options: Any) -> aiosmtplib.SMTPResponse:
        """Ask the server to take mail for ``recipient``. Raises ``_HangsError`` and the library's errors."""
        try:
            said = await super().rcpt(recipient, **{**options, "timeout": _patience(recipient, self.is_for_several)})
        except aiosmtplib.SMTPReadTimeoutError:
            raise _HangsError(recipient, self._taken) from None
        self._taken += (recipient,)
        return said


def _patience(_recipient: str, is_one_of_several: bool) -> float:
    """For so many seconds the server may think about a recipient."""
    return RECIPIENT_SECONDS if is_one_of_several else DEADLINE_SECONDS


class Smtp(Channel):
    """Sends each message as one mail to all recipients; mails on one alert stand in one thread."""

    kind = "smtp"
    settings_class = SmtpSection

    def __init__(self, settings: SmtpSection) -> None:
        self._settings = settings

    @property
    def receivers(self) -> tuple[str, ...]:
        """The recipients' addresses."""
        return self._settings.recipients

    async def send(self, notification: Notification) -> None:
        """Hand the mail to the server, for those who have not got it. Raises ``ChannelError``."""
        owed = [recipient for recipient in self._settings.recipients if recipient not in notification.served]
        if not owed:
            return
        try:
            mail = mail_of(notification, self._settings.sender, self._settings.recipients)
            refused = await self._hand_over(mail, owed)
        except aiosmtplib.SMTPAuthenticationError as error:
            # May pass: somebody is changing the password.
            raise ChannelError(f"{self._settings.host} refused the login with {error.code}") from None
        except aiosmtplib.SMTPResponseException as error:
            # What it says of this mail stands; what it says of us, our sender included, somebody may be mending.
            permanent = isinstance(error, aiosmtplib.SMTPDataError) and error.code >= _PERMANENT
            said = f"{self._settings.host} answered {error.code} {error.message}"
            raise ChannelError(said, permanent=permanent) from None
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise ChannelError(f"{self._settings.host}: {error}") from None
        if refused:
            raise ChannelError(
                _told(refused, owed, self._settings.recipients),
                permanent=all(one.is_permanent for one in refused.values()),
                # To send again would send it to them twice.
                served=[recipient for recipient in owed if recipient not in refused],
            )

    async def _hand_over(self, mail: EmailMessage, asked: Sequence[str], hung: int = 0) -> Mapping[str, _Refusal]:
        """Those who are not taken, and why. Where the server hangs at one, it is asked once more for the others."""
        try:
            return await self._converse(mail, asked)
        except _HangsError as error:
            others = [one for one in asked if one != error.recipient]
            sure = others if hung == 0 else error.taken
            if not sure or hung == MOST_HANGING:
                raise
            refused = await self._hand_over(mail, sure, hung + 1)
            untold = {one: _Refusal("not asked for, since the server hangs") for one in others if one not in sure}
            return {**refused, **untold, error.recipient: _Refusal(f"no answer within {RECIPIENT_SECONDS:g} s")}

    async def _converse(self, mail: EmailMessage, recipients: Sequence[str]) -> Mapping[str, _Refusal]:
        """Those whom the server refuses, and what it says."""
        settings = self._settings
        secret = settings.password
        client = _Client(
            hostname=settings.host,
            port=settings.port or _PORTS[settings.tls],
            use_tls=settings.tls == "tls",
            start_tls=settings.tls == "starttls",
            validate_certs=settings.tls_verify,
            cert_bundle=str(settings.ca_file) if settings.ca_file else None,
            username=settings.username,
            password=secret.get_secret_value() if secret else None,
            timeout=DEADLINE_SECONDS,
        )
        try:
            async with client:
                client.is_for_several = len(recipients) > 1
                refused, _ = await client.send_message(mail, recipients=recipients)
        except aiosmtplib.SMTPRecipientsRefused as error:
            refused = {one.recipient: aiosmtplib.SMTPResponse(one.code, one.message) for one in error.recipients}
        return {who: _Refusal(f"{said.code} {said.message}", said.code >= _PERMANENT) for who, said in refused.items()}


def _told(refused: Mapping[str, _Refusal], owed: Collection[str], everybody: Collection[str]) -> str:
    who = ", ".join(f"{recipient} ({one.said})" for recipient, one in refused.items())
    if refused.keys() >= {*everybody}:
        return f"every recipient is refused: {who}"
    return f"refused for {who}" + ("; the other recipients have it" if refused.keys() < {*owed} else "")
