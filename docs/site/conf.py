"""The appendix as a site: notebooks and pages of docs/ with navigation, and the library's reference.

Sphinx's root is the repository, so that links between pages and to pictures are what they are there. Code cells of the
notebooks have the tag `hide-input` and are folded.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

project = "cliperase"
project_copyright = "the cliperase authors, MIT"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
root_doc = "docs/site/index"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/*.md", "docs/site/*.md", "notebooks/**.ipynb"]
exclude_patterns = [".venv", ".git", ".dvc", "artifacts", "data", "metrics", "shared", "**.ipynb_checkpoints"]
html_theme = "furo"
html_title = "cliperase"
html_show_sourcelink = False
html_copy_source = False
html_css_files = ["site.css"]
html_static_path = [str(Path(__file__).parent / "static")]
nb_execution_mode = "off"  # they are executed by the pipeline
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure"]  # links to files of the code, which have no page


def as_code(app, kind, name, thing, options, lines):
    """`name` in a docstring is code, as it is in Markdown."""
    lines[:] = [re.sub(r"(?<![`:])`([^`]+)`(?!`)(?=(\w?))", literal, line) for line in lines]


def literal(found):
    return f"``{found[1]}``" + ("\\ " if found[2] else "")  # a letter must not follow


def setup(app):
    app.connect("autodoc-process-docstring", as_code)
