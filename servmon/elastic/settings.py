"""Where Elasticsearch is, how it is reached, and how often it is fed."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator
from yarl import URL

from servmon.model import Section

# An open outage is said to be open at least so often, or it falls out of short ranges of time.
LONGEST_REFRESH_SECONDS = 300


class ElasticsearchSection(Section):
    """``[elasticsearch]``: without ``hosts`` nothing is sent. ``sync_interval`` is in seconds.

    ``retention_days`` is how many days of our daily indices the cluster keeps; 0 keeps all.
    """

    sync_interval: int = Field(300, ge=1, le=86_400)
    hosts: tuple[str, ...] = ()
    api_key: SecretStr | None = None
    username: str | None = None
    password: SecretStr | None = None
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    retention_days: int = Field(0, ge=0)
    ecs_fields: bool = False

    @property
    def refresh_interval(self) -> int:
        """After how many seconds an open outage is said to be open again."""
        return min(self.sync_interval, LONGEST_REFRESH_SECONDS)

    @field_validator("hosts")
    @classmethod
    def _are_urls(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            try:
                url = URL(host)
            except ValueError:
                url = URL()
            if url.scheme not in ("http", "https") or not url.host:
                raise ValueError('each host is a URL such as "https://elastic.example:9200"')
            if url.user or url.password:
                raise ValueError("a host must not hold a user or password; write them as username and password")
        return hosts

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.api_key and (self.username or self.password):
            raise ValueError("give api_key, or username and password, not both")
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password belong together: give both or none")
        if self.client_key and not self.client_cert:
            raise ValueError("client_key belongs to a client_cert: give both, or a client_cert that holds its key")
        return self
