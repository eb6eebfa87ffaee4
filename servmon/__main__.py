"""`python -m servmon` and the `servmon` command."""

from __future__ import annotations

import sys

from servmon.errors import StartError


def main() -> None:
    """Run the command line."""
    from servmon.cli import app, exit_code

    try:
        app()
    except StartError as error:
        # From an import, where an installed package brings a probe that cannot be used.
        sys.stderr.write(f"{error}\n")
        sys.exit(exit_code(sys.argv[1:]))


if __name__ == "__main__":
    main()
