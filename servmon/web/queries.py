"""What the addresses of pages may bring."""

from __future__ import annotations

from typing import Annotated, Any

from aiohttp import web
from pydantic import BeforeValidator, ConfigDict
from yarl import URL

from servmon.api.typed import Query


def _given(value: Any) -> Any:
    """A field of a form that was left empty chooses nothing."""
    return value or None


Chosen = BeforeValidator(_given)
Text = Annotated[str | None, Chosen]


class AnyQuery(Query):
    """Whatever mail programs and other sites append to a link means nothing here."""

    model_config = ConfigDict(extra="ignore")


class ListQuery(AnyQuery):
    """Which part of a list."""

    cursor: Annotated[str | None, Chosen] = None


def further(request: web.Request, cursor: str | None) -> str | None:
    """The query of the address that goes on behind this page, if it goes on."""
    if cursor is None:
        return None
    return "?" + URL.build(query={**request.query, "cursor": cursor}).raw_query_string
