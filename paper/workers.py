"""What the server imports that an experiment's workers are forked from: the bench, out of the garbage collector's way.

What is imported lives to the end. Frozen, it is not looked through again and again, and forks share its memory.
"""

import gc

from paper import runs as bench  # noqa: F401

gc.disable()

gc.freeze()
gc.enable()
