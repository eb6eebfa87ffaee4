"""The part that answers: the admin API and the pages, who gets in, and the services behind both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from servmon import log
from servmon.api.app import Entrance, Services, build_app
from servmon.api.auth import ADMIN
from servmon.api.configuration import Configuration
from servmon.api.health import Vitals
from servmon.api.server import serve
from servmon.api.token_file import load_or_create_token
from servmon.parts.ground import Ground
from servmon.probes.specification import EndpointDefaults
from servmon.services.alert_rules import AlertRuleService
from servmon.services.alerts import AlertService
from servmon.services.availability import AvailabilityService
from servmon.services.connection import DEFAULT_OBSERVER, Connection
from servmon.services.outages import OutageManagementService
from servmon.services.sessions import Sessions
from servmon.services.stream import Stream
from servmon.services.tokens import AccessToken, TokenBook, TokenService
from servmon.settings import Loaded, Settings
from servmon.watchlist import Watchlist
from servmon.web import PAGES
from servmon.web.acknowledge import LINKS


class ApiPart:
    """``token`` is the administrator's; ``connection`` is what all services work on."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        settings, loaded = ground.settings, ground.provisioning.loaded
        token = settings.api.token
        self.token = load_or_create_token(settings.servmon.data_dir, token.get_secret_value() if token else None)
        log.hide("token", [self.token.token])
        self.connection = Connection(
            ground.pool,
            defaults=_defaults_of(settings),
            observer=DEFAULT_OBSERVER,
            dependencies=loaded.dependencies,
            detection_threshold=settings.outage.detection_threshold,
        )
        self.stream = Stream()
        self._book = TokenBook([AccessToken.of(ADMIN, self.token.token)])
        self.tokens = TokenService(self.connection, self._book, ground.notebook)
        self._sessions = Sessions(self._book, ground.notebook, settings.api.session_hours)

    def configure(self, loaded: Loaded) -> None:
        """Go by another configuration from now on."""
        self.connection.defaults = _defaults_of(loaded.settings)
        self.connection.dependencies = loaded.dependencies
        self.connection.detection_threshold = loaded.settings.outage.detection_threshold

    @asynccontextmanager
    async def serve(self, live: Watchlist | None, *, running: Configuration, vitals: Vitals) -> AsyncIterator[str]:
        """The admin API, listening; gives its address. Without ``live`` it answers from what is stored."""
        settings = self._ground.settings
        api = settings.api
        await self.tokens.recall()
        await self._sessions.recall()
        app = build_app(
            self._services(live),
            book=self._book,
            live=live,
            stream=self.stream,
            running=running,
            entrance=Entrance(api, self._sessions, settings.servmon.public_url, PAGES),
            vitals=vitals,
        )
        app[LINKS] = self._ground.links
        host = api.host if api.wants_port else None
        server = await serve(app, host, api.port, api.place, troubles=self._ground.troubles)
        try:
            yield f"http://{_in_url(api.host)}:{server.port}" if api.wants_port else f"unix:{api.socket}"
        finally:
            await server.stop()

    def _services(self, live: Watchlist | None) -> Services:
        connection = self.connection
        return Services(
            connection,
            AvailabilityService(connection, live),
            OutageManagementService(connection, live, self._channel_names),
            AlertService(connection),
            self.tokens,
            AlertRuleService(connection, lambda: self._ground.settings.alert, self._channel_names),
        )

    def _channel_names(self) -> tuple[str, ...]:
        return tuple(self._ground.settings.channels)


def _defaults_of(settings: Settings) -> EndpointDefaults:
    """What stands in for fields that a new endpoint leaves out."""
    service = settings.service
    return EndpointDefaults(service.check_interval, service.check_timeout, service.check_retries)


def _in_url(host: str) -> str:
    """``host`` as a browser on this machine can use it."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
