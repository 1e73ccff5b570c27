"""Data that moved: the recipe's folder holds from then on, if its images are those that the probe was made from."""

import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")

import runs

from dissect_xr.probe.digits.write import write_digits
from dissect_xr.probe.ingest import open_probe
from dissect_xr.probe.root import image_root

pytestmark = pytest.mark.usefixtures("no_figures")

TWO = "model.snapshots=[{name: first, step: 0, seed: 0}, {name: second, step: 5, seed: 1}]"
ONE = "model.snapshots=[{name: first, step: 0, seed: 0}]"


@pytest.fixture
def moved(tmp_path: Path) -> tuple[list[str], Path]:
    """Arguments of a run of one snapshot, and the folder where its images are now."""
    write_digits(tmp_path / "before", images=20, size=64)
    recipe = [str(runs.write_recipe(tmp_path / "recipe")), "--quiet", "--out", str(tmp_path / "run")]
    assert runs.call("run", *recipe, "--set", f"data={tmp_path / 'before'}", "--set", ONE) == 0
    (tmp_path / "before").rename(tmp_path / "now")
    return recipe, tmp_path / "now"


def test_a_snapshot_is_added_after_the_images_moved(moved: tuple[list[str], Path]) -> None:
    recipe, now = moved
    assert runs.call("run", *recipe, "--set", f"data={now}", "--set", TWO) == 0
    probe = str(now.parent / "run" / "probe.zarr")
    assert Path(image_root(probe)) == (now / "images").resolve()
    assert runs.call("verify", str(now.parent / "run"), "--quiet") == 0


def test_another_image_is_refused_and_the_probe_stays(
    moved: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, now = moved
    first, second = (
        now / "images" / name for name in open_probe(str(now.parent / "run" / "probe.zarr"))["image"].values[:2]
    )
    shutil.copyfile(first, second)
    before = runs.contents(str(now.parent / "run" / "probe.zarr"))
    assert runs.call("run", *recipe, "--set", f"data={now}", "--set", TWO) == 2
    assert "at least one is not that which" in capsys.readouterr().err
    second.unlink()
    assert runs.call("run", *recipe, "--set", f"data={now}", "--set", TWO) == 2
    assert f"{second}: cannot be read" in capsys.readouterr().err.replace("\n", "")
    assert runs.contents(str(now.parent / "run" / "probe.zarr")) == before
