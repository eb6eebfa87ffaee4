"""Where the admin API listens and who may use it."""

from __future__ import annotations

import re

from pydantic import Field, SecretStr, field_validator

from servmon.model import Section

# RFC 6750 section 2.1: what can stand behind "Bearer" in a header.
_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class ApiSection(Section):
    """``[api]``: ``port`` 0 is any free one; without ``token`` the first start creates one in the data folder."""

    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(8350, ge=0, le=65_535)
    token: SecretStr | None = None

    @field_validator("token")
    @classmethod
    def _fits_a_header(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and not _BEARER.fullmatch(token.get_secret_value()):
            raise ValueError("a token is letters, digits and . _ ~ + / - (RFC 6750), at least one of them")
        return token
