"""`python -m servmon` and the `servmon` command."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from servmon.cli import app

    app()


if __name__ == "__main__":
    main()
