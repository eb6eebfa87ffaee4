"""The secrets among an endpoint's options: shown as ``***``, and kept where such an answer is sent back."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import SecretStr

from servmon.model import Endpoint
from servmon.probes import find_probe
from servmon.probes.base import Options

MASK = "***"


@lru_cache
def secret_names(model: type[Options]) -> frozenset[str]:
    """Which of a protocol's options are secrets as a whole."""
    kinds = (SecretStr, SecretStr | None)
    return frozenset(name for name, field in model.model_fields.items() if field.annotation in kinds)


def masked(options: Mapping[str, Any], model: type[Options] | None) -> dict[str, Any]:
    """``options`` as they may be shown; without a ``model`` nobody knows which are secret, so all are."""
    if model is None:
        return dict.fromkeys(options, MASK)
    hidden = dict.fromkeys(secret_names(model) & options.keys(), MASK)
    tables = {name: _masked_entries(model, name, options[name]) for name in model.secret_entries if name in options}
    return {**options, **tables, **hidden}


def keep_secrets(before: Endpoint, fields: Mapping[str, Any]) -> dict[str, Any]:
    """``fields`` with the secrets that ``before`` has, where they are left out, or masked as answers show them.

    ``null`` takes one away, and an entry of a table goes with being left out. Another protocol has other secrets.
    """
    probe = find_probe(before.protocol)
    kept = dict(fields)
    if probe is None or str(fields.get("protocol") or before.protocol).upper() != before.protocol:
        return kept
    model = probe.options
    for name in secret_names(model) & before.options.keys():
        wanted = name not in kept and fields.get(model.secrets_of.get(name, "url")) is not None
        if wanted or kept.get(name) == MASK:
            kept[name] = before.options[name]
    for name in model.secret_entries.keys() & before.options.keys():
        if isinstance(kept.get(name), Mapping):
            kept[name] = {key: _kept_entry(before.options[name], key, value) for key, value in kept[name].items()}
    return kept


def _masked_entries(model: type[Options], name: str, table: Mapping[str, Any]) -> dict[str, Any]:
    is_secret = model.secret_entries[name].search
    return {key: MASK if is_secret(key) else value for key, value in table.items()}


def _kept_entry(before: Mapping[str, Any], key: str, value: Any) -> Any:
    return before.get(key, value) if value == MASK else value
