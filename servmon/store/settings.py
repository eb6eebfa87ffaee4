"""Where the database is and how long it keeps what it is given."""

from __future__ import annotations

from pydantic import Field, SecretStr

from servmon.model import Section


class DatabaseSection(Section):
    """``[database]``: without ``url`` servmon runs a private PostgreSQL in its data folder.

    ``listen_url`` leads to the same server without a pooler in between.
    ``spool_max_mb`` bounds the file that bridges its absence, in MiB.
    """

    url: SecretStr | None = None
    listen_url: SecretStr | None = None
    spool_max_mb: int = Field(1024, ge=1)


class CleanupSection(Section):
    """``[cleanup]``: how many days records are kept; ``retention_days`` is of single check results."""

    retention_days: int = Field(30, ge=1, le=36_500)
    hourly_days: int = Field(400, ge=1, le=36_500)
    state_change_days: int = Field(1100, ge=1, le=36_500)
    evidence_days: int = Field(90, ge=1, le=36_500)
    message_days: int = Field(90, ge=1, le=36_500)
    alert_days: int = Field(400, ge=1, le=36_500)
    event_days: int = Field(400, ge=1, le=36_500)
    audit_days: int = Field(400, ge=1, le=36_500)
