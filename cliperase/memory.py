"""Memory: what this process may have, and its peak."""

import contextlib
import os
import re
import sys
from pathlib import Path

import torch

LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # of a container, in the two versions of cgroups


def total_bytes():
    """The memory that this process may have: the machine's, or less in a container. Infinite on Windows, which tells
    neither."""
    found = [float("inf")]
    with contextlib.suppress(AttributeError, OSError, ValueError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for name in LIMITS:
        with contextlib.suppress(OSError, ValueError):  # not there, or "max"
            found.append(int(Path("/sys/fs/cgroup", name).read_text()))
    return min(found)


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
