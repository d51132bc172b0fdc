"""`python -m cliperase` and the script `cliperase`: the command line."""

import sys


def main():
    """Its exit code. Who interrupts it while it is being imported, which takes a second, gets one line, too."""
    try:
        from cliperase.cli import main as command_line

        return command_line()
    except KeyboardInterrupt:
        print("cliperase: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
