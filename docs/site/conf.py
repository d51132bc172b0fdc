"""The appendix as a site: notebooks and pages of docs/ with navigation, and the library's reference.

Sphinx's root is the repository, so that links between pages and to pictures are what they are there. Code cells of the
notebooks have the tag `hide-input` and are folded.
"""

import re
import sys
from pathlib import Path

from docutils import nodes

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
nb_render_markdown_format = "myst"  # with tables
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


def called_by_their_sections(app, doctree):
    """A figure of a notebook has no text of its own: it gets its section's title instead of its file's name."""
    for image in doctree.findall(nodes.image):
        section = image.parent
        while section and not isinstance(section, nodes.section):
            section = section.parent
        if section and "alt" not in image:
            image["alt"] = f"Figure: {section[0].astext()}"


MENDED = {  # what a reader without a mouse or without a screen lacks in the pages of Sphinx and its themes: `axe.mjs`
    'role="heading">': 'role="heading" aria-level="2">',
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="All pages">',
    '<aside class="toc-drawer">': '<aside class="toc-drawer" aria-label="This page">',
    '<summary aria-label="Toggle hidden content">': "<summary>",
    'colwidths-auto docutils container">': 'colwidths-auto docutils container" role="group" aria-label="table" '
    'tabindex="0">',
}


def mend(app, error):
    """Mend the pages that were written; one that is mended stays as it is."""
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for was, rather in MENDED.items():
            text = text.replace(was, rather)
        page.write_text(text, encoding="utf-8")


def setup(app):
    app.connect("autodoc-process-docstring", as_code)
    app.connect("doctree-read", called_by_their_sections)
    app.connect("build-finished", mend)
