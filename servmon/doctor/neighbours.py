"""What servmon needs from others: witnesses, Postgres, Elasticsearch, and the ways out."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from servmon.alerts.channels.apprise import AppriseSection
from servmon.alerts.channels.reach import Reach, refusal
from servmon.alerts.settings import ChannelSection
from servmon.checks.witnesses import Asker, system_witnesses
from servmon.detection.settings import AUTO
from servmon.doctor.finding import Finding, Level
from servmon.elastic.settings import ElasticsearchSection
from servmon.errors import ServmonError
from servmon.probes.network import Network
from servmon.settings import Settings
from servmon.store import pooler
from servmon.store.pool import place_of, rights

PATIENCE_SECONDS = 3.0
OLDEST_POSTGRES = 14
OLDEST_ELASTICSEARCH = 8
_MAIL_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_WEB_PORTS = {"http": 80, "https": 443}


async def witnesses(named: Sequence[str]) -> AsyncIterator[Finding]:
    """Whether the addresses answer that show whether this machine is connected."""
    if not named:
        sentence = "none: while this machine itself is cut off, everything looks like an outage"
        yield Finding(
            Level.WARNING, "witnesses", sentence, 'set [outage] witnesses = "auto", or name some that are near'
        )
        return
    addresses = [*dict.fromkeys(one for name in named for one in (system_witnesses() if name == AUTO else [name]))]
    if not addresses:
        sentence = "neither a default gateway nor a resolver is known here, so isolation is not noticed"
        yield Finding(Level.WARNING, "witnesses", sentence, "name some in [outage] witnesses")
        return
    async with Network() as network:
        asker = Asker(network)
        heard = await asyncio.gather(*map(asker, addresses))
    silent = [address for address, answers in zip(addresses, heard, strict=True) if not answers]
    if len(silent) == len(addresses):
        sentence = f"none of {', '.join(addresses)} answers: one that never answered does not count"
        yield Finding(Level.WARNING, "witnesses", sentence, "name some in [outage] witnesses that answer pings")
    else:
        answering = ", ".join(address for address in addresses if address not in silent)
        rest = f"; silent: {', '.join(silent)}" if silent else ""
        yield Finding(Level.OK, "witnesses", f"{answering} answer{'' if ',' in answering else 's'}{rest}")


async def postgres(settings: Settings) -> Finding:
    """Whether the database is there, new enough, and lets servmon work."""
    if settings.database.url is None:
        return Finding(Level.OK, "Postgres", f"a private one in {settings.servmon.data_dir}")
    dsn, listen_url = settings.database.url.get_secret_value(), settings.database.listen_url
    try:
        version, may_create = await rights(dsn)
        pooled = await pooler.is_between(listen_url.get_secret_value() if listen_url else dsn)
    except ServmonError as error:
        return Finding(Level.ERROR, "Postgres", str(error), "servmon cannot store anything without its database")
    where = place_of(dsn)
    if version < OLDEST_POSTGRES:
        remedy = f"{OLDEST_POSTGRES} or newer is needed"
        return Finding(Level.ERROR, "Postgres", f"{where} is version {version}", remedy)
    if not may_create:
        remedy = "grant create on its schema to this user, or the tables cannot be made"
        return Finding(Level.ERROR, "Postgres", f"this user may not create tables in {where}", remedy)
    if pooled:
        return Finding(Level.WARNING, "Postgres", pooler.TROUBLE, pooler.REMEDY)
    return Finding(Level.OK, "Postgres", f"{where}, version {version}")


async def elasticsearch(host: str, section: ElasticsearchSection) -> Finding:
    """Whether a node of the cluster lets us in, and is new enough."""
    parts = urlsplit(host)
    place = f"{parts.hostname}:{parts.port or _WEB_PORTS[parts.scheme]}"
    headers = {"Authorization": f"ApiKey {section.api_key.get_secret_value()}"} if section.api_key else {}
    remedy = "servmon works without it and catches up later"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS), headers=headers) as session,
            session.get(host, allow_redirects=False) as answer,
        ):
            status, said = answer.status, await answer.json(content_type=None) if answer.ok else {}
    except (aiohttp.ClientError, OSError, ValueError) as error:
        why = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        return Finding(Level.WARNING, "Elasticsearch", f"{place}: {why}", remedy)
    if status in (401, 403):
        return Finding(Level.WARNING, "Elasticsearch", f"{place} does not accept us", "set [elasticsearch] api_key")
    version = _version(said)
    if version is None:
        return Finding(Level.WARNING, "Elasticsearch", f"{place} answers {status}, not as Elasticsearch does", remedy)
    if int(version.split(".")[0]) < OLDEST_ELASTICSEARCH:
        sentence = f"{place} is version {version}"
        return Finding(Level.WARNING, "Elasticsearch", sentence, f"{OLDEST_ELASTICSEARCH} or newer is needed")
    return Finding(Level.OK, "Elasticsearch", f"{place}, version {version}")


def _version(said: Any) -> str | None:
    version = said.get("version") if isinstance(said, dict) else None
    number = str(version.get("number", "")) if isinstance(version, dict) else ""
    return number if number.split(".")[0].isdecimal() else None


async def channels(sections: Mapping[str, ChannelSection]) -> AsyncIterator[Finding]:
    """Whether each way out can be reached; nothing is sent."""
    if not sections:
        yield Finding(Level.WARNING, "channels", "none: nobody is told of outages", "add a table [channels.NAME]")
    for name, section in sorted(sections.items()):
        subject = f"channel {name}"
        if isinstance(section, AppriseSection):
            yield await _apprise(name, section)
            continue
        if (why := await _refused(section) or await _unreachable(section)) is None:
            yield Finding(
                Level.OK, subject, "can be reached", f"servmon channels test {name} sends a message through it"
            )
        else:
            yield Finding(Level.ERROR, subject, why, "nobody is told through it until then")


async def _apprise(name: str, section: AppriseSection) -> Finding:
    """Where the names in the URLs lead; most have none but the service's own, and what they are is secret."""
    places = [*section.places()]
    found = await asyncio.gather(*(_addresses(server) for _, server in places))
    wrong: list[str] = []
    for (place, server), addresses in zip(places, found, strict=True):
        refused = (
            [f"{server} does not resolve"]
            if not addresses
            else refusal(server, addresses, Reach(section.allow_networks))
        )
        wrong += [f"{place}: {why}" for why in refused]
    if wrong:
        return Finding(Level.ERROR, f"channel {name}", "; ".join(wrong), "nobody is told through these until then")
    sentence = f"{len(section.urls)} URLs that Apprise takes; none was tried"
    return Finding(Level.OK, f"channel {name}", sentence, f"servmon channels test {name} sends a message to each")


async def _refused(section: ChannelSection) -> str | None:
    """Why servmon sends nothing to the channel's server, which has no address that it may: where its name leads now."""
    host, _ = _server(section)
    networks = getattr(section, "allow_networks", None)
    if host is None or networks is None:
        return None
    # Where it leads nowhere the try to reach it will say so.
    return next(refusal(host, await _addresses(host), Reach(networks)), None)


async def _addresses(host: str) -> list[str]:
    """The addresses that a name has now; none where nobody tells in time."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(address[0]) for *_, address in found]


async def _unreachable(section: ChannelSection) -> str | None:
    """Why nothing gets to the channel's program or server, if nothing does."""
    if command := getattr(section, "command", None):
        found = shutil.which(command[0])
        return None if found and os.access(found, os.X_OK) else f"{command[0]} is no program that can be run"
    host, port = _server(section)
    if host is None:
        return None
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return f"{host}:{port} does not answer within {PATIENCE_SECONDS:g} s"
    except OSError as error:
        return f"{host}:{port}: {error.strerror or error}"
    writer.close()
    return None


def _server(section: ChannelSection) -> tuple[str | None, int]:
    """Whom the channel speaks to; the rest of an address may be a secret."""
    if (url := getattr(section, "url", None)) is not None:
        parts = urlsplit(url.get_secret_value())
        return parts.hostname, parts.port or _WEB_PORTS.get(parts.scheme, 443)
    return getattr(section, "host", None), getattr(section, "port", None) or _MAIL_PORTS[
        getattr(section, "tls", "none")
    ]
