"""``/tokens``: who may use the API."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict

from servmon.api.auth import TOKEN_NAME
from servmon.api.routing import TOKENS, Route
from servmon.api.shapes import Page
from servmon.api.typed import Body, Created, Moment
from servmon.model import Role


class NewToken(Body):
    """Whom a token is for, and what it allows."""

    name: str = Field(description="Written down wherever the token changes something.")
    role: Role = Role.READ
    expires_at: Moment | None = Field(None, description="When it stops to count; null: never.")


class TokenShape(TypedDict):
    """A token as it may be shown; ``prefix`` is the part between the underscores."""

    id: str
    name: str
    prefix: str
    role: Role
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None


class NewTokenShape(TokenShape):
    """A new token, shown this once."""

    token: str


async def list_tokens(request: web.Request) -> Page[TokenShape]:
    """List every token there was; none of them is shown itself."""
    rows: Any = await request.app[TOKENS].list_tokens()
    return {"items": rows, "next_cursor": None}


async def create_token(request: web.Request, body: NewToken) -> Created[NewTokenShape]:
    """Make a token; it is shown in this answer and never again."""
    made: Any = await request.app[TOKENS].create_token(
        body.name, body.role, created_by=request[TOKEN_NAME], expires_at=body.expires_at
    )
    return Created(made, headers={"Location": f"/tokens/{made['id']}"})


async def revoke_token(request: web.Request) -> None:
    """Let a token count no longer, at once; what it holds open is closed."""
    await request.app[TOKENS].revoke_token(request.match_info["token_id"])


ROUTES = (
    Route("GET", "/tokens/", list_tokens, Role.ADMIN),
    Route("POST", "/tokens/", create_token, Role.ADMIN),
    Route("DELETE", "/tokens/{token_id}", revoke_token, Role.ADMIN),
)
