"""What other packages bring: protocols are the entry points of the group ``servmon.probes``.

A package whose probe cannot be used ends the start in one sentence: endpoints that are silently not checked would be
worse, and so would a traceback at 3 a.m.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from servmon.errors import StartError
from servmon.model import Endpoint
from servmon.probes.base import Options, Probe, safe_text

GROUP = "servmon.probes"

_PROTOCOL = re.compile(r"[A-Z][A-Z0-9+.-]{0,31}")
_LAST_PORT = 65_535


def installed_probes(ours: Iterable[Probe]) -> tuple[Probe, ...]:
    """The probes that installed packages offer. Raises ``StartError`` naming the package of one that is broken."""
    taken = {probe.protocol: "servmon itself" for probe in ours}
    found: list[Probe] = []
    for entry in entries_of(GROUP):
        probe = _load(entry)
        problem = _clash(probe, taken) or next(_problems(probe), None)
        if problem is not None:
            raise broken("probe", entry, problem)
        taken[probe.protocol] = package_of(entry)
        found.append(probe)
    return tuple(found)


def _load(entry: EntryPoint) -> Probe:
    loaded = load_entry("probe", entry, lambda found: found() if inspect.isclass(found) else found)
    return cast("Probe", loaded)


def _clash(probe: Probe, taken: dict[str, str]) -> str | None:
    other = taken.get(getattr(probe, "protocol", ""))
    return f"its protocol {probe.protocol} is that of {other}" if other else None


def _problems(probe: Probe) -> Iterator[str]:
    protocol, port = getattr(probe, "protocol", None), getattr(probe, "default_port", "")
    if not isinstance(protocol, str) or not _PROTOCOL.fullmatch(protocol):
        yield 'its "protocol" must be a word in capitals, as "WHOIS"'
    if port is not None and not (type(port) is int and 1 <= port <= _LAST_PORT):
        yield 'its "default_port" must be a port from 1 to 65535, or None'
    if not isinstance(getattr(probe, "takes_socket", None), bool):
        yield 'its "takes_socket" must be True or False'
    if not inspect.iscoroutinefunction(getattr(probe, "check", None)):
        yield 'its "check" must be an async method'
    options = getattr(probe, "options", None)
    if not inspect.isclass(options) or not issubclass(options, Options):
        yield 'its "options" must be a class derived from servmon.probes.base.Options'
    else:
        for name in options.model_fields.keys() & {field.name for field in fields(Endpoint)}:
            yield f"its option {name!r} bears the name of an endpoint's field"


def entries_of(group: str) -> list[EntryPoint]:
    """The entry points of a group, by name."""
    return sorted(entry_points(group=group), key=lambda entry: entry.name)


def load_entry(what: str, entry: EntryPoint, made: Callable[[Any], Any] = lambda found: found) -> Any:
    """What an entry point stands for, once it is ``made``. Raises ``StartError`` where that cannot be had."""
    try:
        return made(entry.load())
    except (Exception, SystemExit) as error:
        # A stranger's module may do anything when it is imported; here that ends the start either way.
        raise broken(what, entry, f"it cannot be loaded: {type(error).__name__}: {error}") from error


def broken(what: str, entry: EntryPoint, problem: str) -> StartError:
    """The end of a start: ``what`` (a probe, a channel) of another package cannot be used."""
    sentence = f"the {what} {entry.name!r} ({entry.value}) of {package_of(entry)} cannot be used: {problem}"
    return StartError(safe_text(f"{sentence}; correct or uninstall that package"))


def package_of(entry: EntryPoint) -> str:
    """The package that an entry point is of, and its version."""
    return f"the package {entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"
