"""Which code a stage runs: every function that it can reach is in its hashes, and words and strange files are not."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from recording import recorded, recorder

from cliperase.errors import CliperaseError
from paper.code import METHODS, Bare, Code, canonical

ROOT = Path(__file__).parent.parent
FILES = sorted(path for folder in ("cliperase", "data_prep", "paper") for path in (ROOT / folder).rglob("*.py"))
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("code") / "repository"
    for name in ("cliperase", "paper", "data_prep", "notebooks", "figures", "metrics"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", folder)
    return folder


@pytest.fixture
def repository(tmp_path):
    """A small one: a command that imports in a function, a registry, a script beside a script."""
    files = {
        "cliperase/__init__.py": '"""A library."""\n',
        "cliperase/work.py": "def work():\n    return 1\n",
        "cliperase/lazy.py": "",
        "cliperase/other.py": "",
        "cliperase/methods/__init__.py": 'METHODS = {\n    "one": "cliperase.methods.one:One",\n}\nLIMIT = 3\n',
        "cliperase/methods/one.py": "from cliperase.methods.shared import helper\n",
        "cliperase/methods/shared.py": "",
        "paper/__init__.py": "",
        "paper/run.py": "import cliperase.work\ndef f():\n  from cliperase import lazy, methods\n  g('paper.server')\n",
        "paper/server.py": "",
        "data_prep/script.py": "import json\nfrom beside import draw\n",
        "data_prep/beside.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_imports_are_followed_wherever_they_stand(repository):
    code = Code(repository)
    library = ["cliperase/__init__.py", "cliperase/lazy.py", "cliperase/methods/__init__.py", "cliperase/work.py"]
    paper = ["paper/__init__.py", "paper/run.py", "paper/server.py"]
    assert list(code.reach(["paper/run.py"])) == library + paper
    assert list(code.reach(["data_prep/script.py"])) == ["data_prep/beside.py", "data_prep/script.py"]
    method = code.registered("cliperase/methods/__init__.py", "one")
    assert {"cliperase/methods/one.py", "cliperase/methods/shared.py"} <= set(code.reach(method))
    with pytest.raises(CliperaseError, match="has no 'two'; it has one"):
        code.registered("cliperase/methods/__init__.py", "two")


def changed(repository, name, old, new):
    """The files whose hash another text gives, among those that `paper/run.py` reaches with method `one`."""

    def hashes():
        code = Code(repository)
        return code.reach(["paper/run.py", *code.registered("cliperase/methods/__init__.py", "one")])

    before, path = hashes(), repository / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    after = hashes()
    return {file for file in before.keys() | after.keys() if before.get(file) != after.get(file)}


def test_a_change_is_seen_where_it_is(repository):
    assert changed(repository, "cliperase/work.py", "return 1", "return 2") == {"cliperase/work.py"}
    assert changed(repository, "cliperase/methods/__init__.py", "LIMIT = 3", "LIMIT = 4") == {METHODS}
    assert changed(repository, "paper/run.py", "lazy, ", "lazy, other, ") == {"paper/run.py", "cliperase/other.py"}


def test_words_layout_and_registered_names_change_nothing(repository):
    assert not changed(repository, "cliperase/work.py", "():\n", '():  # why\n\n    """What."""\n')
    assert not changed(repository, "cliperase/work.py", "return 1", "return (\n        1\n    )")
    assert not changed(repository, "cliperase/__init__.py", "A library", "The library")
    line = '    "two": "cliperase.methods.two:Two",\n}'
    (repository / "cliperase/methods/two.py").write_text("")
    assert not changed(repository, "cliperase/methods/__init__.py", "}", line)


def test_what_a_module_reads_beside_it_counts(repository):
    files = {
        "cliperase/pages/__init__.py": "from pathlib import Path\nFOLDER = Path(__file__).parent\n",
        "cliperase/pages/page.html": '{% extends "base.html" %}\n',
        "cliperase/pages/base.html": "<p>\n",
        "cliperase/pages/strange.html": "<p>\n",
        "cliperase/lazy.py": "from cliperase.pages import FOLDER\nsource = FOLDER / 'page.html'\n",
        "paper/server.py": "TABLE = 'variables.mk'\n",
        "paper/variables.mk": "# why\n\nKERNELS ?= avx2\n",
    }
    (repository / "cliperase/pages").mkdir()
    for name, text in files.items():
        (repository / name).write_text(text)
    for name in ("cliperase/pages/page.html", "cliperase/pages/base.html"):
        assert changed(repository, name, "\n", "</p>\n") == {name}
    assert not changed(repository, "cliperase/pages/strange.html", "\n", "</p>\n")
    assert not changed(repository, "paper/variables.mk", "# why\n", "# because\n\n")
    assert changed(repository, "paper/variables.mk", "avx2", "avx512") == {"paper/variables.mk"}


def test_hints_of_functions_change_nothing_and_those_of_fields_do(repository):
    path = repository / "cliperase/work.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "class Fields:\n    size: int = 1\n    def grow(self, by): ...\n"
        "async def work(a, /, b, *more, c=1, **named):\n    return b\n"
    )
    assert not changed(repository, "cliperase/work.py", "(self, by):", "(self, by: int) -> None:")
    hinted = "(a: int, /, b: list['T'], *more: str, c: int = 1, **named: int) -> list['T']:"
    assert not changed(repository, "cliperase/work.py", "(a, /, b, *more, c=1, **named):", hinted)
    only_for_hints = "if TYPE_CHECKING:\n    from cliperase.other import T\nasync def"
    assert not changed(repository, "cliperase/work.py", "async def", only_for_hints)
    assert changed(repository, "cliperase/work.py", "c: int = 1", "c: int = 2") == {"cliperase/work.py"}
    assert changed(repository, "cliperase/work.py", "size: int", "size: float") == {"cliperase/work.py"}


def test_a_registry_that_names_no_file_is_told(repository):
    path = repository / "cliperase/methods/__init__.py"
    path.write_text(path.read_text().replace("methods.one:", "methods.gone:"))
    with pytest.raises(CliperaseError, match=r"'cliperase\.methods\.gone', which is no module"):
        Code(repository).reach(["paper/run.py"])


def test_a_command_reaches_the_methods_and_experiments_that_it_names():
    named = Code(ROOT).named("paper/commands/audit_pages.py")
    assert set(named) == {"cliperase/methods/cliperase.py", "cliperase/methods/unseen.py", "paper/plans/audit.py"}
    assert not Code(ROOT).named("paper/commands/power.py")


NO_STAGE_READS = {"cliperase/py.typed", "cliperase/defaults.yaml"}  # defaults are for who gives no learning rate


def test_every_file_of_the_packages_is_in_a_hash_or_a_dependency():
    files = [path for name in ("cliperase", "paper", "data_prep") for path in (ROOT / name).rglob("*.*")]
    other = {path.relative_to(ROOT).as_posix() for path in files if path.suffix not in (".py", ".pyc")}
    named = {name for name in other if name in (ROOT / "dvc.yaml").read_text()}
    profiles = {name for name in other if name.startswith("paper/profiles/")}  # parameters; `chosen` are hashed
    hashed = set().union(*all_hashes(ROOT).values())
    assert other - hashed - named - profiles == NO_STAGE_READS
    assert "cliperase/pages/audit.html" in Code(ROOT).reach(["paper/commands/audit_pages.py"])
    assert "paper/environment.mk" in all_hashes(ROOT)["experiment/icons-main"]


def hash_of(tree):
    return canonical(Bare().visit(tree))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_function_counts_and_no_docstring(path):
    source = path.read_text()
    whole = hash_of(ast.parse(source))
    for number, node in enumerate(ast.walk(ast.parse(source))):
        if isinstance(node, FUNCTIONS):
            tree = ast.parse(source)
            function = next(one for place, one in enumerate(ast.walk(tree)) if place == number)
            function.body.append(ast.Pass())
            assert hash_of(tree) != whole, node.name
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Module)) and ast.get_docstring(node) is not None:
            node.body[0].value.value = "Other words."
    assert hash_of(ast.parse(ast.unparse(tree))) == whole


def all_hashes(root):
    code = Code(root)
    return {name: code.reach(paths) for name, paths in code.entry_points().items()}


def test_a_function_of_the_library_is_in_every_stage_that_runs_it_and_in_no_other(copy):
    before, path = all_hashes(copy), copy / "cliperase" / "methods" / "ssd.py"
    text = path.read_text()
    path.write_text(text.replace("def apply(self", "def unused(self):\n        return 0\n\n    def apply(self"))
    after = all_hashes(copy)
    path.write_text(text)
    stale = {name for name in before if before[name] != after[name]}
    assert stale == {name for name in before if "cliperase/methods/ssd.py" in before[name]}
    assert {"experiment/icons-main", "experiment/icons-ratios", "experiment/cifar-main", "search/icons-main"} <= stale
    assert not {"experiment/icons-ablation", "experiment/icons-diffusion", "paper/commands/pretrain.py"} & stale


def test_a_new_method_makes_no_stage_stale(copy):
    before, registry = all_hashes(copy), copy / METHODS
    (copy / "cliperase" / "methods" / "mine.py").write_text("class Mine:\n    pass\n")
    text = registry.read_text()
    registry.write_text(text.replace("METHODS = {\n", 'METHODS = {\n    "mine": "cliperase.methods.mine:Mine",\n'))
    assert registry.read_text() != text
    after = all_hashes(copy)
    registry.write_text(text)
    assert before == after
    assert Code(copy).of_run("CLIPErase") != Code(copy).of_run("SSD") != Code(copy).of_run("original")


def test_another_probe_makes_audited_runs_stale_and_no_other(copy):
    path, entries = copy / "cliperase/audit/relearning.py", ("paper/runs.py", "paper/audits.py")
    text = path.read_text()
    before = [Code(copy).of_run("CLIPErase", entry) for entry in entries]
    path.write_text(text + "\n\ndef unused():\n    return 0\n")
    after = [Code(copy).of_run("CLIPErase", entry) for entry in entries]
    path.write_text(text)
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False]


def test_the_written_files_say_what_changed(copy):
    subprocess.run([sys.executable, "-m", "paper.code"], cwd=copy, check=True)
    lines = (copy / "artifacts/code/experiment/icons-main").read_text().splitlines()
    code = [line for line in lines if "paper/profiles" not in line]
    assert dict(reversed(line.split()) for line in code) == all_hashes(copy)["experiment/icons-main"]
    (chosen,) = set(lines) - set(code)  # and what a search chose
    assert chosen.endswith("main in paper/profiles/chosen/icons.yaml")
    path = copy / "paper/profiles/chosen/icons.yaml"
    path.write_text(path.read_text().replace("strength: 1.0", "strength: 1.5"))
    assert Code(copy).chosen()["experiment/icons-main"].strip() != chosen
    assert len(list((copy / "artifacts/code").rglob("*.*"))) > 20


def test_a_search_is_stale_by_those_settings_of_its_experiment_that_it_reads(copy):
    path, name = copy / "paper/profiles/icons.yaml", "search/icons-ratios"
    before, profile = Code(copy).searched(), path.read_text()
    for old, new, stale in (
        ("originals: &originals [0, 1, 2]", "originals: &originals [0, 1]", False),
        ("fine-tune retention: {method: fine-tune}", "fine-tune retention: {method: GA}", False),
        ("unlearn: {epochs: 1.5, evaluations: 6}", "unlearn: {epochs: 2.5, evaluations: 6}", True),
        ("{percent: 3, forget_batch: 16}", "{percent: 3, forget_batch: 8}", True),
    ):
        assert old in profile
        path.write_text(profile.replace(old, new))
        after = Code(copy).searched()
        path.write_text(profile)
        assert (before[name] != after[name]) == stale, new
        assert {one for one in before if before[one] != after[one]} <= {name}


RUNS = {  # that the test of the whole pipeline does not have
    "paper/choices.py": ["-m", "paper.choices", "--experiment", "main", "--publish-to", "published"],
    "notebooks/ablation.py": ["-m", "paper.notebooks", "ablation", "-p", "publish_to", "published"],
    "cliperase/cli.py": ["-m", "cliperase.cli", "unpack", "metrics/cifar/original.safetensors", "--output", "model"],
    "paper/guidance.py": ["-m", "paper.guidance", "--help"],
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_what_runs_is_in_the_hashes(name, copy, tmp_path):
    (copy / "published").mkdir(exist_ok=True)
    done = subprocess.run([sys.executable, *RUNS[name]], cwd=copy, env=recorder(copy, tmp_path), capture_output=True)
    assert done.returncode == 0, done.stderr[-2000:].decode()
    loaded = set().union(*(modules for _, modules in recorded(tmp_path)))
    assert len(loaded) >= 3
    assert loaded <= {*Code(copy).reach(Code(copy).entry_points()[name]), name}
