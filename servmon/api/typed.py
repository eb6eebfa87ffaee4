"""Typed handlers: what a request brings is read as the handler's annotations say, and what it returns is written.

A handler is ``async def handler(request, query: SomeQuery, body: SomeBody) -> SomeShape``. Either parameter may be
missing: then the route takes no query parameters, or no body. A ``body`` with a default may be left out by the client.
What is returned becomes JSON: a shape (200), ``Answer`` with its status and headers, ``None`` (204), or a response of
aiohttp's as it is. The same annotations are what OpenAPI describes.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from servmon.api.problems import RequestError
from servmon.api.requests import DEFAULT_LIMIT, HIGHEST_LIMIT, read_form, read_object, read_optional_object
from servmon.api.shapes import json_answer
from servmon.errors import InvalidInputError, Problem
from servmon.probes.sentences import sentences_of
from servmon.services.moments import read_moment, read_moment_or_day, read_zone

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
TypedHandler = Callable[..., Awaitable[Any]]


class Query(BaseModel):
    """Base of the query parameters of a route; one that is not declared is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Body(BaseModel):
    """Base of the bodies that are read here; those of endpoints and windows are read by the services."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Form(Body):
    """Base of what the forms of pages send, in place of JSON."""


class NoQuery(Query):
    """No parameters at all."""


def _limit(value: Any) -> int:
    if not re.fullmatch("[0-9]{1,4}", str(value)) or not 1 <= int(value) <= HIGHEST_LIMIT:
        raise ValueError(f"must be a whole number from 1 to {HIGHEST_LIMIT}")
    return int(value)


def _flag(value: Any) -> bool:
    if value not in ("true", "false"):
        raise ValueError("must be true or false")
    return bool(value == "true")


Flag = Annotated[bool, BeforeValidator(_flag)]
Moment = Annotated[datetime, BeforeValidator(read_moment), WithJsonSchema({"type": "string", "format": "date-time"})]


def _moment_or_day(value: str) -> str:
    read_moment_or_day(value, read_zone(None))
    return value


def _zone(value: str) -> str:
    read_zone(value)
    return value


# Read by the services; looked at here so that all that is wrong is named together.
MomentOrDay = Annotated[str, AfterValidator(_moment_or_day)]
Zone = Annotated[str, AfterValidator(_zone)]


class PageQuery(Query):
    """Which part of a list."""

    limit: Annotated[int, BeforeValidator(_limit)] = Field(
        DEFAULT_LIMIT,
        description="How many entries at most.",
        json_schema_extra={"minimum": 1, "maximum": HIGHEST_LIMIT},
    )
    cursor: str | None = Field(None, description="The next_cursor of the page before.")


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A shape with a status and headers of its own."""

    value: T
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Created(Answer[T]):
    """What was made; ``headers`` hold its Location."""

    status: int = 201


@dataclass(frozen=True, slots=True)
class NoContent:
    """Nothing to say, but in headers."""

    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JsonObject:
    """Marks a body that a service reads for itself: ``Annotated[dict[str, Any], JsonObject("EndpointFields")]``.

    ``schema`` is the name of its schema in the documentation.
    """

    schema: str


@dataclass(frozen=True, slots=True)
class Signature:
    """What a handler takes and gives. ``body`` is a model, a described object, or ``None``; ``answer`` a type."""

    query: type[Query]
    body: type[Body] | JsonObject | None
    body_optional: bool
    answer: Any
    status: int

    @property
    def is_raw(self) -> bool:
        """Whether the handler makes its response itself."""
        return inspect.isclass(self.answer) and issubclass(self.answer, web.StreamResponse)


def signature_of(handler: TypedHandler) -> Signature:
    """Read the annotations of ``handler``."""
    hints = get_type_hints(handler, include_extras=True)
    parameters = inspect.signature(handler).parameters
    body = hints.get("body")
    answer, status = _answer(hints["return"])
    return Signature(
        query=hints.get("query", NoQuery),
        body=_body(body),
        body_optional=body is not None and parameters["body"].default is not inspect.Parameter.empty,
        answer=answer,
        status=status,
    )


def typed(
    handler: TypedHandler, after: Callable[..., Awaitable[None]] | None = None, *, seconds: float | None = None
) -> Handler:
    """``handler`` as aiohttp calls it, for at most ``seconds``; ``after`` is called with the request and its return.

    Raises at once where its annotations cannot be read.
    """
    signature = signature_of(handler)
    parameters = inspect.signature(handler).parameters

    async def serve(request: web.Request) -> web.StreamResponse:
        given: dict[str, Any] = {}
        query = read_query(request, signature.query)
        if "query" in parameters:
            given["query"] = query
        if signature.body is not None:
            given["body"] = await _read_body(request, signature.body, optional=signature.body_optional)
        value = await _in_time(handler(request, **given), seconds)
        if after is not None:
            await after(request, value=value)
        return await _written(value)

    return serve


async def _in_time(work: Awaitable[T], seconds: float | None) -> T:
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await work
    except TimeoutError:
        if not limit.expired():
            raise
        said = f"this took more than {seconds:g} s and was given up, and a change may have been made; ask for less"
        raise RequestError(503, said, headers={"Retry-After": "30"}) from None


def read_query(request: web.Request, model: type[M]) -> M:
    """The query parameters as ``model``; raises ``InvalidInputError`` naming every wrong, unknown or repeated one."""
    problems = [Problem(name, "must be given only once") for name in _repeated(request)]
    problems += [Problem(name, "must not contain NUL") for name, value in request.query.items() if "\0" in value]
    try:
        query = model.model_validate(dict(request.query))
    except ValidationError as error:
        known = ", ".join(model.model_fields)
        allowed = f"known here: {known}" if known else "none is known here"
        problems.extend(_problems(error, f"unknown query parameter; {allowed}"))
        raise InvalidInputError(problems) from None
    if problems:
        raise InvalidInputError(problems)
    return query


def read_model(fields: Mapping[str, Any], model: type[M]) -> M:
    """A JSON object as ``model``; raises ``InvalidInputError`` naming every wrong or unknown field."""
    try:
        # JSON's strict mode: no "5" for 5 and no true for 1, yet a list where we keep a tuple.
        return model.model_validate_json(json.dumps(fields), strict=True)
    except ValidationError as error:
        unknown = f"unknown field; known here: {', '.join(model.model_fields)}"
        raise InvalidInputError(_problems(error, unknown)) from None


def _problems(error: ValidationError, unknown: str) -> Iterator[Problem]:
    for found, problem in zip(error.errors(include_url=False), sentences_of(error), strict=True):
        yield Problem(problem.field, unknown) if found["type"] == "extra_forbidden" else problem


def _repeated(request: web.Request) -> Iterator[str]:
    return (name for name in dict.fromkeys(request.query) if len(request.query.getall(name)) > 1)


async def _read_body(request: web.Request, wanted: type[Body] | JsonObject, *, optional: bool) -> Any:
    if inspect.isclass(wanted) and issubclass(wanted, Form):
        return read_model(await read_form(request), wanted)
    fields = await (read_optional_object(request) if optional else read_object(request))
    return fields if isinstance(wanted, JsonObject) else read_model(fields, wanted)


async def _written(value: Any) -> web.StreamResponse:
    if isinstance(value, web.StreamResponse):
        return value
    if value is None or isinstance(value, NoContent):
        return web.Response(status=204, headers=value.headers if value else None)
    if isinstance(value, Answer):
        return await json_answer(value.value, status=value.status, headers=value.headers)
    return await json_answer(value)


def _answer(annotation: Any) -> tuple[Any, int]:
    origin = get_origin(annotation)
    if origin in (Answer, Created):
        return get_args(annotation)[0], 201 if origin is Created else 200
    return (type(None), 204) if annotation in (type(None), NoContent) else (annotation, 200)


def _body(annotation: Any) -> type[Body] | JsonObject | None:
    if annotation is None:
        return None
    if get_origin(annotation) is Annotated:
        return next(mark for mark in get_args(annotation) if isinstance(mark, JsonObject))
    body: type[Body] = annotation
    return body
