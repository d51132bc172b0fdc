"""The one exception of the package."""


class CliperaseError(Exception):
    """Bad input. The message names what was wrong, the value, and the remedy; the CLI prints it and exits 2."""
