"""`python -m cliperase`: the command line without its script."""

import sys

from cliperase.cli import main

sys.exit(main())
