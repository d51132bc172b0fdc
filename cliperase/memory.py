"""Peak memory of this process."""

import contextlib
import re
import sys
from pathlib import Path

import torch


def reset_peak():
    """Start a new measurement of peak memory, where the system can (GPU, Linux)."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_megabytes():
    """Peak memory of this process since `reset_peak`, in MB: of the GPU where there is one, else resident memory.

    NaN on Windows, which tells neither by `/proc` nor by `resource`.
    """
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20)
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        # pyrefly: ignore[unsupported-operation] – where there is such a file, it has this line
        return round(int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024)
    try:
        import resource
    except ImportError:
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is bytes on macOS, KiB elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20)
