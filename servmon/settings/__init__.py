"""Composes the rooms' own settings from one TOML file and the environment; the only reader of either."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from servmon.alerts.settings import AlertSection, ChannelSection
from servmon.api.settings import ApiSection
from servmon.checks.settings import ServiceSection
from servmon.detection.settings import OutageSection
from servmon.elastic.kibana.settings import KibanaSection
from servmon.elastic.settings import ElasticsearchSection
from servmon.model import DependencyRule, Endpoint, Section
from servmon.probes.specification import FROM_FILE
from servmon.settings.channels import check_channels, read_channels, warn_of_rules_all_off, warn_of_watched_servers
from servmon.settings.dependency_tables import read_dependencies
from servmon.settings.endpoint_tables import read_endpoints
from servmon.settings.environment import KnownVariables, is_set, known_variables, slips
from servmon.settings.files import LISTS, read_files
from servmon.settings.findings import Findings, SettingsError
from servmon.settings.kept import newest
from servmon.settings.sentences import sentence, unknown_key
from servmon.settings.templates import read_templates
from servmon.settings.written_values import adapt_section
from servmon.store import endpoints
from servmon.store.settings import CleanupSection, DatabaseSection
from servmon.systemd import ServiceManager

__all__ = [
    "Loaded",
    "Settings",
    "SettingsError",
    "default_data_dir",
    "load",
    "load_newest",
    "load_or_last_good",
    "service_manager",
]


SHORTEST_KEY = 32


def default_data_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Where servmon keeps its files: systemd's state directory, root's, or the user's (XDG base directories)."""
    environ = _environ(environ)
    if first := environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return Path(first)
    if os.geteuid() == 0:
        return Path("/var/lib/servmon")
    state = environ.get("XDG_STATE_HOME", "")
    try:
        # The XDG specification has relative paths ignored.
        return (Path(state) if state.startswith("/") else _home(environ) / ".local/state") / "servmon"
    except RuntimeError:  # a user without a home, as in many containers
        return Path("/var/lib/servmon")


def _home(environ: Mapping[str, str]) -> Path:
    home = environ.get("HOME", "")
    return Path(home) if home.startswith("/") else Path.home()


class ServmonSection(Section):
    """``[servmon]``: the instance itself. ``instance`` tells apart daemons that share one database."""

    data_dir: Path = Field(default_factory=default_data_dir)
    instance: str = Field("main", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    public_url: str | None = None
    link_key: SecretStr | None = None

    @field_validator("link_key")
    @classmethod
    def _is_long(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and len(key.get_secret_value()) < SHORTEST_KEY:
            raise ValueError(f"must have at least {SHORTEST_KEY} characters, as `openssl rand -hex 32` makes them")
        return key

    @field_validator("public_url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"https?://[^\s/]\S*", url):
            raise ValueError('must be a URL such as "https://servmon.example"')
        return url


class LogSection(Section):
    """``[log]``: ``format`` auto is readable on a terminal and JSON lines elsewhere; ``file`` gets them as well."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"
    file: Path | None = None

    @field_validator("level", "format", mode="before")
    @classmethod
    def _ignores_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value


class Settings(BaseSettings):
    """All settings but the endpoints. Built by hand it reads no environment: only ``load`` does."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_nested_delimiter="_", env_nested_max_split=1, enable_decoding=False
    )

    servmon: ServmonSection = Field(default_factory=ServmonSection)
    database: DatabaseSection = DatabaseSection()
    service: ServiceSection = ServiceSection()
    outage: OutageSection = OutageSection()
    alert: AlertSection = AlertSection()
    channels: dict[str, ChannelSection] = Field(default_factory=dict)
    elasticsearch: ElasticsearchSection = ElasticsearchSection()
    kibana: KibanaSection = KibanaSection()
    cleanup: CleanupSection = CleanupSection()
    api: ApiSection = ApiSection()
    log: LogSection = LogSection()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed in; ``load`` passes the environment's values among the file's."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


SECTIONS: Mapping[str, type[Section]] = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}
_VARIABLES = known_variables(Settings)


@dataclass(frozen=True, slots=True)
class Packed:
    """Endpoints as Postgres takes them. A text goes from process to process without holding the loop."""

    number: int
    text: str = field(repr=False)


@dataclass(frozen=True)
class Loaded:
    """A configuration that can be used, and what is doubtful in it. ``path`` is ``None`` where no file was read.

    ``texts`` are the files as they were read. ``broken`` is not empty where the file at ``path`` cannot be used and
    this is the last one that could: what is wrong with it.
    """

    settings: Settings
    endpoints: tuple[Endpoint, ...]
    warnings: tuple[str, ...]
    path: Path | None
    # Which variable of the environment set what, by section and key.
    variables: Mapping[tuple[str, str], str] = field(default_factory=dict)
    packed: Packed | None = None
    texts: tuple[tuple[Path, str], ...] = field(default=(), repr=False)  # secrets may stand in them
    broken: tuple[str, ...] = ()
    dependencies: tuple[DependencyRule, ...] = ()

    @property
    def source(self) -> str:
        """Whose the endpoints of the files are in the database."""
        return FROM_FILE + self.settings.servmon.instance

    @property
    def number(self) -> int:
        """How many endpoints there are."""
        return self.packed.number if self.packed else len(self.endpoints)

    def wanted(self) -> str:
        """The endpoints as Postgres takes them."""
        return self.packed.text if self.packed else endpoints.as_json(self.source, self.endpoints)

    def pack(self) -> Loaded:
        """The same with its endpoints packed: to be stored, not to be looked at."""
        return replace(self, endpoints=(), packed=Packed(self.number, self.wanted()))


def load(path: Path | None, environ: Mapping[str, str] | None = None, *, folder: Path | None = None) -> Loaded:
    """Read the file at ``path`` (``None``: only the environment); blocks for as long as the file is big.

    What it names by a relative path lies in ``folder``, by default the file's own. Raises ``SettingsError`` with
    every problem in the files and the environment at once.
    """
    environ = _environ(environ)
    tables, findings = read_files(path, folder)
    templates = read_templates(tables.pop("templates", []), findings)
    endpoint_tables = tables.pop("endpoints", [])
    dependency_tables = tables.pop("dependencies", [])
    settings = _build(tables, environ, findings)
    usable = settings if settings is not None else Settings()
    source = FROM_FILE + usable.servmon.instance
    found = read_endpoints(endpoint_tables, templates, usable.service, source, findings)
    dependencies = read_dependencies(dependency_tables, found, findings)
    if settings is not None:
        written = "notification_channels" in settings.alert.model_fields_set
        check_channels(settings.alert, settings.channels, findings, written=written)
        watched = (endpoint for _, endpoint in found.endpoints if endpoint.is_active)
        warn_of_rules_all_off(settings.alert, findings)
        warn_of_watched_servers(settings.alert, settings.channels, watched, findings)
    for name, slip in slips(_VARIABLES, environ):
        findings.warn_of_variable(name, slip)
    findings.stop_if_wrong()
    return Loaded(
        usable,
        tuple(endpoint for _, endpoint in found.endpoints),
        findings.warnings,
        path,
        findings.variables,
        texts=findings.texts,
        dependencies=dependencies,
    )


def load_or_last_good(path: Path | None, environ: Mapping[str, str] | None = None) -> Loaded:
    """``load``, or where the file is broken the last configuration of that file that was applied, which says so.

    Raises ``SettingsError`` where there is none either.
    """
    environ = _environ(environ)
    try:
        return load(path, environ)
    except SettingsError as error:
        if path is None or (kept := newest(_data_dir_in(path, environ), path.absolute())) is None:
            raise
        try:
            last_good = load(kept.file, environ, folder=kept.origin.parent)
        except SettingsError:
            raise error from None
        return replace(last_good, path=path, broken=error.lines)


def load_newest(data_dir: Path) -> Loaded | None:
    """The configuration that was applied last, if there is one that still can be."""
    kept = newest(data_dir)
    try:
        return load(kept.file, folder=kept.origin.parent) if kept else None
    except SettingsError:
        return None


def environment_now() -> Mapping[str, str]:
    """The environment of this process, for those who must not read it themselves."""
    return _environ(None)


def editor() -> str:
    """The user's editor, as a command."""
    environ = environment_now()
    return environ.get("VISUAL") or environ.get("EDITOR") or "vi"


def _data_dir_in(path: Path, environ: Mapping[str, str]) -> Path:
    """The data folder that a file names which may not even be TOML."""
    if is_set("SERVMON_DATA_DIR", environ):
        return Path(environ["SERVMON_DATA_DIR"].strip())
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return default_data_dir(environ)
    named = re.search(r"""^\s*data_dir\s*=\s*["']([^"']+)["']""", text, re.MULTILINE)
    return path.parent.absolute() / Path(named[1]).expanduser() if named else default_data_dir(environ)


def service_manager() -> ServiceManager:
    """Whoever started this process and wants to hear how it is doing."""
    return ServiceManager.of(_environ(None), os.getpid())


def _environ(given: Mapping[str, str] | None) -> Mapping[str, str]:
    return os.environ if given is None else given  # noqa: TID251 - this module is the one that may


def _build(tables: dict[str, Any], environ: Mapping[str, str], findings: Findings) -> Settings | None:
    """The settings of file and environment together, the environment's winning; ``None`` where any is wrong."""
    variables = KnownVariables(Settings, _VARIABLES, environ).read()
    findings.variables = {place: name for name, place in _VARIABLES.items() if place[1] in variables.get(place[0], {})}
    values = {name: table for name, table in tables.items() if name in Settings.model_fields}
    sound = True
    for name in tables.keys() - values.keys():
        findings.problem((name,), unknown_key(name, [*Settings.model_fields, *LISTS]))
        sound = False
    for name, model in SECTIONS.items():
        table = tables.get(name, {})
        if isinstance(table, dict):
            values[name] = {**table, **variables.get(name, {})}
            sound &= adapt_section((name,), model, values[name], environ, findings)
    if isinstance(tables.get("channels"), dict):
        values["channels"], fit = read_channels(tables["channels"], environ, findings)
        sound &= fit
    if isinstance(values["servmon"], dict):
        values["servmon"].setdefault("data_dir", default_data_dir(environ))
    try:
        settings = Settings(**values)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            section = str(detail["loc"][0])
            findings.problem(detail["loc"], sentence(detail, SECTIONS.get(section), detail["loc"][1:]))
        return None
    return settings if sound else None
