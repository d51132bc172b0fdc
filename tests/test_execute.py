"""Executed notebooks: what is normalised, so that a second run writes the same bytes."""

from nbformat.v4 import new_code_cell, new_notebook, new_output

from paper.notebooks import execute, normalise


def test_a_second_run_writes_the_same_bytes(tmp_path):
    written = []
    (tmp_path / "figures").mkdir()
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
    assert notebook.cells[0].metadata == {"tags": ["parameters"]}
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
