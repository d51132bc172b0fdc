"""The error messages of the library, each with a test that provokes it: docs/errors.md.

RECORD_ERRORS=1 pytest tests/test_settings.py   # any tests; writes down which messages each of them provokes
python -m tests.messages                        # makes docs/errors.md of that, of the code, and of the page as it is
"""

import ast
import json
import os
import re
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from cliperase.errors import CliperaseError

ROOT = Path(__file__).resolve().parent.parent
PAGE, RECORDS = ROOT / "docs" / "errors.md", ROOT / "artifacts" / "errors"
MAKE = "RECORD_ERRORS=1 pytest <the new tests> && python -m tests.messages"
GROUPS = {  # what a user is doing -> beginnings of the modules that then speak; the first that fits counts
    "Saying what to forget": ["data/rules", "proposal"],
    "Bringing data": ["data/"],
    "Loading, saving and converting a model": ["models/", "manifest", "api"],
    "Choosing a method and its settings": ["settings", "unlearning", "methods/__init__", "losses", "training"],
    "Unlearning": ["methods/", "loop", "checkpoints", "finite", "parallel"],
    "Measuring and comparing": ["metrics/", "comparison"],
    "Auditing": ["audit/"],
    "Calling a command, reading and writing files": [""],
}
HEAD = f"""# Error messages

Bad input ends with one line that names the problem, the value and the remedy. In Python that is a `CliperaseError`.
These are all such lines of the library. `{{…}}` stands for a value: a name, a place, or the reason that another library
gave. The last column names a test in `tests/` that provokes the message.

This page is generated. After a new message: `{MAKE}`.
"""


class Message(NamedTuple):
    """`module` below `cliperase/` without .py, `function` with its class, `text` with {…} for each value."""

    module: str
    function: str
    text: str


class Site(NamedTuple):
    """Where a message is made: a file and its lines."""

    message: Message
    file: Path
    lines: range


def template(call):
    """The text of an exception, {…} where a value stands."""
    argument = call.args[0]
    parts = argument.values if isinstance(argument, ast.JoinedStr) else [argument]
    text = "".join(part.value if isinstance(part, ast.Constant) else "{…}" for part in parts)
    return re.sub(r"(\{…\}){2,}", "{…}", text)


def kinds_of(trees):
    """The names of CliperaseError and of its subclasses."""
    found = {"CliperaseError"}
    for node in (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        found |= {node.name for base in node.bases if isinstance(base, ast.Name) and base.id == "CliperaseError"}
    return found


def sites_in(node, kinds, within=()):
    """(function, call) of every exception of these kinds that is made below a node of a syntax tree."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds:
        yield ".".join(within), node
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        within = (*within, node.name)
    for child in ast.iter_child_nodes(node):
        yield from sites_in(child, kinds, within)


def sites(package=ROOT / "cliperase"):
    """Every `Site` of a package."""
    trees = {file: ast.parse(file.read_text("utf-8")) for file in sorted(package.rglob("*.py"))}
    kinds = kinds_of(trees.values())
    return [
        Site(Message(module, function, template(call)), file, range(call.lineno, call.end_lineno + 1))
        for file, tree in trees.items()
        for module in [file.relative_to(package).with_suffix("").as_posix()]
        for function, call in sites_in(tree, kinds)
    ]


class Recorder:
    """A plugin of pytest: for each test that passes, a line with its name and the messages that it provoked and read.

    An exception knows by whom it was made, and counts when somebody asks for its text: `match=`, or the command line.
    One that is caught and passed over provokes no message.
    """

    def __init__(self, folder=RECORDS):
        self.folder, self.provoked = folder, set()
        messages = {(str(site.file), line): site.message for site in sites() for line in site.lines}

        def make(error, *args):
            frame = sys._getframe(1)
            error.made_as = messages.get((frame.f_code.co_filename, frame.f_lineno))

        def read(error):
            self.provoked.add(error.made_as)
            return Exception.__str__(error)

        CliperaseError.__init__, CliperaseError.__str__ = make, read

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        self.provoked = set()
        result = yield
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / f"{os.getpid()}.jsonl", "a") as file:
            print(json.dumps([name_of(item), sorted(self.provoked - {None})]), file=file)
        return result


def name_of(item):
    return f"{item.path.name}::{item.originalname}"


def recorded(folder=RECORDS):
    """[(test, the messages that it provoked)] of the records."""
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
    return [(test, {Message(*one) for one in found}) for test, found in map(json.loads, lines)]


@cache
def tests():
    """The names of all tests, as on the page."""
    return {
        f"{file.name}::{node.name}"
        for file in (ROOT / "tests").glob("test_*.py")
        for node in ast.parse(file.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def start_of(message):
    """The line of a message on the page, up to its test."""
    mark = "``" if "`" in message.text else "`"
    text = message.text.replace("|", r"\|")
    return f"| {mark}{text}{mark} | `{message.module}.py`, `{message.function}` | "


def tests_on(page):
    """{start of a line: its test} of a page, of tests that there are."""
    lines = re.findall(r"^(\| .* \| `.*`, `.*` \| )`(.*)` \|$", page, re.MULTILINE)
    return {start: test for start, test in lines if test in tests()}


def test_of(message, known, records):
    """The test to name: the known one, unless it ran and did not provoke the message; else the one with fewest."""
    found = sorted((len(messages), test) for test, messages in records if message in messages)
    again = {test for _, test in found}
    if known in again or (known and known not in {test for test, _ in records}):
        return known
    return found[0][1] if found else None


def group_of(message):
    return next(name for name, starts in GROUPS.items() if message.module.startswith(tuple(starts)))


def page_of(messages, known="", records=()):
    """The text of the page. `known`: its text until now; `records` as of `recorded`."""
    known, text = tests_on(known), HEAD
    for group in GROUPS:
        lines = []
        for message in sorted(one for one in set(messages) if group_of(one) == group):
            test = test_of(message, known.get(start_of(message)), records)
            lines.append(start_of(message) + (f"`{test}` |" if test else "no test |"))
        text += "\n".join([f"\n## {group}\n", "| message | raised in | test |", "|---|---|---|", *lines, ""])
    return text


def main():
    known = PAGE.read_text("utf-8") if PAGE.is_file() else ""
    PAGE.write_text(page_of([site.message for site in sites()], known, recorded()), "utf-8")
    shutil.rmtree(RECORDS, ignore_errors=True)


if __name__ == "__main__":
    main()
