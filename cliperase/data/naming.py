"""How columns are usually called: those of pictures, captions and classes."""

import re

IN_MEMORY = "in memory"  # the name of data that are rows in Python
PICTURES = ("image", "img", "jpg", "image_path", "file_name", "filename", "filepath", "file_path", "path")
CAPTIONS = ("captions", "caption", "text", "sentences", "title")
LABELS = ("label", "fine_label", "class", "category")
NUMBERED = r"(captions?|text|sentence)_?\d+"


def usual(names, known):
    """Those of the column `names` that are called as one of the `known` ones, in the order of `known`; case is free."""
    lower = {name.strip().lower(): name for name in names}
    return [lower[one] for one in known if one in lower]


def is_read(name):
    """Whether a column may hold captions or classes."""
    return bool(usual([name], (*CAPTIONS, *LABELS)) or re.fullmatch(NUMBERED, name.strip().lower()))
