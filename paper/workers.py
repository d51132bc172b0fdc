"""What the server imports that an experiment's workers are forked from: the runs, out of the garbage collector's way.

What is imported lives to the end. Frozen, it is not looked through again and again, and forks share its memory.
"""

import gc

gc.disable()
from paper import runs  # noqa: E402, F401

gc.freeze()
gc.enable()
