"""What lies in a run directory and was made from something else is refused, with what it was and what it is."""

import shutil

import pytest

pytest.importorskip("torch")

import runs

from dissect_xr import schema
from dissect_xr.activations import request
from dissect_xr.activations import store as activations
from dissect_xr.activations.recording import extraction
from dissect_xr.dissection import method
from dissect_xr.dissection import store as dissection
from dissect_xr.probe import ingest
from dissect_xr.probe.digits.write import write_digits
from dissect_xr.schema import SCHEMA_VERSION

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Arguments of a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    write_digits(folder / "digits", images=20, size=64)
    recipe = [str(runs.write_recipe(folder / "recipe")), "--set", f"data={folder / 'digits'}", "--quiet"]
    arguments = [*recipe, "--out", str(folder / "run")]
    assert runs.call("run", *arguments) == 0
    return arguments, folder


CHANGES = {
    "weights": (["model.snapshots.0.seed=7"], "weights_sha256 was '"),
    "preprocessing": (["model.preprocess.mean=[0.5, 0.5, 0.5]"], "preprocess was {"),
    "crop": (["model.preprocess.resize=30"], "parameters.crop was None, is {'resize': 30, 'size': [24, 24]}"),
    "input size": (["model.input_size=20"], "preprocess was {"),
    "layers": (["layers=[first]"], "layers was {"),
    "dtype": (["activations.dtype=float32"], "dtype was 'float16', is 'float32'"),
    "images": (["probe.images.limit=19"], "images was 20, is 19"),
    "label size": (["probe.label_size=16"], "label_size was [32, 32], is [16, 16]"),
    "categories": (["probe.categories=[object]"], "categories was ["),
    "colours": (["probe.colors=true", "probe.categories=[object]"], "colors was False, is True"),
    "fractions": (["dissect.fractions=[0.02]"], "fractions was [0.01, 0.1], is [0.02]"),
    "anchoring": (["dissect.anchoring=half_pixel"], "anchoring was 'receptive_field', is 'half_pixel'"),
    "model": (["model.kwargs={width: 5}"], "kwargs was {}, is {'width': 5}"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_inputs_under_a_run_are_refused_with_the_difference(finished, change, capsys):
    arguments, folder = finished
    overrides, said = CHANGES[change]
    before = runs.contents(str(folder / "run"))
    assert runs.call("run", *arguments, *(part for one in overrides for part in ("--set", one))) == 2
    assert said in "".join(capsys.readouterr().err)
    assert runs.contents(str(folder / "run")) == before


def test_other_labels_under_the_same_names_are_refused(finished, tmp_path, capsys):
    arguments, folder = finished
    shutil.copytree(folder / "digits", tmp_path / "digits")
    index = tmp_path / "digits" / "index.csv"
    lines = index.read_text().splitlines()
    index.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    assert runs.call("run", *arguments, "--set", f"data={tmp_path / 'digits'}") == 2
    assert "rows_sha256 was '" in capsys.readouterr().err


def test_another_schema_is_refused(finished, monkeypatch, capsys):
    arguments, _ = finished
    for module in (schema, extraction, request, activations, method, dissection, ingest):
        monkeypatch.setattr(module, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    assert runs.call("run", *arguments) == 2
    assert f"schema_version was {SCHEMA_VERSION}, is {SCHEMA_VERSION + 1}" in capsys.readouterr().err
    assert runs.call("dissect", *arguments) == 2
    assert f"schema_version was {SCHEMA_VERSION}, is {SCHEMA_VERSION + 1}" in capsys.readouterr().err
