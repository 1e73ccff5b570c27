"""The notebooks answer their questions: they run from their folder, and what is saved in them is fit to be read."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from checkout import DATA, ROOT
from nbclient import NotebookClient

FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

CELLS = 15
BYTES = 300_000

DEMO = Path(os.environ.get("DISSECT_XR_DEMO", ROOT / "demo"))
NEEDS = {
    "3_training": (DEMO / "run" / "dissection.zarr", "the demo's run; run `make demo`, or set DISSECT_XR_DEMO"),
    "5_published_networks": (DATA / "netdissect_2017", "the published tables; set DISSECT_XR_DATA"),
}

MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:tmp|home|root|work|usr|var|mnt|opt|Users|private)/|[A-Z]:\\\\")
"""What starts an absolute path on some machine; `/proc/self` is the same on all."""

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def text_of(cell: nbformat.NotebookNode) -> str:
    """Source and outputs of a cell, but its figures."""
    texts = [cell.source]
    for output in cell.get("outputs", []):
        texts += [output.get("text", "")]
        texts += [text for kind, text in output.get("data", {}).items() if kind.startswith("text/")]
    return "\n".join(texts)


def outputs_of(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_all_five_are_there() -> None:
    names = ["1_quickstart", "2_one_layer", "3_training", "4_out_of_core", "5_published_networks"]
    assert [path.stem for path in NOTEBOOKS] == names


@every_notebook
def test_it_opens_with_a_question_and_ends_with_an_answer(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    first, last = notebook.cells[0], notebook.cells[-1]
    assert len(notebook.cells) <= CELLS
    assert first.cell_type == "markdown"
    assert first.source.splitlines()[0].endswith("?")
    assert last.cell_type == "markdown"
    assert last.source.startswith("**Answer.**")


@every_notebook
def test_it_is_saved_as_it_ran(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert any("image/png" in output.get("data", {}) for output in outputs_of(notebook))
    assert not [o for o in outputs_of(notebook) if o.output_type == "error" or o.get("name") == "stderr"]


@every_notebook
def test_it_is_small_and_names_no_machine(path: Path) -> None:
    assert path.stat().st_size < BYTES
    for cell in nbformat.read(path, as_version=4).cells:
        found = MACHINE_PATH.search(text_of(cell))
        assert found is None, f"{path.name} names the path {found.group()}…" if found else ""


@pytest.mark.slow
@every_notebook
def test_it_runs_from_its_folder(path: Path) -> None:
    needed, what = NEEDS.get(path.stem, (FOLDER, ""))
    if not needed.exists():
        pytest.skip(f"NOT RUN: {path.name} needs {what}")
    before = sorted(FOLDER.iterdir())
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}})
    client.execute()
    errors = [output for output in outputs_of(notebook) if output.get("name") == "stderr"]
    assert not errors, errors
    assert sorted(FOLDER.iterdir()) == before
