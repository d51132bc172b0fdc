"""The one exception of the package, and how a program shows it."""

import sys
from pathlib import Path


class CliperaseError(Exception):
    """Bad input. The message names what was wrong, the value, and the remedy; the CLI prints it and exits 2."""


def reason_of(error):
    """The first line of what a library's exception says, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def end_in_one_line(run):
    """Run a script's `run()`: bad input is one line on standard error and status 2, as of the command line."""
    try:
        run()
    except CliperaseError as error:
        print(f"{Path(sys.argv[0]).stem}: {error}", file=sys.stderr)
        sys.exit(2)
