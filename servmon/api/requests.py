"""Reads what a request brings: JSON bodies and query parameters, distrusting both."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from aiohttp import web

from servmon.api.problems import REPORTED, RequestError
from servmon.errors import InvalidInputError, LostUpdateError, Problem
from servmon.services.identity import is_uuid
from servmon.services.moments import read_moment

BODY_LIMIT_BYTES = 1024 * 1024
DEEPEST = 32
LONGEST_LIST = 10_000
MOST_FORM_FIELDS = 100
SLOWEST_BODY_SECONDS = 30
DEFAULT_LIMIT = 100
HIGHEST_LIMIT = 1000
# NUL cannot be stored by Postgres; half a surrogate pair cannot be written as UTF-8.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_TEXT_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)


async def read_object(request: web.Request) -> dict[str, Any]:
    """The JSON object in the body.

    Raises ``RequestError`` (400 unparsable, 408 too slow, 413 too large, 415 not JSON) or ``InvalidInputError``.
    """
    _check_content_type(request)
    return _parse(await _read(request))


async def read_optional_object(request: web.Request) -> dict[str, Any]:
    """The JSON object in the body, an empty one where there is no body; raises as ``read_object`` does."""
    if not request.can_read_body or not await _read(request):
        return {}
    return await read_object(request)


async def read_form(request: web.Request) -> dict[str, str]:
    """What a page's form sent, by the names of its fields; raises as ``read_object`` does."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise RequestError(415, "the body must be that of a form, application/x-www-form-urlencoded")
    body = await _read(request)
    try:
        pairs = parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=MOST_FORM_FIELDS
        )
    except ValueError:
        raise RequestError(400, "the body is no form that can be read") from None
    fields = _without_duplicates(pairs)
    _refuse_unusable(fields)
    return fields


def root(request: web.Request) -> str:
    """The way from a page up to where servmon's addresses begin, which a proxy may have put below another one."""
    return "../" * (request.rel_url.raw_path.count("/") - 1) or "./"


def write_cursor(*key: str) -> str:
    """The place in a list behind the entry with this sort ``key``."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def read_cursor(given: str | None, length: int) -> tuple[str, ...] | None:
    """The sort key in a cursor, of ``length`` parts; ``None`` where a list is read from its beginning."""
    if given is None:
        return None
    try:
        key = json.loads(base64.b64decode(given + "=" * (-len(given) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        wrong_cursor()
    if not isinstance(key, list) or len(key) != length or not all(isinstance(part, str) for part in key):
        wrong_cursor()
    return tuple(key)


def cursor_moment(part: str) -> datetime:
    """The time in one part of a cursor's key."""
    try:
        return read_moment(part)
    except ValueError:
        wrong_cursor()


def read_older_than(given: str | None) -> tuple[datetime, str] | None:
    """The start time and the id in the cursor of a list that is ordered by these, newest first."""
    key = read_cursor(given, 2)
    if key is None:
        return None
    if not is_uuid(key[1]):
        wrong_cursor()
    return cursor_moment(key[0]), key[1]


def wrong_cursor() -> NoReturn:
    """Refuse a cursor that did not come from the list it is used on."""
    raise InvalidInputError.of("cursor", "must be the next_cursor of an earlier answer of this list")


def is_this_version(request: web.Request, name: str, tag: str) -> bool:
    """Whether If-Match asks for the version with this ``tag``; where there is none, any will do.

    Raises ``LostUpdateError`` where it asks for others only.
    """
    wished = request.headers.getall("If-Match", [])
    tags = {part.strip() for line in wished for part in line.split(",")}
    if wished and not tags & {"*", tag}:
        raise LostUpdateError(f"{name} is at {tag} by now; read it again, then change it")
    return bool(wished)


def _check_content_type(request: web.Request) -> None:
    kind = request.content_type
    if kind != "application/json" and not re.fullmatch(r"application/[\w.-]+\+json", kind):
        raise RequestError(415, "the body must be JSON, with the header Content-Type: application/json")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise RequestError(415, "the body must be sent as it is, without Content-Encoding")
    if (request.charset or "utf-8").lower() not in {"utf-8", "utf8", "us-ascii"}:
        raise RequestError(415, "the body must be UTF-8, as all JSON is")


async def _read(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(SLOWEST_BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise RequestError(408, f"the body did not arrive within {SLOWEST_BODY_SECONDS} s") from None
    except web.RequestPayloadError:
        raise RequestError(400, "the body is damaged") from None


def _parse(body: bytes) -> dict[str, Any]:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise RequestError(400, "the body is not UTF-8") from None
    _check_depth(text)
    try:
        value = json.loads(text, parse_constant=_no_json, parse_float=_finite, object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as error:
        raise RequestError(400, f"the body is not JSON: {error.msg} (line {error.lineno})") from None
    except ValueError as error:
        raise RequestError(400, f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInputError.of("", "the body must be a JSON object, { … }")
    _refuse_unusable(value)
    return value


def _check_depth(text: str) -> None:
    """Refuse deep nesting before the parser recurses into it."""
    depth = 0
    for match in _TEXT_OR_BRACKET.finditer(text):
        bracket = match.group()
        if bracket in "[{":
            depth += 1
            if depth > DEEPEST:
                raise InvalidInputError.of("", f"the body is nested deeper than {DEEPEST} levels")
        elif bracket in "]}":
            depth -= 1


def _no_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large a number")
    return number


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        repeated = [name for name, count in counts.most_common(REPORTED) if count > 1]
        raise InvalidInputError(Problem(_shown(name), "is there more than once") for name in repeated)
    return found


def _refuse_unusable(value: Any) -> None:
    if problems := list(islice(_unusable(value, ""), REPORTED)):
        raise InvalidInputError(problems)


def _unusable(value: Any, place: str) -> Iterator[Problem]:
    """Every text in ``value`` that could not be stored, keys included, and every list that is too long."""
    if isinstance(value, str) and _UNSTORABLE.search(value):
        yield Problem(place, "must not contain NUL or half a surrogate pair")
    elif isinstance(value, dict):
        for name, inner in value.items():
            shown = f"{place}.{_shown(name)}" if place else _shown(name)
            if _UNSTORABLE.search(name):
                yield Problem(shown, "is no name of a field")
            yield from _unusable(inner, shown)
    elif isinstance(value, list) and len(value) > LONGEST_LIST:
        yield Problem(place, f"must have at most {LONGEST_LIST} entries")
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _unusable(inner, f"{place}.{position}" if place else str(position))


def _shown(name: str) -> str:
    return name.encode("unicode_escape").decode() if _UNSTORABLE.search(name) else name
