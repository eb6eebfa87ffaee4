"""What a rule does when it fires and when it has recovered: a message through one of Kibana's connectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from servmon.elastic.kibana.client import Kibana, KibanaError, quoted, refused

FIRED, RECOVERED = "query matched", "recovered"
_MESSAGES: Mapping[str, str] = {
    FIRED: "{{rule.name}}: {{alert.id}}. {{context.message}}",
    RECOVERED: "{{rule.name}}: {{alert.id}} has recovered.",
}
# The parameters of each type of connector that needs no more than a message.
_PARAMETERS: Mapping[str, Callable[[str], dict[str, Any]]] = {
    ".server-log": lambda message: {"level": "warn", "message": message},
    ".index": lambda message: {"documents": [{"rule": "{{rule.name}}", "alert": "{{alert.id}}", "message": message}]},
    ".slack": lambda message: {"message": message},
    ".teams": lambda message: {"message": message},
    ".webhook": lambda message: {"body": f'{{"text": "{message}"}}'},
}
# What a rule answers of an action that it does not take.
_ANSWERED_ONLY = frozenset({"connector_type_id"})


@dataclass(slots=True)
class Connector:
    """A way out of Kibana; ``link`` stands in its messages. ``find`` it before anything is made of it."""

    id: str
    link: str | None = None
    _kind: str = field(default="", init=False)

    async def find(self, kibana: Kibana) -> None:
        """Look it up. Raises ``KibanaError`` where there is none, or it needs more than a message."""
        answer = await kibana.ask("GET", f"/api/actions/connector/{quote(self.id, safe='')}")
        if answer.status == 404:
            there = await kibana.get("/api/actions/connectors", "connectors", list)
            raise KibanaError(f"there is no connector {quoted(self.id)!r} in this space; {_listed(there)}")
        if not answer.ok:
            raise refused(f"connector {quoted(self.id)}", answer)
        self._kind = str(answer.table.get("connector_type_id"))
        if self._kind not in _PARAMETERS:
            raise KibanaError(
                f"connector {quoted(self.id)!r} is of type {quoted(self._kind)}, which needs more than a message:"
                f" install without --connector and add the action in Kibana. Good here: {', '.join(_PARAMETERS)}"
            )

    def actions(self) -> list[dict[str, Any]]:
        """What it does in a rule: one message when it fires, one when that is over."""
        more = f" {self.link}" if self.link else ""
        once = {"summary": False, "notify_when": "onActionGroupChange", "throttle": None}
        return [
            {"id": self.id, "group": group, "params": _PARAMETERS[self._kind](f"{text}{more}"), "frequency": once}
            for group, text in _MESSAGES.items()
        ]


def with_actions(rule: dict[str, Any], connector: Connector | None) -> dict[str, Any]:
    """The rule with the connector's actions; those through other connectors are a person's own and stay."""
    kept = [
        {name: value for name, value in action.items() if name not in _ANSWERED_ONLY}
        for action in rule["actions"]
        if connector is None or action["id"] != connector.id
    ]
    return {**rule, "actions": [*kept, *(connector.actions() if connector else [])]}


def _listed(there: Iterable[Mapping[str, Any]]) -> str:
    named = [f"{quoted(one.get('id'))} ({quoted(one.get('name'))})" for one in there if not one.get("is_preconfigured")]
    return f"there are {', '.join(named)}" if named else "there is none yet: make one in Stack Management, Connectors"
