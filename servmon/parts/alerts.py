"""The part that tells people: what they hear of outages, of planned work and of slow answers, and by which way."""

from __future__ import annotations

from servmon.alerts.alerting import Alerting
from servmon.alerts.channels import open_channels
from servmon.alerts.dispatcher import Dispatcher
from servmon.alerts.ledger import Ledger
from servmon.alerts.planning import Planning
from servmon.alerts.rule_book import RuleBook, with_rules
from servmon.alerts.settings import AlertSection
from servmon.detection.state import new_id
from servmon.parts.checks import CheckingPart
from servmon.parts.ground import Followers, Ground
from servmon.slowness import Slowness
from servmon.surroundings import Surroundings


class AlertingPart:
    """Tells of what the checking part finds out."""

    def __init__(self, ground: Ground, checking: CheckingPart) -> None:
        self._ground = ground
        settings = ground.settings
        surroundings = Surroundings(checking.monitor, checking.causes)
        dispatcher = Dispatcher(settings.alert, tuple(settings.channels), surroundings, new_id)
        self.alerting = Alerting(
            ground.dsn,
            dispatcher,
            waiting=ground.writer,
            endpoint=surroundings.endpoint,
            troubles=ground.troubles,
            ledger=Ledger(ground.notebook),
        )
        self._rules = RuleBook(ground.pool, ground.notebook)
        self._slowness = Slowness(checking.monitor, dispatcher.response_times, lambda: dispatcher.settings)
        self._planning = Planning(ground.pool, self.alerting, dispatcher, surroundings)
        self.configure()

    def configure(self) -> None:
        """Go by the settings that run, from the next round on."""
        settings = self._ground.settings
        channels = open_channels(settings.channels, settings.alert.fallback_channel, self._ground.links)
        self.alerting.configure(self._alert_settings(), channels)

    async def recall_rules(self) -> None:
        """Go by the alert rules that were stored when they were last read; Postgres may be away."""
        await self._rules.recall()
        self.alerting.go_by(self._alert_settings())

    async def refresh_rules(self) -> None:
        """Go by the alert rules that stand in Postgres."""
        if await self._rules.refresh():
            self.alerting.go_by(self._alert_settings())

    def followers(self) -> Followers:
        """What decides and sends."""
        return {
            "alerts": self.alerting.run,
            "response times": self._slowness.follow,
            "planned work": self._planning.follow,
        }

    def _alert_settings(self) -> AlertSection:
        return with_rules(self._ground.settings.alert, self._rules.stored)
