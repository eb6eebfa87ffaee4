"""Settings from environment variables: ours are known by name, everybody else's are none of our business."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, get_args

from pydantic_settings import BaseSettings, EnvSettingsSource

from servmon.model import Section

# What systemd and Kubernetes (service links, as Docker once wrote them) put beside ours, by names that look like ours.
_FOREIGN_NAME = re.compile(r".*_SERVICE_(HOST|PORT)(_.*)?|.*_PORT_\d+_(TCP|UDP|SCTP)(_.*)?|SERVICE_RESULT")
_FOREIGN_VALUE = re.compile(r"(tcp|udp|sctp)://.*")
_CLOSE = 0.85


def known_variables(settings: type[BaseSettings]) -> dict[str, tuple[str, str]]:
    """Every variable that is a setting, with its section and key: ``SERVICE_CHECK_INTERVAL``; tables have none."""
    return {
        f"{section}_{key}".upper(): (section, key)
        for section, field in settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        for key, of in field.annotation.model_fields.items()
        if not any(isinstance(part, type) and issubclass(part, Section) for part in get_args(of.annotation))
    }


def is_set(name: str, environ: Mapping[str, str]) -> bool:
    """Whether a variable counts: an empty one does not, nor does a Kubernetes service's ``API_PORT=tcp://…``."""
    value = environ.get(name, "").strip()
    return bool(value) and not (name.endswith("_PORT") and _FOREIGN_VALUE.fullmatch(value))


class KnownVariables(EnvSettingsSource):
    """Reads only the variables that are settings, so that a foreign one can never stop a start."""

    def __init__(self, settings: type[BaseSettings], names: Iterable[str], environ: Mapping[str, str]) -> None:
        super().__init__(settings)
        self.env_vars = {name.lower(): environ[name].strip() for name in names if is_set(name, environ)}

    def read(self) -> dict[str, dict[str, Any]]:
        """The values found, as text, by section and key."""
        return self()


def slips(known: Mapping[str, tuple[str, str]], environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Variables that are no setting but look as if one was meant, each with a sentence."""
    prefixes = tuple({f"{section}_".upper() for section, _ in known.values()})
    for name in sorted(environ):
        upper = name.upper()
        if (
            name in known
            or not upper.startswith(prefixes)
            or _FOREIGN_NAME.fullmatch(upper)
            or not is_set(name, environ)
        ):
            continue
        base = re.sub(r"_(FILE|ENV)$", "", upper)
        if upper in known:
            yield name, f"is ignored: settings are written in capitals, {upper}"
        elif base in known:
            yield (
                name,
                f"is ignored: only the configuration file knows {'.'.join(known[base])}{upper[len(base) :].lower()}",
            )
        elif close := get_close_matches(upper, known, n=1, cutoff=_CLOSE):
            yield name, f"is no setting and ignored; was {close[0]} meant?"
