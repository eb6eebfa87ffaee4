"""Writes the dashboard's file anew from its source; ``make dashboards`` runs it."""

from __future__ import annotations

from pathlib import Path

from servmon.elastic.kibana.dashboard import FILE, generate

Path(__file__).with_name(FILE).write_text(generate(), encoding="utf-8")
