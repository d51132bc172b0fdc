"""Executed notebooks: what is normalised, so that a second run writes the same bytes, and what is folded."""

import jupytext
import pytest
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from traitlets.config import Config

from paper.notebooks import FOLDED, FOLDER, LIVE, SHOWN, WIDGET, execute, normalise, of_profile

TUTORIAL = "your_own_model"  # publishes nothing


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


def test_a_cell_that_is_to_be_read_stays_open():
    (cell,) = normalise(new_notebook(cells=[new_code_cell("unlearn()", metadata={"tags": [SHOWN]})])).cells
    assert cell.metadata == {"tags": [SHOWN]}


def test_of_a_live_cell_stays_what_shows_without_a_kernel():
    widget = new_output("display_data", {WIDGET: {"model_id": "random"}, "text/html": "<p>found</p>"})
    outputs = [printed("a"), printed("10%|#", "stderr"), printed("b"), widget]
    cells = [new_code_cell("train()", outputs=outputs, metadata={"tags": tags}) for tags in ([LIVE], [])]
    live, other = normalise(new_notebook(cells=cells)).cells
    assert [output.get("text") for output in live.outputs] == ["ab", None]
    assert live.outputs[-1].data == {"text/html": "<p>found</p>"}
    assert "stderr" in [output.get("name") for output in other.outputs]


def test_the_tutorial_takes_a_model_and_data_of_its_reader(model_folder, data_folder, tmp_path):
    settings = {"steps": 2, "learning_rate": 1e-3, "forget_batch": 4, "retain_batch": 8}
    own = {"model": str(model_folder), "data": str(data_folder), "forget": {"concept": "apple"}, "settings": settings}
    execute(TUTORIAL, tmp_path / "mine.ipynb", own | {"output": str(tmp_path / "forgotten")})
    text = (tmp_path / "mine.ipynb").read_text()
    assert "a photo of a lemon" in text
    assert "a photo of a star" not in text
    assert (tmp_path / "forgotten" / "audit" / "page.html").is_file()


@pytest.mark.parametrize(
    "path", sorted({*FOLDER.glob("*.py")} - {FOLDER / f"{TUTORIAL}.py"}), ids=lambda path: path.stem
)
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
