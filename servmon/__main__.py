"""`python -m servmon` and the `servmon` command."""

from __future__ import annotations

import io
import sys

from servmon.errors import StartError


def main() -> None:
    """Run the command line."""
    from servmon.cli import app, exit_code

    # A locale without a letter for what stands in a name shows it as an escape.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except StartError as error:
        # From an import, where an installed package brings a probe that cannot be used.
        sys.stderr.write(f"{error}\n")
        sys.exit(exit_code(sys.argv[1:]))


if __name__ == "__main__":
    main()
