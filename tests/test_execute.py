"""Executed notebooks: what is normalised, so that a second run writes the same bytes, and what is folded."""

import jupytext
import pytest
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from traitlets.config import Config

from paper.notebooks import FOLDED, FOLDER, execute, normalise, of_profile


def test_a_second_run_writes_the_same_bytes(tmp_path):
    written = []
    for run in ("one", "two"):
        execute("ablation", tmp_path / f"{run}.ipynb", {"publish_to": str(tmp_path / "figures")})
        written.append((tmp_path / f"{run}.ipynb").read_bytes())
    assert written[0] == written[1]


def printed(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def test_pieces_of_a_printed_text_become_one():
    picture = new_output("display_data", {"text/plain": "figure"})
    outputs = [printed("a"), printed("b\n"), picture, printed("c"), printed("d", "stderr")]
    whole = [printed("ab\n"), picture, printed("c"), printed("d", "stderr")]
    found = [new_notebook(cells=[new_code_cell("pass", outputs=each)]) for each in (outputs, whole)]
    assert normalise(found[0]) == normalise(found[1])
    assert [output.get("text") for output in found[0].cells[0].outputs] == ["ab\n", None, "c", "d"]


def test_times_and_random_names_are_dropped():
    cell = new_code_cell("pass", metadata={"tags": ["parameters"], "papermill": {"duration": 1.0}})
    notebook = normalise(new_notebook(cells=[cell], metadata={"papermill": {"start_time": "now"}}))
    assert notebook.cells[0].id == "cell-00"
    assert notebook.cells[0].metadata == {"tags": ["parameters", FOLDED], "jupyter": {"source_hidden": True}}
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


def test_code_is_folded_and_results_are_not():
    notebook = new_notebook(cells=[new_markdown_cell("# Title"), new_code_cell("show(table)", outputs=[printed("a")])])
    config = Config({"TagRemovePreprocessor": {"remove_input_tags": [FOLDED]}})
    page, _ = HTMLExporter(config=config, embed_images=True).from_notebook_node(normalise(notebook))
    assert "show(table)" not in page.split("<body")[1]
    assert notebook.cells[0].metadata == {}
    assert notebook.cells[1].outputs


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_a_notebook_opens_with_its_verdict_and_publishes_into_its_own_folder(path):
    cells = [cell for cell in jupytext.read(path).cells if "parameters" not in cell.metadata.get("tags", [])]
    assert cells[0].source.startswith("# ")
    assert len(cells[0].source.splitlines()) == 1
    assert "open_with(" in cells[1].source
    assert f'publish_to = "figures/icons/{path.stem}"' in path.read_text()


def test_another_profile_has_results_and_folders_of_its_own():
    assert of_profile("icons", "ratios") == (FOLDER, {})
    folder, parameters = of_profile("cifar", "ratios")
    assert folder == FOLDER / "cifar"
    assert parameters == {"results": "metrics/cifar/results.csv", "publish_to": "figures/cifar/ratios"}
    _, parameters = of_profile("paper", "embedding_space")
    assert parameters["arrays"] == "metrics/paper/embedding_space.npz"
