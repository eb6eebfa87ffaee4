"""An endpoint from flat fields with its protocol's options beside them, from any source, checked once; and back."""

from __future__ import annotations

import difflib
import json
import math
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from operator import attrgetter
from typing import Any

from pydantic import ValidationError

from servmon.errors import InvalidInputError, Problem
from servmon.model import EMPTY, Endpoint
from servmon.probes import PROBES, find_probe
from servmon.probes.base import Options, Probe, Target, safe_text
from servmon.probes.endpoint_fields import EndpointFields
from servmon.probes.masking import masked, secret_names
from servmon.probes.sentences import not_of_type, sentences_of
from servmon.probes.target import parse_target

# What the source of an endpoint from the configuration file begins with; the instance follows.
FROM_FILE = "config:"

READ_ONLY_FIELDS = frozenset(
    {"key", "source", "revision", "created_at", "updated_at", "archived_at", "in_maintenance", "now", "revived"}
)

_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ANSWERS_WITH_STATUS = frozenset({"HTTP", "HTTPS"})
_ANSWERS_WITHOUT_TEXT = frozenset({"TCP", "ICMP"})
# How the names of what an answer must hold or must not begin, whatever the protocol.
_EXPECTATIONS = ("expect", "forbidden_")
_MAX_DEPTH = 8
# What options are called that name a file or a variable of this machine.
_POINTERS = ("_file", "_env")


_FIELDS = frozenset(EndpointFields.model_fields)


@dataclass(frozen=True, slots=True)
class EndpointDefaults:
    """What stands in for timing an endpoint leaves out; seconds. The settings' values, or the seed's."""

    check_interval: int = 60
    timeout: float = 5
    retries: int = 3


@dataclass(frozen=True, slots=True)
class Prepared:
    """An endpoint ready to be asked: all that can be parsed beforehand is."""

    probe: Probe
    target: Target
    options: Options


def parse_endpoint(
    given: Mapping[str, Any], defaults: EndpointDefaults, *, source: str = "api", ignore_read_only: bool = False
) -> Endpoint:
    """The endpoint that flat fields, options beside them, describe; ``null`` means not given.

    Raises ``InvalidInputError`` naming every wrong field at once. ``ignore_read_only`` passes over what only servmon
    sets (``created_at`` …), so that an answer of the API can be sent back to it.
    """
    problems: list[Problem] = []
    plain = _plain_fields(given, READ_ONLY_FIELDS if ignore_read_only else frozenset(), problems)
    checked = _checked_fields(plain, problems)
    probe, target = _find_target(plain, problems)
    _find_unknown(plain, probe, problems)
    if probe is not None:
        _find_untrusted(probe, plain, source, problems)
        _find_meaningless(plain, probe, problems)
        own = {n: value for n, value in plain.items() if n in probe.options.model_fields and value is not None}
        options = _checked_options(probe.options, own, problems)
        if checked is not None and options is not None and target is not None and not problems:
            endpoint = _endpoint(checked, probe.protocol, own, defaults, source)
            _validate(probe, _complete(target, endpoint), options, problems)
            if not problems:
                return endpoint
    raise InvalidInputError(problems)


# What is asked of a thousand endpoints for one page of them is looked up once.
_DESCRIBED = tuple(field.name for field in fields(Endpoint) if field.name != "options")
_values_of = attrgetter(*_DESCRIBED)


def describe_endpoint(endpoint: Endpoint) -> dict[str, Any]:
    """An endpoint as flat fields with its options beside them; secret options read ``"***"``."""
    described = dict(zip(_DESCRIBED, _values_of(endpoint), strict=True))
    described["depends_on"] = [list(group) for group in endpoint.depends_on]
    described["tags"] = list(endpoint.tags)
    probe = find_probe(endpoint.protocol)
    return described | masked(endpoint.options, probe.options if probe else None)


def prepare(endpoint: Endpoint) -> Prepared:
    """All that a check of ``endpoint`` needs. Raises ``InvalidInputError`` where it cannot be asked (any more)."""
    problems: list[Problem] = []
    protocol, target = parse_target(endpoint.url, endpoint.protocol)
    probe = find_probe(protocol)
    if probe is None:
        raise InvalidInputError.of("protocol", f"{protocol} is not known here")
    _find_untrusted(probe, endpoint.options, endpoint.source, problems)
    options = _checked_options(probe.options, endpoint.options, problems)
    if options is None or problems:
        raise InvalidInputError(problems)
    return Prepared(probe, _complete(target, endpoint), options)


def _complete(target: Target, endpoint: Endpoint) -> Target:
    pattern = endpoint.expected_response_pattern
    if pattern is None and endpoint.expected_status_code is None:
        return target
    return Target(
        target.url,
        target.host,
        target.port,
        target.path,
        endpoint.expected_status_code,
        None if pattern is None else re.compile(pattern),
    )


def _plain_fields(given: Mapping[str, Any], ignored: frozenset[str], problems: list[Problem]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, value in given.items():
        if name in ignored or (value is None and name in _FIELDS):
            continue
        if name in READ_ONLY_FIELDS:
            plain[name] = None
            continue
        try:
            plain[name] = _plain(value)
        except ValueError as error:
            problems.append(Problem(safe_text(str(name)), str(error)))
    return plain


def _plain(value: Any, depth: int = 0) -> Any:
    """A copy of ``value`` in JSON's own types. Raises ``ValueError`` for what neither JSON nor Postgres can hold."""
    kind = type(value)
    if kind is int or kind is bool or value is None:
        return value
    if isinstance(value, str):
        if "\0" in value or (not value.isascii() and _SURROGATE.search(value)):
            raise ValueError("holds a NUL or half a character, which no text may")
        return str(value)
    if kind is float:
        if not math.isfinite(value):
            raise ValueError(f"must be a number, and {value} is none")
        return value
    if depth < _MAX_DEPTH and isinstance(value, list | tuple):
        return [_plain(part, depth + 1) for part in value]
    if depth < _MAX_DEPTH and isinstance(value, Mapping):
        return {_plain(str(key)): _plain(part, depth + 1) for key, part in value.items()}
    raise ValueError("must be text, a number, true or false, or a list or table of these")


def _checked_fields(plain: Mapping[str, Any], problems: list[Problem]) -> EndpointFields | None:
    text = json.dumps({name: value for name, value in plain.items() if name in _FIELDS})
    try:
        # JSON's strict mode: no "5" for 5 and no true for 1, yet a list where we keep a tuple.
        return EndpointFields.model_validate_json(text)
    except ValidationError as error:
        problems.extend(sentences_of(error))
        return None


def _checked_options(model: type[Options], own: Mapping[str, Any], problems: list[Problem]) -> Options | None:
    try:
        options = _options(model, json.dumps(dict(own), sort_keys=True))
    except ValidationError as error:
        problems.extend(sentences_of(error, secret_names(model) | model.secret_entries.keys()))
        return None
    guessed = [name for name, value in own.items() if _is_guess(value, getattr(options, name))]
    problems.extend(Problem(name, not_of_type(getattr(options, name), own[name])) for name in guessed)
    return None if guessed else options


@lru_cache(maxsize=4096)
def _options(model: type[Options], text: str) -> Options:
    """Thousands of endpoints have the same options, mostly none: one object serves them all."""
    return model.model_validate_json(text)


def _is_guess(given: Any, understood: Any) -> bool:
    """Whether pydantic took "5" or true for a number, or 1 for true.

    Its strict mode would not, but refuses the lists that options' own validators hand on for tuples.
    """
    if isinstance(understood, bool | int | float):
        return type(given) is not type(understood) and not (type(given) is int and type(understood) is float)
    if isinstance(understood, list | tuple) and isinstance(given, list):
        return any(map(_is_guess, given, understood))
    return False


def _find_target(plain: Mapping[str, Any], problems: list[Problem]) -> tuple[Probe | None, Target | None]:
    """The probe is told even where the url is wrong, since its options can be judged all the same."""
    url, protocol = plain.get("url"), plain.get("protocol")
    told = find_probe(protocol) if isinstance(protocol, str) else None
    if not isinstance(url, str) or not isinstance(protocol, str | None):
        return told, None
    try:
        name, target = parse_target(url, protocol)
    except InvalidInputError as error:
        problems.extend(error.problems)
        return told, None
    return find_probe(name), target


def _find_unknown(plain: Iterable[str], probe: Probe | None, problems: list[Problem]) -> None:
    # Without a protocol nobody can say whose option a name is.
    own = {name for one in ((probe,) if probe else PROBES) for name in one.options.model_fields}
    for name in plain:
        if name in _FIELDS or name in own:
            continue
        if name in READ_ONLY_FIELDS:
            problems.append(Problem(name, "is set by servmon alone; leave it out"))
            continue
        near = difflib.get_close_matches(name, [*_FIELDS, *own], n=1)
        sentence = f"is no field of an endpoint{f' and no option of {probe.protocol}' if probe else ''}"
        problems.append(Problem(safe_text(name), f"{sentence}; did you mean {near[0]}?" if near else sentence))


def _find_untrusted(probe: Probe, given: Iterable[str], source: str, problems: list[Problem]) -> None:
    """Who may use the API, or write to the database, may not run this machine's programs or read its files."""
    if source.startswith(FROM_FILE):
        return
    if getattr(probe, "from_file_only", False):
        sentence = f"{probe.protocol} is accepted only from the configuration file, since it runs programs"
        problems.append(Problem("protocol", sentence))
    for name in given:
        if name.endswith(_POINTERS) and name in probe.options.model_fields:
            sentence = "is accepted only from the configuration file, since it reads what belongs to this machine"
            problems.append(Problem(name, sentence))


def _find_meaningless(plain: Mapping[str, Any], probe: Probe, problems: list[Problem]) -> None:
    """An expectation that is never looked at would make people feel safe without reason."""
    if "expected_status_code" in plain and probe.protocol not in _ANSWERS_WITH_STATUS:
        problems.append(
            Problem("expected_status_code", f"means nothing to {probe.protocol}; only HTTP answers have one")
        )
    if "expected_response_pattern" in plain and probe.protocol in _ANSWERS_WITHOUT_TEXT:
        problems.append(Problem("expected_response_pattern", f"means nothing to {probe.protocol}, which reads no text"))
    if plain.get("inverted") is True:
        sentence = "means nothing with inverted = true, where every answer is wrong"
        given = (name for name, value in plain.items() if value is not None)
        problems.extend(Problem(name, sentence) for name in given if name.startswith(_EXPECTATIONS))


def _validate(probe: Probe, target: Target, options: Options, problems: list[Problem]) -> None:
    """What a probe refuses beyond single values, such as two options that exclude each other."""
    validate = getattr(probe, "validate", None)
    if validate is not None:
        try:
            validate(target, options)
        except InvalidInputError as error:
            problems.extend(error.problems)


def _endpoint(
    checked: EndpointFields, protocol: str, options: dict[str, Any], defaults: EndpointDefaults, source: str
) -> Endpoint:
    endpoint_id = checked.id or str(uuid.uuid4())
    return Endpoint(
        id=endpoint_id,
        name=checked.name or endpoint_id,
        url=checked.url,
        protocol=protocol,
        check_interval=defaults.check_interval if checked.check_interval is None else checked.check_interval,
        timeout=defaults.timeout if checked.timeout is None else checked.timeout,
        retries=defaults.retries if checked.retries is None else checked.retries,
        expected_status_code=checked.expected_status_code,
        expected_response_pattern=checked.expected_response_pattern,
        is_active=checked.is_active,
        retry_interval=checked.retry_interval,
        detection_threshold=checked.detection_threshold,
        detection_window=checked.detection_window,
        degraded_outage_after=checked.degraded_outage_after,
        recovery_threshold=checked.recovery_threshold,
        severity=checked.severity,
        degraded_threshold_ms=checked.degraded_threshold_ms,
        depends_on=checked.depends_on,
        tags=checked.tags,
        site=checked.site,
        options=options or EMPTY,
        source=source,
    )
