"""Which Postgres holds the records: the configured one, or servmon's own in its data folder."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from servmon.errors import StartError
from servmon.settings import Settings
from servmon.store.data_folder import taken
from servmon.store.embedded import EmbeddedPostgres, running_dsn
from servmon.store.local import FILE
from servmon.store.pool import place_of

# Stands in the data folder of a servmon that uses an external database.
EXTERNAL_DATABASE = "external-database"


# A server of our own that lets a start wait longer counts as away: it may have much to recover after a crash.
PATIENCE_SECONDS = 20.0


@asynccontextmanager
async def database(
    settings: Settings, *, has_to_run: bool = True
) -> AsyncIterator[tuple[str, EmbeddedPostgres | None]]:
    """The DSN of the configured Postgres, or of servmon's own beside it, which runs as long as the context.

    Where it need not run, and an earlier run of servmon noted what it knew, one that does not start is tried again.
    """
    if settings.database.url is not None:
        with taken(settings.servmon.data_dir):  # two on one spool would store each other's results
            yield settings.database.url.get_secret_value(), None
        return
    if (place := used_database(settings)) is not None:
        raise StartError(
            f"{settings.servmon.data_dir} belongs to {place}, and no [database] url (or DATABASE_URL) is set: servmon"
            f" would start with an empty database of its own. Set the url, or remove"
            f" {settings.servmon.data_dir / EXTERNAL_DATABASE} if that is meant"
        )
    postgres = EmbeddedPostgres(settings.servmon.data_dir)
    is_known = os.access(settings.servmon.data_dir / FILE, os.F_OK)  # what may not be looked at is said at the start
    try:
        yield await postgres.start(None if has_to_run or not is_known else PATIENCE_SECONDS), postgres
    finally:
        await postgres.stop()


@asynccontextmanager
async def reachable_database(settings: Settings) -> AsyncIterator[str]:
    """The DSN of the same database, also while a servmon runs on it."""
    url = settings.database.url
    running = running_dsn(settings.servmon.data_dir) if url is None else url.get_secret_value()
    if running is not None:
        yield running
        return
    async with database(settings) as (dsn, _postgres):
        yield dsn


def remember_database(settings: Settings) -> None:
    """Note in the data folder that its records lie in an external database, if they do."""
    if settings.database.url is not None:
        place = place_of(settings.database.url.get_secret_value())
        (settings.servmon.data_dir / EXTERNAL_DATABASE).write_text(f"{place}\n", encoding="utf-8")


def used_database(settings: Settings) -> str | None:
    """The external database that holds the records of this data folder, in words, if one does."""
    try:
        return (settings.servmon.data_dir / EXTERNAL_DATABASE).read_text(encoding="utf-8").strip()
    except OSError:
        return None
