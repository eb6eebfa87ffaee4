"""``servmon prometheus``: ready-made files for Prometheus and Grafana."""

from __future__ import annotations

from importlib.resources import files

import typer

app = typer.Typer(help="Files for Prometheus and Grafana.", no_args_is_help=True)


def _print(name: str) -> None:
    typer.echo((files("servmon.api") / "prometheus" / name).read_text(encoding="utf-8"), nl=False)


@app.command()
def scrape() -> None:
    """Print how Prometheus asks servmon, for prometheus.yml."""
    _print("scrape.yml")


@app.command()
def rules() -> None:
    """Print alerting rules about servmon itself and what it watches."""
    _print("rules.yml")


@app.command()
def dashboard() -> None:
    """Print a Grafana dashboard, to be imported."""
    _print("dashboard.json")
