"""Pages for people, made on the server: no script, nothing from elsewhere, light and dark."""

from __future__ import annotations

from servmon.web import acknowledge

PAGES = acknowledge.ROUTES
