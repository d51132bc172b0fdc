"""The environment variables that the pipeline's numbers and speed depend on; `environment.mk` says why."""

import os
import re
from pathlib import Path

FILE = Path(__file__).with_name("environment.mk")
VARIABLES = dict(re.findall(r"^(\w+) \?= (\S+)$", FILE.read_text(encoding="utf-8"), flags=re.MULTILINE))


def prepare_environment():
    """Set the variables, unless the caller has set them. Call it before torch computes; workers inherit them."""
    os.environ.update(VARIABLES | os.environ)
