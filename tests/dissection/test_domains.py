"""Federated label sets and ignored pixels: every count is the oracle's, however the work is cut."""

from pathlib import Path
from typing import Any

import numpy as np
import oracle
import stores
import strategies
import xarray as xr
from federated import federated
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dissect_xr import store
from dissect_xr.analysis.results import open_dissection
from dissect_xr.analysis.scores import iou
from dissect_xr.dissection.dissect import dissect
from dissect_xr.exemplars.masks import Stores
from dissect_xr.exemplars.top_images import iou_images
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.ingest import open_probe, write_probe
from dissect_xr.probe.readers.masks import MaskFormat, read_masks


@settings(max_examples=60)
@given(st.data())
def test_counts_in_domains_without_ignored_pixels_are_the_oracles(data: st.DataObject) -> None:
    one = data.draw(federated())
    acts = data.draw(strategies.activations(len(one.case.annotation)))
    fractions, kind = data.draw(strategies.fractions()), data.draw(st.sampled_from(oracle.DOMAINS))
    cut = {"read": data.draw(st.sampled_from([1, 10_000])), "labels": data.draw(st.sampled_from([1, 10_000]))}
    small = data.draw(st.booleans())
    with stores.scratch() as folder, stores.tiny_chunks(**cut, task=10**9 if small else 400):
        probe = one.write(folder)
        activations = stores.write_layers(folder, probe, {"conv": acts.activation})
        out = str(folder / "out.zarr")
        dissect(activations, probe, out, method=stores.method(fractions, domain=kind), pool=Threads(2), show=False)
        got = stores.stored(out, "s/conv")
        wanted = stores.expected(acts.activation, one.counted, fractions, stores.HALF_PIXEL, kind, one.domains)
        stores.assert_same(got, wanted)
        assert np.array_equal(store.read(probe, "annotated")[:], one.domains.verified)
        assert np.array_equal(store.read(probe, "ignored")[:], one.ignored)
        ds = open_dissection(out)
        scores = iou(ds).isel(snapshot=0).transpose("fraction", "unit", "concept").values
        levels = wanted["threshold"]
        axes = stores.axes_of(stores.HALF_PIXEL, acts.activation.shape, one.case.annotation.shape)
        counts = oracle.count(acts.activation, levels, one.counted, *axes, one.domains)
        assert np.array_equal(scores, oracle.iou(counts, one.domains.concept_domain, kind))
        check_images(ds.isel(fraction=[0]), Stores(activations, probe))


def check_images(ds: xr.Dataset, from_stores: Stores) -> None:
    """The counts of single images add up to those of all."""
    ds = ds.isel(snapshot=0, fraction=0).load()
    unit, concept = str(ds["unit"].values[0]), int(ds["concept"].values[-1])
    found = iou_images(ds, from_stores, unit, concept, show=False)
    one = ds.sel(unit=unit, concept=concept)
    area = one["unit_area"].sel(domain=one["concept_domain"])
    assert int(found["hit"].sum()) == int(one["intersection"])
    assert int((found["hit"] + found["miss"]).sum()) == int(one["concept_area"])
    assert int((found["hit"] + found["false_alarm"]).sum()) == int(area)


def test_an_ignored_border_by_hand(tmp_path: Path) -> None:
    """A 4 x 4 mask: a square of concept 1, its border ignored (255). The unit is active everywhere."""
    mask = np.array([[0, 255, 255, 255], [0, 255, 1, 255], [0, 255, 255, 255], [0, 0, 0, 0]], np.uint8)
    for name, pixels in (("images", np.zeros((4, 4, 3), np.uint8)), ("masks", mask)):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "a.png")
    (tmp_path / "concepts.yaml").write_text("1: square")

    def counts(**options: Any) -> xr.Dataset:
        home = tmp_path / "-".join(options)
        home.mkdir()
        void = options.pop("void", ())
        found = read_masks(
            images=tmp_path / "images", masks=tmp_path / "masks", concepts=tmp_path / "concepts.yaml",
            format=MaskFormat(void=void), **options,
        )  # fmt: skip
        write_probe(found, home / "probe.zarr", show=False)
        maps = np.array([[[[1.0, 1.0], [1.0, 1.0]], [[0, 0], [0, 2]]]], np.float32)
        activations = stores.write_layers(home, str(home / "probe.zarr"), {"conv": maps})
        dissect(activations, home / "probe.zarr", home / "out.zarr", method=stores.method([0.99]), show=False)
        return open_dissection(home / "out.zarr").isel(snapshot=0, fraction=0, concept=0).load()

    void, ignore = counts(void=(255,)), counts(ignore=(255,))
    assert int(void["domain_area"][0]) == 8  # seven of no label and the square; the border is not there
    assert int(ignore["domain_area"][0]) == 16
    assert (int(void["concept_area"]), int(ignore["concept_area"])) == (1, 1)
    assert open_probe(tmp_path / "void" / "probe.zarr")["ignored"].values.sum() == 8
    assert "ignored" not in open_probe(tmp_path / "ignore" / "probe.zarr")
    # The second unit is above its threshold 0 where the lower right cell has weight: rows and columns 1 to 3.
    unit = "conv/1"
    assert int(ignore["unit_area"].sel(unit=unit)[0]) == 9
    assert int(void["unit_area"].sel(unit=unit)[0]) == 4  # of these nine the square, and three of the lowest row
    assert float(ignore["iou"].sel(unit=unit)) == 1 / 9
    assert float(void["iou"].sel(unit=unit)) == 1 / 4
