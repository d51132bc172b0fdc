"""Execute a notebook: `notebooks/<name>.py` (jupytext percent script) -> `notebooks/<name>.ipynb` with outputs.

    python -m paper.notebooks main_results
    python -m paper.notebooks main_results --profile cifar

Another profile than icons has a folder of its own for its notebooks. What a notebook publishes goes into
`figures/<profile>/<name>`. papermill runs it. What differs from run to run (times, random cell ids, papermill notes) is
then normalised, so that a second run writes the same bytes. Code cells are folded, because a reader wants results; the
tag `show-input` leaves one open.
"""

import argparse
import ast
import logging
import tempfile
from pathlib import Path

import jupytext
import nbformat
import papermill

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
FOLDED = "hide-input"  # nbconvert --TagRemovePreprocessor.remove_input_tags; JupyterLab asks for `source_hidden`
SHOWN = "show-input"
LIVE = "nbval-ignore-output"  # of cells that train or show widgets: what they print differs from machine to machine
WIDGET = "application/vnd.jupyter.widget-view+json"  # of no use without the kernel that made it
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def execute(name, output, parameters):
    """Run one notebook with `parameters` and write the normalised result to `output`."""
    notebook = jupytext.read(FOLDER / f"{name}.py")
    notebook.metadata["kernelspec"] = KERNEL
    with tempfile.TemporaryDirectory() as scratch:
        source, executed = Path(scratch) / "source.ipynb", Path(scratch) / "executed.ipynb"
        nbformat.write(notebook, source)
        papermill.execute_notebook(source, executed, parameters, cwd=FOLDER, progress_bar=False, log_output=False)
        result = normalise(nbformat.read(executed, as_version=4))
    refuse_stderr(result, name)
    output.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(result, output)


def refuse_stderr(notebook, name):
    """Warnings carry paths of this machine and differ on the next: nothing on stderr may be published."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise SystemExit(f"notebooks/{name}.py prints to stderr: {output['text'].strip()[:200]}")


def normalise(notebook):
    """Drop everything that depends on when and where the notebook ran, and fold the code."""
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"
        tags = cell.metadata.get("tags", [])
        cell.metadata = {"tags": tags} if tags else {}
        if cell.cell_type == "code":
            if SHOWN not in tags:
                cell.metadata = {"jupyter": {"source_hidden": True}, "tags": [*tags, FOLDED]}
            cell.outputs = joined(without_progress(cell.outputs) if LIVE in tags else cell.outputs)
    return notebook


def without_progress(outputs):
    """Outputs without progress bars, and of widgets only what shows without a kernel."""
    for output in outputs:
        output.get("data", {}).pop(WIDGET, None)
    return [output for output in outputs if output.get("name") != "stderr"]


def joined(outputs):
    """A kernel may send what was printed in one piece or in several: neighbouring pieces become one."""
    whole = []
    for output in outputs:
        if whole and output.output_type == whole[-1].output_type == "stream" and output.name == whole[-1].name:
            whole[-1].text += output.text
        else:
            whole.append(output)
    return whole


def of_profile(profile, name):
    """(folder of the executed notebook, its parameters); the notebooks themselves name those of the icons."""
    if profile == "icons":
        return FOLDER, {}
    cells = jupytext.read(FOLDER / f"{name}.py").cells
    (usual,) = (cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    values = {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(usual).body}
    return FOLDER / profile, {key: value.replace("/icons/", f"/{profile}/") for key, value in values.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--profile", default="icons")
    parser.add_argument("--output", type=Path)
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    arguments = parser.parse_args()
    logging.getLogger("papermill").setLevel(logging.WARNING)
    folder, parameters = of_profile(arguments.profile, arguments.name)
    output = arguments.output or folder / f"{arguments.name}.ipynb"
    execute(arguments.name, output, parameters | dict(arguments.parameter))


if __name__ == "__main__":
    main()
