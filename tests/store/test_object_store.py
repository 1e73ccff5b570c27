"""A run whose output is a URL: the same bits as on a disk, taken up where it stopped, one writer at a time."""

import pytest

pytest.importorskip("torch")

from unittest.mock import patch

import runs

from dissect_xr.probe.digits.write import write_digits
from dissect_xr.store import objects
from dissect_xr.store.lock import locked
from dissect_xr.store.verify import verify

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module", params=runs.SIZES)
def size(request):
    """Whether all layers are small or large."""
    with runs.layers_are(request.param):
        yield request.param


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """(arguments, contents of the run on a disk)."""
    folder = tmp_path_factory.mktemp("disk")
    write_digits(folder / "digits", images=20, size=64)
    arguments = [str(runs.write_recipe(folder / "recipe")), "--set", f"data={folder / 'digits'}", "--quiet"]
    assert runs.call("run", *arguments, "--out", str(folder / "run")) == 0
    return arguments, runs.contents(str(folder / "run"))


def test_a_run_on_an_object_store_is_the_same_and_resumes(undisturbed, size, s3, capsys):
    from dissect_xr.dissection import dissect

    arguments, wanted = undisturbed
    out = f"{s3.bucket()}/some/where"
    with patch.object(dissect, "_dissect_snapshot", side_effect=KeyboardInterrupt):
        assert runs.call("run", *arguments, "--out", out) == 130
    assert objects.read(out, "lock") is None
    before = objects.sizes(out, "markers/probe.zarr/")
    assert before
    assert runs.call("run", *arguments, "--out", out) == 0
    assert runs.contents(out) == wanted
    assert objects.read(out, "recipe.yaml")
    assert verify(out)[0] == []
    for store in ("probe", "activations", "dissection"):
        assert runs.call("info", f"{out}/{store}.zarr") == 0
    assert "detectors" in capsys.readouterr().out


def test_damage_on_an_object_store_is_mended(undisturbed, size, s3):
    arguments, wanted = undisturbed
    out = f"{s3.bucket()}/run"
    assert runs.call("run", *arguments, "--out", out, "--set", "activations.keep=none") == 0
    url = f"{out}/dissection.zarr"
    key = "first/first/intersection/c.0.0.0"
    objects.write(url, key, (objects.read(url, key) or b"")[:-1])
    objects.delete(f"{out}/probe.zarr", "annotation/c.0.0.0.0")
    assert runs.call("verify", out) == 2
    assert runs.call("run", *arguments, "--out", out, "--verify") == 0
    assert verify(out)[0] == []
    assert runs.contents(out) == wanted
    content = objects.read(url, key) or b""
    objects.write(url, key, content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    objects.delete(out, "summary.json")  # what a run keeps of its results, so that it need not read them again
    assert runs.call("run", *arguments, "--out", out) == 0
    assert verify(out)[0] == []
    assert runs.contents(out) == wanted


def test_a_second_run_on_an_object_store_is_refused(undisturbed, s3, capsys):
    arguments, _ = undisturbed
    out = f"{s3.bucket()}/run"
    with locked(out, "the first"):
        assert runs.call("run", *arguments, "--out", out) == 2
    assert "the first" in capsys.readouterr().err


def test_the_built_in_probe_needs_a_local_folder(tmp_path, s3, capsys):
    recipe = runs.write_recipe(tmp_path, runs.RECIPE.replace('{kind: broden, folder: "${data}"}', "{kind: digits}"))
    assert runs.call("run", str(recipe), "--out", f"{s3.bucket()}/run") == 2
    assert "probe.folder" in capsys.readouterr().err
