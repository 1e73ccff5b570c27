"""The benchmarks' stores are those of the package, their counts are right, and their figures are kept."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import stores
from checkout import PIPELINES
from strategies import ProbeCase

import dissect_xr as dx
from dissect_xr import store
from dissect_xr.parallel.pool import Threads

CASE = ProbeCase(
    np.arange(32, dtype=np.uint16).reshape(2, 1, 4, 4) % 3,
    np.zeros((2, 1), np.uint16),
    np.array([1, 2], np.uint16),
    np.array([0, 1]),
    ("a", "b"),
)


@pytest.fixture(autouse=True)
def pipelines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PIPELINES))


def test_both_passes_of_a_synthetic_layer_are_timed_and_its_counts_checked(tmp_path: Path) -> None:
    from bench_dissection import make, pass_seconds
    from synthetic import Size

    size = Size(images=40, units=6, cells=5, concepts=30, planes=2, labels=16)
    seconds = pass_seconds(make(tmp_path, size), Threads(1))
    assert seconds.keys() == {"thresholds", "counts"}
    assert min(seconds.values()) > 0


def test_a_synthetic_probe_is_laid_out_as_a_probe_is(tmp_path: Path) -> None:
    from synthetic import Size, image_names, write_synthetic_probe

    write_synthetic_probe(str(tmp_path / "synthetic.zarr"), Size(images=5, units=1, cells=1, concepts=9, labels=8))
    synthetic = dx.open_probe(str(tmp_path / "synthetic.zarr"))
    real = dx.open_probe(stores.write_probe_case(CASE, tmp_path))
    layouts = [{name: (v.dims, v.dtype.kind, v.attrs) for name, v in ds.variables.items()} for ds in (synthetic, real)]
    assert layouts[0] == layouts[1]
    assert synthetic.attrs.keys() == real.attrs.keys()
    assert synthetic.attrs["names_sha256"] == store.fingerprint({"images": image_names(5)})
    assert real.attrs["names_sha256"] == store.fingerprint({"images": real["image"].values.tolist()})


def test_a_synthetic_dissection_opens_with_counts_that_can_be(tmp_path: Path) -> None:
    import bench_best

    url = str(tmp_path / "best.zarr")
    bench_best.write(url, units=30, layers=3, snapshots=2)
    ds = dx.open_dissection(url)
    assert (ds.sizes["snapshot"], ds.sizes["unit"], ds["layer"].values[-1]) == (2, 30, "layer2")
    assert (ds["intersection"] <= ds["concept_area"]).all()
    assert dx.detectors(ds).any()
    assert "step1/done" in store.markers(url)


def test_figures_are_written_into_a_file_that_is_not_there(tmp_path: Path) -> None:
    from bench_rows import writable, write_section

    file = writable(str(tmp_path / "new" / "figures.md"))
    write_section(file, "## Figures", "one\n")
    write_section(file, "## Answers", "two")
    write_section(file, "## Figures", "three")
    assert file.read_text() == "## Figures\n\nthree\n\n## Answers\n\ntwo\n"


def test_a_place_for_figures_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    from bench_rows import writable

    (tmp_path / "file").write_text("")
    with pytest.raises(argparse.ArgumentTypeError, match=r"figures\.md cannot be written"):
        writable(str(tmp_path / "file" / "figures.md"))
