"""``servmon config init``: a first configuration from a few answers, or new answers in one that is there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tomlkit
import typer

from servmon import checking
from servmon.errors import InvalidInputError
from servmon.settings.writing import put

NOBODY, SMTP, WEBHOOK = "nobody", "smtp", "webhook"
_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass
class Draft:
    """What the answers make: the file, and secrets that stand in files of their own beside it."""

    document: tomlkit.TOMLDocument
    secrets: dict[str, str] = field(default_factory=dict)

    def known(self, section: str, key: str, default: str = "") -> str:
        """What the file says so far, as text."""
        table: Any = self.document
        for name in section.split("."):
            table = table.get(name, {})
        value = table.get(key, default)
        return ", ".join(value) if isinstance(value, list) else str(value)

    def put_secret(self, section: str, key: str, file: str, secret: str) -> None:
        """Let ``key`` stand in a file of its own."""
        self.secrets[file] = secret
        put(self.document, section, f"{key}_file", file)
        table: Any = self.document
        for name in section.split("."):
            table = table[name]
        table.pop(key, None)


def ask(draft: Draft) -> None:
    """Ask everything, and write the answers into ``draft``."""
    _ask_database(draft)
    _ask_channel(draft)
    _ask_endpoints(draft)


def _ask_database(draft: Draft) -> None:
    if draft.known("database", "url") or draft.known("database", "url_file"):
        return
    url = _asked("PostgreSQL 14 or newer, as postgresql://user:password@host/name (nothing: a private one)", _database)
    if not url:
        return
    if urlsplit(url).password:
        draft.put_secret("database", "url", "database_url", url)
    else:
        put(draft.document, "database", "url", url)


def _database(text: str) -> str:
    if text and urlsplit(text).scheme not in ("postgres", "postgresql"):
        raise ValueError("it begins with postgresql://")
    return text


def _ask_channel(draft: Draft) -> None:
    kind = _asked(f"Who is told of outages: {NOBODY}, {SMTP} or {WEBHOOK}", _kind, NOBODY)
    if kind == NOBODY:
        if not draft.known("alert", "notification_channels"):
            put(draft.document, "alert", "notification_channels", [])
        return
    name = "email" if kind == SMTP else "hook"
    section = f"channels.{name}"
    put(draft.document, section, "kind", kind)
    if kind == SMTP:
        _ask_mail(draft, section)
    else:
        draft.put_secret(section, "url", "hook_url", _asked("  Its URL", _needed))
    told = [one.strip() for one in draft.known("alert", "notification_channels").split(",") if one.strip()]
    put(draft.document, "alert", "notification_channels", [*dict.fromkeys([*told, name])])


def _ask_mail(draft: Draft, section: str) -> None:
    put(draft.document, section, "host", _asked("  The mail server", _needed, draft.known(section, "host")))
    put(draft.document, section, "sender", _asked("  The sender's address", _needed, draft.known(section, "sender")))
    recipients = _asked("  The recipients' addresses, by commas", _needed, draft.known(section, "recipients"))
    put(draft.document, section, "recipients", [one.strip() for one in recipients.split(",") if one.strip()])
    user = _asked("  The user name there (nothing: none)", str, draft.known(section, "username"))
    if user:
        put(draft.document, section, "username", user)
        password = typer.prompt("  The password", hide_input=True, err=True)
        draft.put_secret(section, "password", "mail_password", password)


def _ask_endpoints(draft: Draft) -> None:
    tables = draft.document.setdefault("endpoints", tomlkit.aot())
    taken = {str(table.get("id")) for table in tables}
    while url := _asked("What is watched? A URL, host:port or icmp://host (nothing: that is all)", _target):
        table = tomlkit.table()
        table["id"] = _free_id(url, taken)
        table["url"] = url
        tables.append(table)
        typer.echo(f"  watched as {table['id']}", err=True)
    if not tables:
        del draft.document["endpoints"]


def _target(text: str) -> str:
    if text:
        try:
            checking.endpoint_of(text, None, [])
        except InvalidInputError as error:
            raise ValueError("; ".join(problem.message for problem in error.problems)) from None
    return text


def _free_id(url: str, taken: set[str]) -> str:
    """An id from the target's own words, another one than those that are taken."""
    place = url.partition("://")[2] or url
    word = _NOT_IN_AN_ID.sub("-", place).strip("-._")[:100] or "endpoint"
    candidates: Iterator[str] = (word if number == 1 else f"{word}-{number}" for number in range(1, len(taken) + 2))
    free = next(one for one in candidates if one not in taken)
    taken.add(free)
    return free


def _kind(text: str) -> str:
    if text not in (NOBODY, SMTP, WEBHOOK):
        raise ValueError(f"one of {NOBODY}, {SMTP}, {WEBHOOK}")
    return text


def _needed(text: str) -> str:
    if not text:
        raise ValueError("something is needed here")
    return text


def _asked(question: str, check: Callable[[str], str], default: str = "") -> str:
    """The answer, once it is one that ``check`` lets through; it says what is wrong with another."""
    while True:
        answer = typer.prompt(question, default=default, show_default=bool(default), err=True).strip()
        try:
            return check(answer)
        except ValueError as error:
            typer.echo(f"  {error}", err=True)


def hints(path: Path, secrets: dict[str, str]) -> Iterator[str]:
    """What to do next."""
    for name in secrets:
        yield f"wrote {path.parent / name}, which only you can read"
    if secrets:
        yield "under systemd the service cannot read them itself; add to the unit (systemctl edit servmon):"
        yield "  [Service]"
        yield from (f"  LoadCredential={name}:{(path.parent / name).absolute()}" for name in secrets)
    yield f"next: servmon run --config {path}"
