"""Many endpoints at once: created, updated and deleted, all or none of them, or each for itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from servmon.errors import ConflictError, InvalidInputError, LostUpdateError, NotFoundError, Problem, ServmonError
from servmon.model import Endpoint
from servmon.services.availability import AvailabilityService
from servmon.services.connection import Connection
from servmon.services.live import LiveView, refresh
from servmon.store.pool import transaction

MOST_OPERATIONS = 1000
# What one operation may be refused for without saying anything about the others.
_REFUSALS = (InvalidInputError, NotFoundError, ConflictError, LostUpdateError)


class Mode(StrEnum):
    """What a refused operation means for the others."""

    ALL_OR_NOTHING = "all_or_nothing"
    PER_ITEM = "per_item"


class Operation(BaseModel):
    """One change: ``update`` changes the given fields and leaves the others."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    action: Literal["create", "update", "delete"]
    id: str | None = Field(None, description="Which endpoint; for create it may stand in the fields.")
    fields: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Done:
    """What came of one operation: the endpoint as it is now (``None``: deleted), or the error."""

    endpoint: Endpoint | None = None
    error: ServmonError | None = None


async def all_or_nothing(connection: Connection, live: LiveView | None, operations: Sequence[Operation]) -> list[Done]:
    """Make every change in one transaction; one that is refused undoes all.

    Raises ``InvalidInputError`` naming every refused one.
    """
    async with connection.pool.acquire() as one:
        service = AvailabilityService(replace(connection, pool=one))
        async with transaction(one):
            done = [await _make(service, operation) for operation in operations]
            if any(result.error for result in done):
                raise InvalidInputError(_problems(done))
    await refresh(live)
    return done


async def each(service: AvailabilityService, operations: Sequence[Operation]) -> list[Done]:
    """Make each change for itself; a refused one says so and stops no other."""
    return [await _make(service, operation) for operation in operations]


async def _make(service: AvailabilityService, operation: Operation) -> Done:
    try:
        return Done(await _change(service, operation))
    except _REFUSALS as error:
        return Done(error=error)


async def _change(service: AvailabilityService, operation: Operation) -> Endpoint | None:
    if operation.action == "create":
        named: Mapping[str, Any] = {"id": operation.id} if operation.id else {}
        return await service.create_endpoint({**operation.fields, **named})
    if operation.id is None:
        raise InvalidInputError.of("id", f"is needed to {operation.action} an endpoint")
    if operation.action == "update":
        return await service.update_endpoint(operation.id, operation.fields)
    await service.delete_endpoint(operation.id)
    return None


def problems_of(error: ServmonError) -> tuple[Problem, ...]:
    """What is wrong, value by value where that is known."""
    return error.problems if isinstance(error, InvalidInputError) else (Problem("id", str(error)),)


def _problems(done: Sequence[Done]) -> list[Problem]:
    return [
        Problem(f"operations.{number}.{problem.field}", problem.message)
        for number, result in enumerate(done)
        if result.error
        for problem in problems_of(result.error)
    ]
