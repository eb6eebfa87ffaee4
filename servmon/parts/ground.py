"""What every part stands on: Postgres, the disk beside it, the configuration that runs, and what goes wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from servmon import log
from servmon.alerts.links import Links
from servmon.api.token_file import keep_secret
from servmon.metrics import Counters
from servmon.provisioning import Provisioning
from servmon.services.connection import DEFAULT_OBSERVER
from servmon.settings import Loaded, Settings
from servmon.standing import Standing
from servmon.store.local import LocalFile
from servmon.store.notebook import Notebook
from servmon.store.pool import Pool
from servmon.store.spool import Spool
from servmon.store.writer import Writer

# What a part has run for ever, each by the name under which its troubles are shown.
Follow = Callable[[], Awaitable[None]]
Followers = Mapping[str, Follow]

LINK_KEY_FILE = "link.key"


class Ground:
    """``dsn`` leads to Postgres, ``direct_dsn`` past a pooler in between, where there is one.

    ``troubles`` holds what each follower suffers from just now.
    """

    def __init__(self, loaded: Loaded, *, dsn: str, pool: Pool) -> None:
        settings = loaded.settings
        listen_url = settings.database.listen_url
        self.dsn = dsn
        self.direct_dsn = listen_url.get_secret_value() if listen_url else dsn
        self.pool = pool
        self.counters = Counters()
        self.troubles: dict[str, str] = {}
        self.local_file = LocalFile(settings.servmon.data_dir)
        self.notebook = Notebook(self.local_file)
        self.spool = Spool(self.local_file, settings.database.spool_max_mb * 1024 * 1024)
        self.writer = Writer(dsn, self.counters, observer=DEFAULT_OBSERVER, spool=self.spool)
        self.standing = Standing(self.troubles, self.writer.put_event, settings.servmon.data_dir)
        self.provisioning = Provisioning(loaded, pool, self.standing)
        self.links = _links(settings)

    @property
    def settings(self) -> Settings:
        """The settings that run; others after a reload."""
        return self.provisioning.settings


def _links(settings: Settings) -> Links | None:
    """The maker of links in messages, where it is known how this servmon is reached."""
    section = settings.servmon
    if section.public_url is None:
        return None
    key = section.link_key
    secret = key.get_secret_value() if key else keep_secret(section.data_dir / LINK_KEY_FILE, "the key of links")
    log.hide("link key", [secret])
    return Links(section.public_url, secret)
