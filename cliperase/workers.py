"""What the server imports that an experiment's workers are forked from: the bench, out of the garbage collector's way.

What is imported lives to the end. Frozen, it is not looked through again and again, and forks share its memory.
"""

import gc

gc.disable()
from cliperase import bench  # noqa: E402, F401

gc.freeze()
gc.enable()
