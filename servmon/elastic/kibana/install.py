"""Puts the dashboard and the rules into a Kibana: looks first, writes then, and may be done again at any time.

What is there already is brought up to date. A person's own are the actions of a rule, whether it is enabled, and what
Kibana lets them set beside; these stay.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import aiohttp

from servmon.elastic.kibana.actions import Connector, with_actions
from servmon.elastic.kibana.client import PRIVILEGES, Kibana, KibanaError, quoted, refused
from servmon.elastic.kibana.dashboard import DASHBOARD, FILE
from servmon.elastic.kibana.rules import CONSUMER, RULE_TYPE, Rule
from servmon.elastic.kibana.saved_objects import OLDEST_KIBANA, SavedObject, as_ndjson

Say = Callable[[str], None]
_KINDS = {"index-pattern": "data view", "lens": "visualisation", "dashboard": "dashboard"}
# Set by people in Kibana beside what is ours; left out of an update they would be lost.
_KEPT = ("alert_delay", "flapping", "notify_when", "throttle")


async def look(kibana: Kibana) -> str:
    """Whether everything can be installed; returns Kibana's version. Raises ``KibanaError`` with what is in the way."""
    version = await _version(kibana)
    await _space(kibana)
    await _alerting(kibana)
    await _rights(kibana)
    return version


async def _version(kibana: Kibana) -> str:
    found = await kibana.get("/api/status", "its status", dict)
    number = found["version"].get("number") if isinstance(found.get("version"), Mapping) else None
    if number is None:
        raise KibanaError(
            f"{kibana.url}: the answer tells no version; is this Kibana, and may this key or user see its status?"
        )
    parts = re.match(r"(\d+)\.(\d+)", str(number))
    if parts is None or (int(parts[1]), int(parts[2])) < OLDEST_KIBANA:
        oldest = ".".join(map(str, OLDEST_KIBANA))
        raise KibanaError(f"{kibana.url}: this is Kibana {quoted(number)}; the dashboard needs {oldest} or newer")
    return quoted(number)


async def _space(kibana: Kibana) -> None:
    if kibana.space == "default":
        return
    answer = await kibana.ask("GET", f"/api/spaces/space/{quote(kibana.space)}")
    if answer.status == 404:
        raise KibanaError(f"there is no space {kibana.space!r} in this Kibana, or this key or user may not see it")
    if not answer.ok:
        raise refused(f"space {kibana.space}", answer)


async def _alerting(kibana: Kibana) -> None:
    health = await kibana.get("/api/alerting/_health", "alerting", dict)
    if not health.get("has_permanent_encryption_key", True):
        raise KibanaError(
            "alerting: this Kibana has no encryption key, without which it keeps no rules; set"
            " xpack.encryptedSavedObjects.encryptionKey in kibana.yml and restart it"
        )
    if not health.get("is_sufficiently_secure", True):
        raise KibanaError(
            "alerting: rules need API keys, which Elasticsearch gives only over TLS; set"
            " xpack.security.http.ssl.enabled in elasticsearch.yml"
        )


async def _rights(kibana: Kibana) -> None:
    types = await kibana.get("/api/alerting/rule_types", "rule types", list)
    found = next((one for one in types if one.get("id") == RULE_TYPE), None)
    if found is None or not found.get("authorized_consumers", {}).get(CONSUMER, {}).get("all"):
        raise KibanaError(
            f"rules: this key or user may not create Elasticsearch query rules; it needs the privileges {PRIVILEGES}"
        )
    if not found.get("enabled_in_license", True):
        raise KibanaError("rules: this Kibana's licence does not hold Elasticsearch query rules, though the basic does")


async def import_objects(kibana: Kibana, objects: Sequence[SavedObject], say: Say) -> None:
    """Import the dashboard and all it needs, over what is there. Raises ``KibanaError`` naming what was refused."""
    form = aiohttp.FormData()
    form.add_field("file", as_ndjson(objects).encode(), filename=FILE, content_type="application/ndjson")
    answer = await kibana.ask("POST", "/api/saved_objects/_import?overwrite=true", form=form)
    if not answer.ok:
        raise refused("import of the dashboard", answer)
    # A failure too is answered with 200.
    if answer.table.get("success") is not True:
        wrong = [_refusal(one) for one in answer.table.get("errors") or []]
        raise KibanaError("\n".join(["import of the dashboard: Kibana refused", *(wrong or ["  it did not say what"])]))
    say(f"imported: {counted(objects)}")
    say(f"dashboard: {kibana.space_url}/app/dashboards#/view/{quote(_id_given(answer.table))}")


def counted(objects: Iterable[SavedObject]) -> str:
    """How many there are of each kind, as people say it."""
    numbers = Counter(_KINDS[one["type"]] for one in objects)
    return ", ".join(f"{number} {kind}{'s' if number > 1 else ''}" for kind, number in numbers.items())


def _id_given(imported: Mapping[str, Any]) -> str:
    """The dashboard's id: another than ours where ours was taken in another space."""
    for one in imported.get("successResults", []):
        if one.get("type") == "dashboard" and one.get("id") == DASHBOARD:
            return str(one.get("destinationId", DASHBOARD))
    return DASHBOARD


def _refusal(error: Mapping[str, Any]) -> str:
    kind = _KINDS.get(str(error.get("type")), quoted(error.get("type")))
    name = quoted((error.get("meta") or error).get("title") or error.get("id"))
    return f"  {kind} {name!r}: {_reason(error.get('error') or {})}"


def _reason(error: Mapping[str, Any]) -> str:
    match error.get("type"):
        case "conflict":
            return "there is another of this id that cannot be overwritten; delete it there, and run this again"
        case "ambiguous_conflict":
            ids = ", ".join(quoted(one.get("id")) for one in error.get("destinations", []))
            return f"there are several copies of it ({ids}); delete all but one, and run this again"
        case "missing_references":
            missing = ", ".join(f"{one.get('type')} {one.get('id')}" for one in error.get("references", []))
            return f"it needs {quoted(missing)}, which could not be imported"
        case "unsupported_type":
            return "this Kibana knows no objects of this type; is the feature switched off in this space?"
        case _:
            return quoted(error.get("message")) or f"status {quoted(error.get('statusCode', 'unknown'))}"


async def install_rule(kibana: Kibana, rule: Rule, connector: Connector | None, *, write: bool) -> str:
    """Create the rule, or bring it up to date; returns what was done, or what would be where not to ``write``."""
    path = f"/api/alerting/rule/{rule.id(kibana.space)}"
    found = await kibana.ask("GET", path)
    if found.status == 404:
        if write:
            await _put(kibana, "POST", path, rule, with_actions({**rule.created(), "actions": []}, connector))
        return f"rule {rule.name}: {'created' if write else 'would be created'}{'' if rule.enabled else ', disabled'}"
    if not found.ok:
        raise refused(f"rule {rule.name}", found)
    kept = {name: found.table[name] for name in _KEPT if found.table.get(name) is not None}
    if write:
        body = {**rule.changed(), **kept, "actions": found.table.get("actions", [])}
        await _put(kibana, "PUT", path, rule, with_actions(body, connector))
    return f"rule {rule.name}: {'brought up to date' if write else 'would be brought up to date'}"


async def _put(kibana: Kibana, method: str, path: str, rule: Rule, body: dict[str, Any]) -> None:
    answer = await kibana.ask(method, path, body=body)
    if not answer.ok:
        raise refused(f"rule {rule.name}", answer)


async def install(
    kibana: Kibana,
    objects: Sequence[SavedObject],
    rules: Sequence[Rule],
    connector: Connector | None,
    *,
    dry_run: bool,
    say: Say,
) -> None:
    """Look, then import and create. Raises ``KibanaError``; what was done before that, ``say`` was told."""
    say(f"Kibana {await look(kibana)} at {kibana.url}, space {kibana.space}")
    if connector is not None:
        await connector.find(kibana)
    if dry_run:
        say(f"would be imported: {counted(objects)}")
    else:
        await import_objects(kibana, objects, say)
    for rule in rules:
        say(await install_rule(kibana, rule, connector, write=not dry_run))
