"""The one exception of the package, and how a program shows it."""

import sys
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError


class CliperaseError(Exception):
    """Bad input. The message names what was wrong, the value, and the remedy; the CLI prints it and exits 2."""


def reason_of(error: BaseException) -> str:
    """The first line of an exception's message, and the next where that ends in a colon, or the exception's name if
    the message is empty."""
    if isinstance(error, UnpicklingError):  # torch's own message advises to run the code
        return "its file holds more than weights, and code is not run; write the state_dict alone to a file"
    first, *others = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join([first, *others[: first.endswith(":")]]).replace("\t", "")[:200]


def printable(text: str) -> str:
    """The same text on one line: signs that are not printed are escaped."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def end_in_one_line(run: Callable[[], object]) -> None:
    """Run a script's `run()`. As in the command line, bad input prints one line on standard error and exits with 2."""
    try:
        run()
    except CliperaseError as error:
        print(f"{Path(sys.argv[0]).stem}: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
