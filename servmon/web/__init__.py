"""Pages for people, made on the server: no script, nothing from elsewhere, light and dark."""

from __future__ import annotations

from servmon.api.routing import Pages
from servmon.web import acknowledge, entrance, outages, overview, services, windows

PAGES = Pages(
    (
        *entrance.ROUTES,
        *overview.ROUTES,
        *services.ROUTES,
        *outages.ROUTES,
        *windows.ROUTES,
        *acknowledge.ROUTES,
    ),
    entrance.in_a_browser,
)
