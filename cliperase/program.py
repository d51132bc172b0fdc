"""What a program of this package does before and after its work: quiet libraries, one line for bad input."""

import atexit
import errno
import gc
import os
import sys
from io import TextIOWrapper

from cliperase.errors import CliperaseError, printable


def carry_out(parsed, program):
    """Run a parsed command: its exit code. Bad input is one line on standard error and 2, Ctrl-C one line and 130, a
    reader of the output that has gone is 1."""
    if isinstance(sys.stdout, TextIOWrapper):  # in a notebook it is another
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error; a terminal may lack a sign of a caption
    try:
        spare_the_collector()
        quiet_libraries()
        parsed.run(parsed)
        sys.stdout.flush()
    except KeyboardInterrupt:
        said = "interrupted; a training goes on from its last checkpoint when the same command is given again"
        print(f"{program}: {said}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # what is still to be written would fail again when Python ends
        discard_output()
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        discard_output()
        print(f"{program}: standard output is full; make room, or write to a file elsewhere", file=sys.stderr)
        return 2
    except CliperaseError as error:
        print(f"{program}: {printable(str(error))}", file=sys.stderr)  # names of files may hold line ends
        return 2
    except ModuleNotFoundError as error:  # of an extra: BLIP, diffusion
        print(f"{program}: package {error.name} is not installed; run `pip install {error.name}`", file=sys.stderr)
        return 2
    return 0


def discard_output():
    """Let what is printed from here on, at the end of Python too, go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def spare_the_collector():
    """Collect less often; skip the scan at exit.

    Libraries make a million objects that live to the end. Not looking through them saves 3 of 9 seconds of an
    evaluation of the compact CLIP on 3,000 images (three pairs, one thread).
    """
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)


def quiet_libraries():
    """An error is one line of ours, not that line below a library's log of the same; workers inherit it."""
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    import datasets

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)
