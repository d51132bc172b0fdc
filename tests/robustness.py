"""docs/robustness.md: what was broken on purpose, how often, and whether it held.

make soak                   # with fewer tries: make soak SOAK=3; it records them in artifacts/soak.xml
python -m tests.robustness  # makes the page of the record
"""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE, RECORD = ROOT / "docs" / "robustness.md", ROOT / "artifacts" / "soak.xml"
GROUPS = {  # file of tests -> what its table is about
    "test_kills": "Commands that are killed",
    "test_faults": "Faults, and files that should not be trusted",
    "test_fuzz": "Damaged files and settings",
    "test_growth": "Memory",
    "test_parallel": "Several processes",
    "test_losses": "Losses",
    "test_evaluate": "Metrics",
    "test_stream": "Streams",
}
PROPERTIES = ("test_losses", "test_evaluate", "test_stream")  # of these only what is tried on many examples
COLUMNS = ("| what must hold | tries | outcome | seconds |", "|---|---|---|---|")
HEAD = """# Hard to break

Tests break a run on purpose, or try a property on many examples. A row is one test; its name says what must hold.
`tries` counts kills where a command is killed, examples where they are drawn, and else cases. This page is made of a
run of `make soak SOAK={soak}`. With 1 it tries as much as `make test`, unless told otherwise twenty times as much. What
wants a GPU is skipped without.

| held | failed | skipped |
|---|---|---|
| {held} | {failed} | {skipped} |
"""


class Case:
    """One test case of a JUnit record."""

    def __init__(self, element):
        self.group = element.get("classname").rpartition(".")[2]
        self.test, _, self.case = element.get("name").partition("[")
        self.case = self.case.removesuffix("]")
        self.seconds = float(element.get("time"))
        kinds = {child.tag for child in element}
        self.outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "held"
        properties = {one.get("name"): one.get("value") for one in element.iter("property")}
        self.soak = int(properties.get("soak", 1))
        self.tries = int(properties.get("tries", 1))
        self.counted = "tries" in properties

    @property
    def sentence(self):
        return re.sub(r"^test ", "", self.test.replace("_", " ")).replace("|", r"\|")


def cases_of(record):
    """The cases of a JUnit file that pytest wrote."""
    return [Case(element) for element in ET.parse(record).iter("testcase")]


def lines_of(cases):
    """Lines of a table, one for each test, in the order of the record."""
    tests = {}
    for case in cases:
        tests.setdefault(case.test, []).append(case)
    for found in tests.values():
        outcomes = {case.outcome for case in found}
        outcome = next(one for one in ("failed", "held", "skipped") if one in outcomes)
        tried = sum(case.tries for case in found if case.outcome != "skipped")
        yield f"| {found[0].sentence} | {tried:,} | {outcome} | {sum(case.seconds for case in found):.0f} |"


def page_of(cases):
    """The page, in Markdown."""
    parts, shown = [], []
    for group, title in GROUPS.items():
        own = [case for case in cases if case.group == group and (case.counted or group not in PROPERTIES)]
        parts += [f"## {title}\n", *COLUMNS, *lines_of(own), ""]
        shown += own
    count = {one: sum(case.outcome == one for case in shown) for one in ("held", "failed", "skipped")}
    return "\n".join([HEAD.format(soak=max(case.soak for case in cases), **count), *parts])


if __name__ == "__main__":
    PAGE.write_text(page_of(cases_of(RECORD)), encoding="utf-8")
