"""Which code a stage of the pipeline runs: `python -m paper.code` writes a file of hashes for each thing that is run.

A stage of dvc.yaml depends on its file in `artifacts/code`, not on a list of modules that somebody has to keep. The
file has a line for every module that the entry point reaches by imports, at the top or inside of functions. A hash is
of the syntax tree without docstrings and without the hints of functions, which nothing here reads when it runs. So
words, layout and hints change nothing. Hints of a class's fields stay: pydantic and dataclasses read them.

A template of pages, or the table of the environment's variables, has a line as well, where a module names it that lies
beside it or imports from its folder. Tables of settings have none: they are parameters of dvc.yaml.

Registries are tables of strings, "module:name". Their lines are not code: a stage depends on the modules of those
methods and experiments that it uses, and a new line changes no other stage.
"""

import ast
import hashlib
import re
import shutil
from functools import cache
from pathlib import Path

from cliperase.errors import CliperaseError, end_in_one_line
from cliperase.settings import read_params

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path("artifacts/code")
PACKAGES = ("cliperase", "paper")
COMMANDS = "paper/__main__.py"
METHODS = "cliperase/methods/__init__.py"
EXPERIMENTS = "paper/experiments.py"
PROBES, AUDITING = "cliperase/audit/__init__.py", "cliperase/audit/auditing.py"
SEARCHED = ("part", "unlearn", "draws", "set_aside")  # settings of an experiment that the search for its rows reads
DRAWING = ("pipeline", "detector", "concepts", "prompt", "images", "steps", "guidance", "batch", "threshold")
FAMILIES, USUAL_FAMILY = "cliperase/models/__init__.py", "open_clip"  # another one is imported by name
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
READ = (".html", ".md", ".mk")  # files beside modules that these read
NAMED = re.compile(r'"([\w.]+)"')  # in a template, as of `{% extends "base.html" %}`
REGISTERED = re.compile(r"([a-z_][\w.]*):\w+")
MODULE = re.compile(rf"((?:{'|'.join(PACKAGES)})(?:\.\w+)+)(?::\w+)?")  # in a text, as of `set_forkserver_preload`


class Code:
    """The Python files of the repository at `root`: their hashes, and which of them each one imports."""

    def __init__(self, root=ROOT):
        self.root = Path(root)
        self.parsed, self.of_run = cache(self.parsed), cache(self.of_run)

    def parsed(self, path):
        """(hash, paths of the files that it imports or reads, {name: path} of a registry's lines) of one file."""
        if path.endswith(READ):
            return *self.read(path), {}
        tree = ast.parse((self.root / path).read_text(encoding="utf-8"))
        registry = {name: where for table in registries(tree) for name, where in table.items()}
        stripped = Bare().visit(tree)
        names = {name for node in ast.walk(stripped) for name in imported(node)}
        names.add(path.removesuffix(".py").replace("/", "."))  # its packages run before it
        files = {file for name in names for file in self.files(name, Path(path).parent)}
        said = {str(node.value) for node in ast.walk(stripped) if isinstance(node, ast.Constant)}
        files |= self.beside(said, {Path(file).parent for file in (path, *files)})
        lines = {name: self.file(module, path) for name, module in registry.items()}
        return hashlib.sha256(canonical(stripped).encode()).hexdigest()[:16], files, lines

    def files(self, module, folder):
        """The files that `import module` runs, its packages first: of our packages, or a script beside a script."""
        parts, found = module.split("."), []
        if parts[0] not in PACKAGES:
            beside = folder / f"{module}.py" if folder else None
            return [beside.as_posix()] if beside and (self.root / beside).is_file() else []
        for number in range(1, len(parts) + 1):
            stem = "/".join(parts[:number])
            found += [name for name in (f"{stem}/__init__.py", f"{stem}.py") if (self.root / name).is_file()]
        return found

    def read(self, path):
        """(hash without the comments of variables, paths of the files that it names) of one file that is no code."""
        text = (self.root / path).read_text(encoding="utf-8")
        text = re.sub(r"^(#.*)?\n", "", text, flags=re.MULTILINE) if path.endswith(".mk") else text
        return hashlib.sha256(text.encode()).hexdigest()[:16], self.beside(NAMED.findall(text), {Path(path).parent})

    def beside(self, names, folders):
        """The paths of those names that are files to be read in one of the folders."""
        paths = {folder / name for folder in folders for name in names if name.endswith(READ)}
        return {path.as_posix() for path in paths if (self.root / path).is_file()}

    def file(self, module, registry):
        found = self.files(module, None)
        if len(found) != len(module.split(".")):
            raise CliperaseError(f"{registry} names {module!r}, which is no module of {' or '.join(PACKAGES)}")
        return found[-1]

    def registered(self, path, name):
        """The file of the registry's line `name`; none where the registry imports what it names."""
        lines = self.parsed(path)[2]
        if lines and name not in lines:
            raise CliperaseError(f"{path} has no {name!r}; it has {', '.join(lines)}")
        return [lines[name]] if lines else []

    def reach(self, paths):
        """{path: hash} of these files and of all that they import."""
        found, waiting = {}, list(paths)
        while waiting:
            path = waiting.pop()
            if path in found:
                continue
            found[path], files, lines = self.parsed(path)
            waiting += files
            if path == FAMILIES:  # asked from the last line on, until one knows the model
                names = list(lines)
                waiting += [lines[name] for name in names[names.index(USUAL_FAMILY) :]] if names else []
        return dict(sorted(found.items()))

    def of_run(self, method, entry="paper/runs.py"):
        """A hash of the code that one run of an experiment reaches; the plan is not among it, its runs are."""
        own = self.registered(METHODS, method) if method in self.parsed(METHODS)[2] else []
        return hashlib.sha256(repr(self.reach(self.with_probes([entry, *own]))).encode()).hexdigest()

    def entry_points(self):
        """{name of a file of hashes: files that are run}: commands, scripts, notebooks, experiments, searches."""
        scripts = [path.relative_to(self.root).as_posix() for path in sorted((self.root / "data_prep").glob("*.py"))]
        modules = ["paper/choices.py", "paper/guidance.py", "paper/notebooks.py", "paper/readme.py"]
        points = {path: [path] for path in [*scripts, *modules]}
        points["cliperase/cli.py"] = ["cliperase/cli.py", *self.registered(METHODS, "CLIPErase")]
        for path in self.parsed(COMMANDS)[2].values():
            points[path] = self.with_probes([COMMANDS, path, *self.named(path)])
        for notebook in sorted((self.root / "notebooks").glob("*.py")):  # its own text is another dependency
            path = notebook.relative_to(self.root).as_posix()
            points[path] = ["paper/notebooks.py", *sorted(self.parsed(path)[1])]
        return points | self.experiments() | self.searches()

    def experiments(self):
        """The entry points of each profile's experiments, with the methods of their rows."""
        points = {}
        for profile in sorted((self.root / "paper/profiles").glob("*.yaml")):
            for name, section in read_params(profile).get("experiments", {}).items():
                rows = [settings.get("method", row) for row, settings in section.get("methods", {}).items()]
                points[f"experiment/{profile.stem}-{name}"] = self.command("experiment", name, rows)
        return points

    def chosen(self):
        """{entry point of an experiment that a search tuned: a line with the hash of what was chosen}."""
        lines = {}
        for path in sorted((self.root / "paper/profiles/chosen").glob("*.yaml")):
            chosen = read_params(path)
            experiments = read_params(self.root / "paper/profiles" / path.name)["experiments"]
            for name, search in ((name, section.get("tuned")) for name, section in experiments.items()):
                if search in chosen:
                    where = f"{search} in paper/profiles/chosen/{path.name}"
                    lines[f"experiment/{path.stem}-{name}"] = f"{hash_of(chosen[search])} {where}\n"
        return lines

    def searched(self):
        """{entry point of a search: a line with the hash of those settings of its experiment that it reads}."""
        lines = {}
        for path in sorted((self.root / "paper/profiles").glob("*.yaml")):
            profile = read_params(path)
            for name in profile.get("search", {}).get("experiments", {}):
                section, where = profile["experiments"][name], f"experiments.{name} in paper/profiles/{path.name}"
                lines[f"search/{path.stem}-{name}"] = f"{hash_of(read_by_search(section))} {where}\n"
        return lines

    def searches(self):
        """The entry points of each profile's searches."""
        points = {}
        for path in sorted((self.root / "paper/profiles").glob("*.yaml")):
            profile = read_params(path)
            for name in profile.get("search", {}).get("experiments", {}):
                rows = profile["experiments"][name]["methods"]
                methods = [settings.get("method", row) for row, settings in rows.items()]
                points[f"search/{path.stem}-{name}"] = self.command("tune", name, methods)
        return points

    def command(self, command, experiment, methods):
        own = [file for method in dict.fromkeys(methods) for file in self.registered(METHODS, method)]
        known = [*self.registered(COMMANDS, command), *self.registered(EXPERIMENTS, experiment)]
        return self.with_probes([COMMANDS, *known, *own])

    def named(self, path):
        """The files of the methods and experiments that a command runs: their names stand in it."""
        tree, lines = ast.parse((self.root / path).read_text()), self.parsed(METHODS)[2] | self.parsed(EXPERIMENTS)[2]
        said = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        return [file for name, file in lines.items() if name in said]

    def with_probes(self, paths):
        """These files, and where they reach an audit all of its probes, which it imports by name."""
        return [*paths, *self.parsed(PROBES)[2].values()] if AUDITING in self.reach(paths) else paths

    def write(self, folder):
        """One file for each entry point: a line `<hash> <path>` for each module that it reaches; of an experiment one
        for what a search chose for it, of a search one for what it reads of its experiment."""
        shutil.rmtree(folder, ignore_errors=True)
        settings = self.chosen() | self.searched()
        for name, paths in self.entry_points().items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [f"{value} {file}\n" for file, value in self.reach(paths).items()]
            path.write_text("".join([*lines, settings.get(name, "")]))


def hash_of(settings):
    """A hash of plain values."""
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:16]


def read_by_search(section):
    """Those settings of an experiment that the search for its rows reads: more of one that draws pictures."""
    names = SEARCHED + (DRAWING if "pipeline" in section else ())
    rows = dict.fromkeys(sorted(section["methods"]))  # their settings there are those of the runs, not of candidates
    return {"methods": rows, **{name: section[name] for name in names if name in section}}


class Bare(ast.NodeTransformer):
    """Takes out what is no code: docstrings, hints of functions and imports for them, the tables of registries."""

    def visit(self, node):
        if isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING" and not node.orelse:
            return None
        node = self.generic_visit(node)
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
        if isinstance(node, ast.Module):
            node.body = [statement for statement in node.body if registry_of(statement) is None]
        return node


def registries(tree):
    return [table for table in map(registry_of, tree.body) if table is not None]


def registry_of(statement):
    """{name: module} of a statement that is a registry, else None."""
    table = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
    if not isinstance(table, ast.Dict) or not table.values:
        return None
    values = [value.value if isinstance(value, ast.Constant) else None for value in table.values]
    found = [REGISTERED.fullmatch(value) if isinstance(value, str) else None for value in values]
    return {key.value: match[1] for key, match in zip(table.keys, found, strict=True)} if all(found) else None


def imported(node):
    """Names of the modules that one node of a syntax tree imports, or names in a text."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and (named := MODULE.fullmatch(node.value)):
        return [named[1]]
    return []


def canonical(node):
    """A syntax tree as text, the same in every version of Python that reads it."""
    if isinstance(node, list):
        return f"[{','.join(map(canonical, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, value) for name, value in ast.iter_fields(node) if value is not None and value != []]
    said = [f"{name}={canonical(value)}" for name, value in fields if name not in ("ctx", "kind", "type_comment")]
    return f"{type(node).__name__}({','.join(said)})"


if __name__ == "__main__":
    end_in_one_line(lambda: Code().write(FOLDER))
