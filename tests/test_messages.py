"""docs/errors.md: every message of the library, with a test that there is; and how both are found."""

import ast
import contextlib
from types import SimpleNamespace

import messages
import pytest

from cliperase.data.rules import Rule
from cliperase.errors import CliperaseError
from cliperase.files import read_json
from cliperase.settings import TrainSettings, checked

MESSAGES = [site.message for site in messages.sites()]
PAGE = messages.PAGE.read_text("utf-8")
CODE = '''
class Missing(CliperaseError):
    """A kind of its own."""


def unreadable(name, reason):
    return CliperaseError(f"{name} | cannot be read ({reason!r}); " "name another")


class Source:
    def read(self):
        if self.gone:
            raise Missing(f"{self} is gone{self.note}{self.more}; `find` it")
        raise ValueError("no message of ours")
'''


def test_the_page_lists_the_messages_of_the_code_and_no_other():
    assert messages.page_of(MESSAGES, PAGE) == PAGE, f"docs/errors.md is not of this code; run {messages.MAKE}"


def test_every_message_has_a_test():
    known = messages.tests_on(PAGE)
    without = [message for message in set(MESSAGES) if messages.start_of(message) not in known]
    assert not without, f"write a test that provokes it, then run {messages.MAKE}"


def found_in(code, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "code.py").write_text(code)
    return messages.sites(tmp_path)


def test_messages_are_found_where_they_are_made(tmp_path):
    one, other = found_in("class CliperaseError(Exception):\n    pass\n" + CODE, tmp_path)
    assert one.message == ("data/code", "unreadable", "{…} | cannot be read ({…}); name another")
    assert other.message == ("data/code", "Source.read", "{…} is gone{…}; `find` it")
    assert [line.start for line in (one.lines, other.lines)] == [9, 15]


def test_a_message_keeps_its_test_as_long_as_it_provokes_it(tmp_path):
    message, other = (site.message for site in found_in(CODE, tmp_path))
    start, tests = messages.start_of(message), sorted(messages.tests())[:3]
    assert start.startswith(r"| `{…} \| cannot be read")
    assert messages.start_of(other).startswith("| ``{…} is gone{…}; `find` it`` | `data/code.py`, `Source.read` | ")
    page = messages.page_of([message])
    assert f"{start}no test |" in page
    page = messages.page_of([message], page, [(tests[0], {message, other}), (tests[1], {message})])
    assert messages.tests_on(page) == {start: tests[1]}  # it provokes nothing else
    assert messages.page_of([message], page, [(tests[2], {message})]) == page  # the known one did not run
    ran = [(tests[1], set()), (tests[2], {message})]
    assert messages.tests_on(messages.page_of([message], page, ran)) == {start: tests[2]}
    assert messages.tests_on(page.replace(tests[1], "test_gone.py::test_gone")) == {}


def test_what_a_test_provokes_is_written_down(tmp_path, monkeypatch):
    for name in ("__init__", "__str__"):  # put back at the end
        monkeypatch.setattr(CliperaseError, name, getattr(CliperaseError, name))
    recorder = messages.Recorder(tmp_path)
    item = SimpleNamespace(path=tmp_path / "test_x.py", originalname="test_y")
    running = recorder.pytest_runtest_call(item)
    next(running)
    with pytest.raises(CliperaseError, match="holds a blank text"):
        Rule.of({"concept": " "})
    with pytest.raises(CliperaseError, match="give a whole number"):
        checked(TrainSettings, {"steps": "3"}, "training")
    with contextlib.suppress(CliperaseError):
        read_json(tmp_path / "none.json")
    with pytest.raises(StopIteration):
        running.send(None)
    ((test, provoked),) = messages.recorded(tmp_path)
    assert test == "test_x.py::test_y"
    assert {(one.module, one.function) for one in provoked} == {("data/rules", "Rule.of"), ("settings", "worded")}
    assert provoked <= set(MESSAGES)


def test_no_exception_of_ours_is_made_in_a_way_that_is_not_found():
    """By another name, such as `errors.CliperaseError`."""
    for file in sorted((messages.ROOT / "cliperase").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr != "CliperaseError", file
            if isinstance(node, ast.alias) and node.name == "CliperaseError":
                assert node.asname is None, file
