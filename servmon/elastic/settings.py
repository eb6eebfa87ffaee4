"""Where Elasticsearch is and how often it is fed."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator

from servmon.model import Section


class ElasticsearchSection(Section):
    """``[elasticsearch]``: without ``hosts`` nothing is sent. ``sync_interval`` is in seconds."""

    sync_interval: int = Field(300, ge=1, le=86_400)
    hosts: tuple[str, ...] = ()
    api_key: SecretStr | None = None

    @field_validator("hosts")
    @classmethod
    def _are_urls(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        if not all(host.startswith(("http://", "https://")) for host in hosts):
            raise ValueError('each host is a URL such as "https://elastic.example:9200"')
        return hosts
