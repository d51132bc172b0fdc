"""What the server imports that an experiment's workers are forked from: the runs, out of the garbage collector's way.

The import takes 2.9 s of processor time, which each worker would pay. Frozen objects are not scanned, and forks share
their memory.
"""

import gc

gc.disable()
from paper import runs  # noqa: E402, F401

gc.freeze()
gc.enable()
