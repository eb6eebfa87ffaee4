"""Where Kibana is, and who servmon is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, SecretStr, field_validator, model_validator
from yarl import URL

from servmon.model import Section


def checked_space(space: str) -> str:
    """The id of a space; raises ``ValueError`` where it cannot be one."""
    if not re.fullmatch(r"[a-z0-9_-]{1,100}", space):
        raise ValueError(f'must be the id of a space (a-z, 0-9, "_" and "-"), as in its URL: /s/ID/, not {space!r}')
    return space


class KibanaSection(Section):
    """``[kibana]``: used by ``servmon kibana install`` alone. ``url`` may end in a base path."""

    url: str | None = None
    space: Annotated[str, AfterValidator(checked_space)] = "default"
    api_key: SecretStr | None = None
    username: str | None = None
    password: SecretStr | None = None
    ca_file: Path | None = None

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        if not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", url) or not URL(url).host:
            raise ValueError('must be a URL such as "https://kibana.example:5601", with the base path if there is one')
        if URL(url).user is not None or URL(url).password is not None:
            raise ValueError("must not hold a user or password; there are kibana.username and kibana.password")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _is_one_identity(self) -> Self:
        if self.api_key and self.username:
            raise ValueError("api_key and username exclude each other: give one of them")
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password belong together")
        return self
