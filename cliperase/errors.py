"""The one exception of the package."""


class CliperaseError(Exception):
    """Bad input. The message names what was wrong, the value, and the remedy; the CLI prints it and exits 2."""


def reason_of(error):
    """The first line of what a library's exception says, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
