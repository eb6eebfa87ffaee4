"""Where the database is and how long it keeps what it is given."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator

from servmon.model import Section


class DatabaseSection(Section):
    """``[database]``: without ``url`` servmon runs a private PostgreSQL in its data folder.

    ``listen_url`` leads to the same server without a pooler in between.
    ``spool_max_mb`` bounds the file that bridges its absence, in MiB.
    """

    url: SecretStr | None = None
    listen_url: SecretStr | None = None
    spool_max_mb: int = Field(1024, ge=1)

    @field_validator("url", "listen_url")
    @classmethod
    def _is_of_postgres(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("must look like postgresql://user:password@host:5432/database")
        return url


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
