"""docs/robustness.md: how it is made of a record, and that its tests exist."""

import re

import robustness

RECORD = """<testsuites><testsuite>
<testcase classname="tests.test_kills" name="test_it_ends_the_same[unlearn]" time="3.4">
  <properties><property name="tries" value="20"/><property name="soak" value="20"/></properties></testcase>
<testcase classname="tests.test_kills" name="test_it_ends_the_same[audit]" time="4.4">
  <properties><property name="tries" value="20"/></properties></testcase>
<testcase classname="tests.test_faults" name="test_a_bit" time="1"><failure message="no"/></testcase>
<testcase classname="tests.test_faults" name="test_a_card" time="0"><skipped message="no GPU"/></testcase>
<testcase classname="tests.test_losses" name="test_a_formula" time="0.1"/>
<testcase classname="tests.test_losses" name="test_a_bound" time="0.6">
  <properties><property name="tries" value="600"/></properties></testcase>
</testsuite></testsuites>"""


def test_a_page_has_a_line_for_each_test_and_its_worst_outcome(tmp_path):
    (tmp_path / "soak.xml").write_text(RECORD)
    page = robustness.page_of(robustness.cases_of(tmp_path / "soak.xml"))
    assert "make soak SOAK=20" in page
    assert "| 3 | 1 | 1 |" in page
    assert "| it ends the same | 40 | held | 8 |" in page
    assert "| a bit | 1 | failed | 1 |" in page
    assert "| a card | 0 | skipped | 0 |" in page
    assert "| a bound | 600 | held | 1 |" in page
    assert "a formula" not in page


def test_the_page_names_tests_that_there_are_and_leaves_none_out():
    parts = re.split(r"^## (.*)$", robustness.PAGE.read_text("utf-8"), flags=re.MULTILINE)
    shown = dict(zip(parts[1::2], parts[2::2], strict=True))
    for group, title in robustness.GROUPS.items():
        code = (robustness.ROOT / "tests" / f"{group}.py").read_text("utf-8")
        there = {name.replace("_", " ") for name in re.findall(r"^def test_(\w+)", code, re.MULTILINE)}
        named = set(re.findall(r"^\| (.*?) \| [\d,]+ \| (?:held|failed|skipped) \|", shown[title], re.MULTILINE))
        assert named <= there, f"made of an older record; {robustness.__doc__}"
        if group not in robustness.PROPERTIES:
            assert named == there, f"made of an older record; {robustness.__doc__}"
