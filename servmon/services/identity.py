"""What an id can look like: any other one is unknown without asking Postgres, which could choke on it."""

from __future__ import annotations

import re
from typing import TypeGuard

from servmon.errors import NotFoundError

_ENDPOINT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def is_endpoint_id(value: object) -> TypeGuard[str]:
    """Whether ``value`` could be an endpoint's id."""
    return isinstance(value, str) and _ENDPOINT_ID.fullmatch(value) is not None


def is_uuid(value: object) -> TypeGuard[str]:
    """Whether ``value`` could be the id of an outage or a window."""
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def known_endpoint_id(value: str) -> str:
    """``value``; raises ``NotFoundError`` where no endpoint can have that id."""
    if not is_endpoint_id(value):
        raise NotFoundError("there is no service endpoint with such an id")
    return value


def known_uuid(value: str, kind: str) -> str:
    """``value`` in lower case; raises ``NotFoundError`` where no ``kind`` of thing can have that id."""
    if not is_uuid(value):
        raise NotFoundError(f"there is no {kind} with such an id")
    return value.lower()
