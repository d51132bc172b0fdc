"""What a reader finds: pages with measured numbers, short, without dead links, with commands and code that exist."""

import ast
import importlib
import re
import shlex
import subprocess
import textwrap
from pathlib import Path

import pandas as pd
import pytest
from documented import blocks_of

from cliperase.cli import parse
from cliperase.errors import CliperaseError
from cliperase.methods import METHODS, create_method
from cliperase.settings import TrainSettings
from paper import readme

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ADDING = ROOT / "tests" / "test_adding.py"


def ids(path):
    return path.name


def blocks(text, language=""):
    """The code blocks of a page in one language, dedented."""
    return [code for written_in, code in blocks_of(text) if written_in == language]


def without_gaps(code):
    """The code without empty lines: ruff formats the page, not the string in the test."""
    return re.sub(r"\n\s*\n", "\n", code)


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", readme.TEMPLATES)
def test_the_pages_are_their_templates_with_what_was_measured(page):
    assert (ROOT / page).read_text() == readme.pages()[page]


def test_a_mark_without_a_text_is_named():
    with pytest.raises(CliperaseError, match="colour"):
        readme.filled("{{claims_tested}} claims, {{colour}}")


def table_of(**runs):
    """{row: [(concept, seed, retain accuracy)]} -> a table of runs."""
    lines = [(name, *run) for name, listed in runs.items() for run in listed]
    columns = ["method", "concept", "seed", "retain_accuracy"]
    return pd.DataFrame(lines, columns=columns).set_index(columns[:3])


def test_points_are_lost_against_the_original_of_the_same_concept():
    table = table_of(original=[("a", "0", 90.0), ("b", "0", 80.0)], GA=[("a", "1", 89.0), ("b", "1", 82.0)])
    assert readme.points_lost(table, "GA").groupby("concept").mean().to_dict() == {"a": 1.0, "b": -2.0}


def test_what_clip_erase_keeps_more_is_paired_by_concept():
    ours = [(concept, seed, 90.0 + n) for n, concept in enumerate("abc") for seed in "01"]
    theirs = [(concept, seed, value - 2) for concept, seed, value in ours]
    assert readme.kept_more(table_of(CLIPErase=ours, GA=theirs), "GA") == "2.00 ± 0.00"


def test_the_readme_is_short():
    before = re.split(r"(?mi)^#+ .*reference", (ROOT / "README.md").read_text())[0]
    assert len([word for word in before.split() if re.search(r"\w", word)]) <= 900  # tables and commands, too


def test_the_readme_says_what_is_withdrawn():
    before_the_commands = (ROOT / "README.md").read_text().split("## Run it")[0]
    assert "docs/results.md#withdrawn-findings" in before_the_commands


def test_the_readmes_map_names_every_folder_and_nothing_else():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folders = {line.split("/")[0] + "/" for line in listed.splitlines() if "/" in line}
    files = {line for line in listed.splitlines() if "/" not in line}
    entries = re.findall(r"^\| (`.*?) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    named = set(re.findall(r"`([^`]+)`", " ".join(entries)))
    assert folders <= named
    assert named <= folders | files


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        if anchor and path.exists():
            assert anchor in anchors(path), target


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_are_understood(page):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in "".join(blocks(page.read_text())).splitlines():
        words = [word for word in shlex.split(line, comments=True) if word != "…"]
        if words[:1] == ["cliperase"]:
            parse(words[1:])
        elif words[:1] == ["make"]:
            assert words[1] in targets
        elif words[:1] == ["python"] and words[1] != "-m":
            assert (ROOT / words[1]).is_file(), line


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "adding.md"], ids=ids)
def test_names_that_the_examples_import_exist(page):
    for code in blocks(page.read_text(), "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert {name.name for name in node.names} <= set(dir(module))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_and_its_settings_are_documented(name):
    page = (ROOT / "docs" / "your_model.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
    settings = {f"`{key}={value}`" for key, value in vars(create_method(name, {})).items()}
    assert settings == set(re.findall(r"`\w+=[^`]*`", line))


@pytest.mark.skipif(not ADDING.is_file(), reason="tests/test_adding.py comes with the branches that write it")
def test_the_code_for_adding_is_the_code_that_is_tested():
    page, tested = (ROOT / "docs" / "adding.md").read_text(), ADDING.read_text()
    marks = re.findall(r"^<!-- code of tests/test_adding.py: (.*) -->\n(```python)?", page, re.MULTILINE)
    assert all(block for _, block in marks), "paste the code below its mark"
    for code in blocks(page, "python"):
        forms = [textwrap.indent(without_gaps(code), " " * depth) for depth in (0, 4, 8)]
        assert any(form in without_gaps(tested) for form in forms), code


@pytest.mark.parametrize("name", TrainSettings.model_fields)
def test_every_setting_of_the_loop_is_documented(name):
    pages = [(ROOT / "docs" / page).read_text() for page in ("your_model.md", "gpu.md", "shards.md")]
    refused = name in ("seed", "averaging")  # among the settings of unlearning
    assert refused != any(f"| `{name}` |" in page for page in pages)
