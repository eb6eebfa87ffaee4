"""Where the database is and how long it keeps what it is given."""

from __future__ import annotations

from pydantic import Field, SecretStr

from servmon.model import Section


class DatabaseSection(Section):
    """``[database]``: without ``url`` servmon runs a private PostgreSQL in its data folder.

    ``spool_max_mb`` bounds the file that bridges its absence, in MiB.
    """

    url: SecretStr | None = None
    spool_max_mb: int = Field(1024, ge=1)


class CleanupSection(Section):
    """``[cleanup]``: how many days single check results are kept."""

    retention_days: int = Field(30, ge=1, le=36_500)
