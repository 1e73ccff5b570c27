"""What tails of a small CNN on the photographs of CamVid take, beside all cells of the same layers.

Knows: the folder of the test data, with images, labels, the model's code and its weights.
Does not know: how fast anything is.
"""

import shutil
from pathlib import Path

import xarray as xr
from bench_rows import Row

from dissect_xr.activations.extract import extract, prepare_extraction
from dissect_xr.activations.request import Keep, ModelSpec, Preprocess, Recording, SnapshotInfo
from dissect_xr.analysis.results import open_dissection
from dissect_xr.dissection.dissect import dissect
from dissect_xr.probe.ingest import write_probe
from dissect_xr.probe.readers.broden import read_broden

LAYERS = tuple(f"layer{number}" for number in range(1, 6))


def camvid(folder: Path, data: Path) -> list[Row]:
    """The last snapshot's five layers as all cells, as tails, and as both; the counts of all three are equal."""
    home = folder / "camvid"
    shutil.rmtree(home, ignore_errors=True)
    probe, code = str(home / "probe.zarr"), data / "camvid_cnn" / "model.py"
    write_probe(read_broden(data / "camvid_broden"), probe, show=False)
    spec = ModelSpec.of(f"{code}:CamVidNet", weights=data / "camvid_cnn" / "epoch_070.pt")
    preprocess, kept, results = Preprocess((224, 224), callable=f"{code}:preprocess"), {}, {}
    ways: tuple[Keep, ...] = ("dense", "tail", "both")
    for keep in ways:
        url, out = str(home / keep / "activations.zarr"), str(home / keep / "dissection.zarr")
        recording = Recording(preprocess, LAYERS, keep=keep)
        extraction = prepare_extraction(url, probe, SnapshotInfo("last"), spec, recording)
        extract(extraction, show=False)
        dissect(url, probe, out, show=False)
        kept[keep] = sum(path.stat().st_size for path in Path(url).rglob("*") if path.is_file()) / extraction.nbytes
        results[keep] = open_dissection(out).load().drop_attrs()
    for keep in ways[1:]:
        xr.testing.assert_identical(results[keep], results["dense"])
    said = ", ".join(f"{keep} {share:.3f}" for keep, share in kept.items() if keep != "tail")
    what = "CamVid, 701 images, five layers of a small CNN: bytes of tails over raw cells"
    return [Row(what, f"{kept['tail']:.3f} ({said})", "≤ 0.12", kept["tail"] <= 0.12)]
