"""What an HTTP endpoint can be told: the request, and what counts as a good answer."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from functools import cached_property, lru_cache
from importlib.metadata import version
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from servmon.errors import InvalidInputError
from servmon.probes.dialogue import Pattern
from servmon.probes.http_answer import Ranges
from servmon.probes.http_body import BODY_LIMIT
from servmon.probes.json_path import Steps, parse_path
from servmon.probes.secret import secret_of
from servmon.probes.tls import TlsOptions

_MAX_BODY = 65_536
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_FIELD_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]{0,4000}")
_LONGEST_TOKEN = 8000
_ONE_LINE = re.compile(f"[!-~]{{1,{_LONGEST_TOKEN}}}")
_HOST = re.compile(r"[!-.0-~]+")
_USER_NAME = re.compile(r"[^:\x00-\x1f\x7f]{1,200}")
_RANGE = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?")
# Headers that let somebody in, by their names.
_CREDENTIALS = re.compile(r"(?i)auth|cookie|token|secret|passw|session|signature|\bkey\b|api_?key")
_OURS = frozenset({"content-length", "transfer-encoding", "connection", "upgrade", "expect"})


def _checked_headers(value: dict[str, str]) -> dict[str, str]:
    if len({name.lower() for name in value}) < len(value):
        raise ValueError("holds the same header twice, in capitals and in small letters")
    for name, text in value.items():
        _checked_header_name(name)
        if name.lower() in _OURS:
            raise ValueError(f"{name} is set by servmon itself; leave it out")
        if not _FIELD_VALUE.fullmatch(text):
            raise ValueError(f"the value of {name} must be one line of at most 4000 characters")
        if name.lower() == "host" and not _HOST.fullmatch(text):
            raise ValueError("the value of Host must be a host, with a port or without; shop.example:8080 would be one")
    return value


def _checked_header_name(name: str) -> None:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of a header; X-Token would be right")


def _checked_header_names(value: dict[str, Any]) -> dict[str, Any]:
    for name in value:
        _checked_header_name(name)
    return value


def _checked_paths(value: dict[str, Any]) -> dict[str, Any]:
    for path in value:
        parse_path(path)
    return value


def _checked_body(value: str) -> str:
    if len(value.encode()) > _MAX_BODY:
        raise ValueError(f"is {len(value.encode())} bytes; at most {_MAX_BODY} are sent")
    return value


def _checked_user_name(value: str) -> str:
    if not _USER_NAME.fullmatch(value):
        raise ValueError("must be 1 to 200 characters, no colon and no control character among them (RFC 7617)")
    return value


def _checked_ranges(value: str) -> str:
    ranges_of(value)
    return value


def _as_text(value: Any) -> Any:
    return str(value) if type(value) is int else value


def _in_capitals(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


class HttpOptions(TlsOptions):
    """The request, and what counts as a good answer beside its status and ``expected_response_pattern``.

    ``expected_json`` tells by their paths (``status.db``, ``nodes[0].up``) which values a JSON answer must hold;
    ``answer_limit`` how many bytes of a body are read, decoded or not.
    """

    secrets_of: ClassVar[Mapping[str, str]] = {"password": "username"}
    secret_entries: ClassVar[Mapping[str, re.Pattern[str]]] = {"headers": _CREDENTIALS}

    method: Annotated[
        Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"], BeforeValidator(_in_capitals)
    ] = "GET"
    headers: Annotated[dict[str, str], Field(max_length=50), AfterValidator(_checked_headers)] = Field(
        default_factory=dict
    )
    body: Annotated[str, AfterValidator(_checked_body)] | None = None
    expected_status: Annotated[str, BeforeValidator(_as_text), AfterValidator(_checked_ranges)] | None = None
    forbidden_response_pattern: Pattern | None = None
    expected_headers: Annotated[dict[str, Pattern], Field(max_length=50), AfterValidator(_checked_header_names)] = (
        Field(default_factory=dict)
    )
    expected_json: Annotated[dict[str, Any], Field(max_length=50), AfterValidator(_checked_paths)] = Field(
        default_factory=dict
    )
    follow_redirects: int = Field(default=5, ge=0, le=20)
    answer_limit: int = Field(default=BODY_LIMIT, ge=1024, le=4 * BODY_LIMIT)
    username: Annotated[str, AfterValidator(_checked_user_name)] | None = None
    password: SecretStr | None = Field(None, max_length=2000)
    password_file: str | None = Field(None, min_length=1, max_length=1000)
    password_env: str | None = Field(None, min_length=1, max_length=200)
    bearer_token: SecretStr | None = Field(None, min_length=1, max_length=_LONGEST_TOKEN)
    bearer_token_file: str | None = Field(None, min_length=1, max_length=1000)
    bearer_token_env: str | None = Field(None, min_length=1, max_length=200)

    @property
    def fields(self) -> str:
        """The request's header lines that are the same at every check. Raises ``OSError`` and ``ValueError``."""
        if self._secret_comes_from_outside:
            return self._lines(self.authorization())
        return self._fields

    @cached_property
    def _fields(self) -> str:
        return self._lines(self.authorization())

    @cached_property
    def _secret_comes_from_outside(self) -> bool:
        outside = (self.password_file, self.password_env, self.bearer_token_file, self.bearer_token_env)
        return any(name is not None for name in outside)

    @cached_property
    def has_host(self) -> bool:
        """Whether the header Host is among ``headers``."""
        return any(name.lower() == "host" for name in self.headers)

    @cached_property
    def json_paths(self) -> dict[str, Steps]:
        """The paths of ``expected_json``, ready to be walked."""
        return {path: parse_path(path) for path in self.expected_json}

    @cached_property
    def encoded_body(self) -> bytes | None:
        """The request's body as it is sent."""
        return None if self.body is None else self.body.encode()

    @cached_property
    def reads_text(self) -> bool:
        """Whether the body's text matters, beyond what the endpoint's own pattern wants."""
        return self.forbidden_response_pattern is not None or bool(self.expected_json)

    def authorization(self) -> str | None:
        """The header's value. Raises ``OSError`` and ``ValueError`` where the secret cannot be had."""
        token = secret_of(self.bearer_token, self.bearer_token_file, self.bearer_token_env)
        if token is not None:
            return f"Bearer {_in_one_line(token)}"
        if self.username is None:
            return None
        password = secret_of(self.password, self.password_file, self.password_env) or ""
        return f"Basic {base64.b64encode(f'{self.username}:{password}'.encode()).decode()}"

    def _lines(self, authorization: str | None) -> str:
        headers = DEFAULT_HEADERS | ({} if authorization is None else {"Authorization": authorization})
        given = {name.lower() for name in self.headers}
        lines = {name: text for name, text in headers.items() if name.lower() not in given} | self.headers
        return header_lines(lines)


_WHO_ASKS = ("username", "bearer_token", "bearer_token_file", "bearer_token_env")


def check_secrets(options: HttpOptions) -> None:
    """Refuse secrets that contradict each other or cannot be had. Raises ``InvalidInputError``."""
    who = [name for name in _WHO_ASKS if getattr(options, name) is not None]
    if who and any(name.lower() == "authorization" for name in options.headers):
        raise InvalidInputError.of(who[0], "excludes the header Authorization: one of them says who asks")
    for name in ("password", "bearer_token"):
        given = [one for one in (name, f"{name}_file", f"{name}_env") if getattr(options, one) is not None]
        if len(given) > 1:
            raise InvalidInputError.of(given[1], f"excludes {given[0]}: one of them tells the secret")
        if given and name == "password" and options.username is None:
            raise InvalidInputError.of(given[0], "means nothing without username")
        if given and name == "bearer_token" and options.username is not None:
            raise InvalidInputError.of(given[0], "excludes username: one of them says who asks")
        if given:
            try:
                options.authorization()
            except OSError as error:
                raise InvalidInputError.of(given[0], f"cannot be read: {error.strerror or error}") from None
            except ValueError as error:
                raise InvalidInputError.of(given[0], str(error)) from None


DEFAULT_HEADERS = {"User-Agent": f"servmon/{version('servmon')}", "Accept": "*/*", "Connection": "close"}


def header_lines(headers: dict[str, str]) -> str:
    """Headers as they are sent."""
    return "".join(f"{name}: {text}\r\n" for name, text in headers.items())


DEFAULT_FIELDS = header_lines(DEFAULT_HEADERS)


def _in_one_line(token: str) -> str:
    if not _ONE_LINE.fullmatch(token):
        raise ValueError(f"must be one line of 1 to {_LONGEST_TOKEN} visible ASCII characters")
    return token


@lru_cache(maxsize=1024)
def ranges_of(text: str) -> Ranges:
    """``"200-299,301"`` as pairs of first and last. Raises ``ValueError`` with a sentence."""
    ranges = []
    for part in text.split(","):
        found = _RANGE.fullmatch(part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if first > last:
            raise ValueError(f"{part.strip()!r} is no range of status codes; 200-299,301 would be right")
        ranges.append((first, last))
    return tuple(ranges)
