"""Errors as answers: RFC 9457 problem details, and the middleware that makes them."""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from servmon.errors import (
    ConflictError,
    InvalidInputError,
    LostUpdateError,
    NotFoundError,
    Problem,
    RefusedError,
    ServmonError,
    StoreUnavailableError,
    TooSoonError,
)
from servmon.store.pool import AWAY

_log = structlog.get_logger(__name__)

STORE_RETRY_SECONDS = 5
# A body may hold more wrong values than anybody would read about.
REPORTED = 100
REQUEST_ID_HEADER = "X-Request-Id"
REQUEST_ID = web.RequestKey("request_id", str)
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Our own words where Python 3.11 still has those of the older RFC, and aiohttp's are for browsers.
_TITLES: Mapping[int, str] = {413: "Content Too Large", 422: "Unprocessable Content"}
_STATUS: Mapping[type[ServmonError], int] = {
    InvalidInputError: 422,
    NotFoundError: 404,
    ConflictError: 409,
    LostUpdateError: 412,
    TooSoonError: 429,
    StoreUnavailableError: 503,
}
_DETAILS: Mapping[int, str] = {
    404: "there is nothing at this address; GET / lists the routes",
    405: "this address does not take that method; the Allow header lists those it takes",
    413: "the body has more than 1 MiB",
}


class RequestError(Exception):
    """A request that cannot be served as it was sent: the ``status`` to answer and a sentence for its sender."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.detail = detail
        self.headers = headers
        super().__init__(detail)


class ProblemResponse(web.Response):
    """What went wrong, as ``application/problem+json``; in ``sentences`` for whoever tells it in another form."""

    sentences: tuple[str, ...] = ()


def problem_response(
    status: int, detail: str, *, errors: Iterable[Problem] = (), headers: Mapping[str, str] | None = None
) -> ProblemResponse:
    """An ``application/problem+json`` answer; ``errors`` name the wrong fields."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": _TITLES.get(status) or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if listed := [{"field": problem.field, "message": problem.message} for problem in errors]:
        body["errors"] = listed
    text = json.dumps(body)
    answer = ProblemResponse(text=text, status=status, content_type="application/problem+json", headers=headers)
    answer.sentences = (detail, *(f"{one['field']}: {one['message']}" for one in listed))
    return answer


@web.middleware
async def name_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give each request an id, its sender's own where that is one: it stands in the answer and in the log."""
    wished = request.headers.get(REQUEST_ID_HEADER, "")
    request_id = wished if _REQUEST_ID.fullmatch(wished) else secrets.token_hex(8)
    request[REQUEST_ID] = request_id
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        return await handler(request)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever goes wrong in one request into its answer; nothing gets past it."""
    try:
        return await handler(request)
    except RequestError as error:
        return problem_response(error.status, error.detail, headers=error.headers)
    except tuple(_STATUS) as error:
        return _expected(error)
    except web.HTTPException as error:
        return _of_aiohttp(error)
    except AWAY as error:
        _log.warning("Postgres went away during a request", path=request.path, error=type(error).__name__)
        return _expected(StoreUnavailableError("Postgres is away just now; servmon goes on checking, ask again soon"))
    except Exception:  # noqa: BLE001 - one request failing must fail no other
        _log.exception("request failed", method=request.method, path=request.path)
        # Its sender learns nothing of our insides.
        said = f"servmon failed to answer; its log says more under request_id {request[REQUEST_ID]}"
        return problem_response(500, said)


def _expected(error: ServmonError) -> ProblemResponse:
    status = next(status for kind, status in _STATUS.items() if isinstance(error, kind))
    if isinstance(error, InvalidInputError):
        problems = error.problems[:REPORTED]
        fields = ", ".join(dict.fromkeys(problem.field for problem in problems if problem.field))
        detail = f"not acceptable: {fields}" if fields else str(error)
        return problem_response(status, detail, errors=problems)
    headers = {}
    errors = error.problems if isinstance(error, RefusedError) else ()
    if isinstance(error, TooSoonError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(error, StoreUnavailableError):
        headers["Retry-After"] = str(STORE_RETRY_SECONDS)
    return problem_response(status, str(error), errors=errors, headers=headers)


def _of_aiohttp(error: web.HTTPException) -> web.Response:
    if error.status < HTTPStatus.BAD_REQUEST:
        raise error
    kept = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
    return problem_response(error.status, _DETAILS.get(error.status, error.reason), headers=kept)
