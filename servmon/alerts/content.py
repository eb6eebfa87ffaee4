"""What machines read of a message, beside its words: webhooks post it, templates are given it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from servmon.alerts.alert import Alert, Member, MessageKind, News
from servmon.clock import rfc3339
from servmon.model import Endpoint

# A message names so many; the rest is counted. Nothing is lost: the API has all of them.
NAMED = 50
# What machines get has a limit too; beyond it the count tells.
LISTED = 1000
ABOUT = (("owner", "Owner"), ("contact", "Contact"), ("circuit_id", "Circuit"), ("runbook_url", "Runbook"))
# Keys of messages that come late or by another way: how late, and sentences that every text has to bear.
DELAYED = "delayed"
REMARKS = "remarks"
# A copy that goes another way names the message it stands for.
INSTEAD_OF = "instead_of"


def content_of(alert: Alert, kind: MessageKind, news: Sequence[News]) -> dict[str, Any]:
    """What machines get of the message of this kind on ``alert``. Keys are only ever added."""
    return {
        "kind": kind.value,
        "alert_id": alert.id,
        "rule": alert.rule,
        "rule_kind": alert.kind,
        "title": alert.title,
        "severity": alert.severity.value,
        "opened_at": rfc3339(alert.opened_at),
        "closed_at": rfc3339(alert.closed_at) if alert.closed_at else None,
        "outages": [_member(member) for member in islice(alert.members.values(), LISTED)],
        "outage_count": len(alert.members),
        "endpoints": [_endpoint(one.endpoint) for one in news if one.endpoint][:NAMED],
    }


def _member(member: Member) -> dict[str, Any]:
    return {
        "outage_id": member.outage_id,
        "endpoint_id": member.endpoint_id,
        "name": member.name,
        "start_time": rfc3339(member.start_time),
        "resolved_at": rfc3339(member.resolved_at) if member.resolved_at else None,
        "description": member.description,
        "takes_down": list(member.takes_down[:LISTED]),
    }


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    shown = {"id": endpoint.id, "name": endpoint.name, "protocol": endpoint.protocol, "site": endpoint.site}
    about = {option: endpoint.options[option] for option, _ in ABOUT if endpoint.options.get(option)}
    return {**shown, "tags": list(endpoint.tags), **about}
