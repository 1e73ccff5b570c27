"""Exemplars, masks and the images behind an IoU: the same pixels as the stored counts, on small stores."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import oracle
import pytest
import stores
import xarray as xr
from dissected import Run, dissected, noisy
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from strategies import activations, anchorings, fractions, probes

from dissect_xr import store
from dissect_xr.dissection.layers import Layer
from dissect_xr.errors import DissectError
from dissect_xr.exemplars import masks
from dissect_xr.exemplars import top_images as module
from dissect_xr.exemplars.masks import Stores, mask, open_view, upsampled
from dissect_xr.exemplars.pictures import OUTLINE, around, draw, read_picture
from dissect_xr.exemplars.top_images import exemplars, images_with, iou_images, top_images
from dissect_xr.probe.folder import Folder
from dissect_xr.probe.ingest import open_probe
from dissect_xr.store import reader


@settings(max_examples=12)
@given(st.data())
def test_images_add_up_to_the_stored_counts(data: st.DataObject) -> None:
    case = data.draw(probes())
    drawn = data.draw(activations(len(case.annotation), max_units=3)).activation
    activation = np.concatenate([drawn, drawn[:, :1]], axis=1)
    anchoring = data.draw(anchorings())
    domain = data.draw(st.sampled_from(["annotated", "touched", "all"]))
    unit = data.draw(st.integers(0, activation.shape[1] - 1))
    with dissected(case, activation, data.draw(fractions())[:1], anchoring, domain) as run:
        one = run.ds.isel(snapshot=0, fraction=0, unit=unit).load()
        for number, kind in zip(case.concept.tolist(), case.concept_category.tolist(), strict=True):
            counts = iou_images(run.ds, run.stores, str(one["unit"].values), number, show=False).sum("image")
            assert counts["hit"] == one["intersection"].sel(concept=number)
            assert counts["hit"] + counts["false_alarm"] == one["unit_area"].sel(domain=case.categories[kind])
            assert counts["hit"] + counts["miss"] == one["concept_area"].sel(concept=number)


@settings(max_examples=15)
@given(st.data())
def test_masks_are_the_oracles(data: st.DataObject) -> None:
    values = data.draw(activations(1, max_units=1)).activation[0, 0]
    anchoring = data.draw(anchorings())
    size = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    level = float(np.float32(data.draw(st.sampled_from(sorted(map(float, np.unique(values)))))))
    axes = stores.axes_of(anchoring, values.shape, size)
    geometry = stores.geometry_attrs(anchoring).get("geometry")
    layer = Layer("", "", "", (1, 1, *values.shape), str(values.dtype), (1, 1), "", anchoring.input_size, geometry)
    rows, cols = layer.axes("receptive_field" if geometry else "half_pixel", size)
    expected = oracle.masks(values[None], np.array([level]), *axes)[0]
    np.testing.assert_array_equal(mask(values, level, rows, cols), expected)
    rounding = 1e-15 * np.abs(values.astype(np.float64)).max() + 1e-30  # of sums of cells that cancel
    np.testing.assert_allclose(
        upsampled(values, rows, cols), oracle.upsample(values[None], *axes)[0], rtol=1e-12, atol=rounding
    )
    with patch.object(masks, "NUMBERS", 7):
        np.testing.assert_array_equal(mask(values, level, rows, cols), expected)


def test_top_images_are_the_highest_peaks_in_the_order_of_images(tmp_path: Path) -> None:
    case, activation = noisy(images=23)
    probe = stores.write_probe_case(case, tmp_path)
    url = stores.write_layers(tmp_path, probe, {stores.LAYER: activation})
    for k in (1, 4, 50):
        with patch.object(module, "PEAKS", 4 * 5 * 6):  # six images at a time
            top = top_images(url, "s", stores.LAYER, k=k)
        assert top.sizes == {"unit": 5, "rank": min(k, 23)}
        for u in range(5):
            peaks = activation[:, u].max(axis=(1, 2))
            order = sorted(range(23), key=lambda image, peaks=peaks: (-peaks[image], image))[:k]
            assert top["image_index"].values[u].tolist() == order
            assert top["peak"].values[u].tolist() == peaks[order].tolist()
            assert top["image"].values[u].tolist() == [stores.image_names(23)[image] for image in order]
    with pytest.raises(DissectError, match="k is 0"):
        top_images(url, "s", stores.LAYER, k=0)


@pytest.mark.parametrize("rows", [1, 3, 6, 9, 100])
def test_each_chunk_of_peaks_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    case, activation = noisy(images=23)
    probe = stores.write_probe_case(case, tmp_path)
    with patch("dissect_xr.activations.write.power_of_two", lambda wanted, most: min(4, most)):  # blocks of four images
        url = stores.write_layers(tmp_path, probe, {stores.LAYER: activation})
    assert store.read(url, f"s/{stores.LAYER}/peak").chunks == (4, 5)
    wanted, read = top_images(url, "s", stores.LAYER, k=2), []

    class Noting(reader.VerifiedStore):
        async def get(self, key, *args, **given):
            read.append(key)
            return await super().get(key, *args, **given)

        def get_sync(self, key, **given):  # zarr 3.4
            read.append(key)
            return super().get_sync(key, **given)

    monkeypatch.setattr(reader, "VerifiedStore", Noting)
    monkeypatch.setattr(module, "PEAKS", 4 * 5 * rows)
    xr.testing.assert_identical(top_images(url, "s", stores.LAYER, k=2), wanted)
    chunks = sorted(key for key in read if "/peak/c." in key)
    assert chunks == [f"s/{stores.LAYER}/peak/c.{n}.0" for n in range(6)]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    case, activation = noisy()
    with dissected(case, activation, [0.05, 0.2]) as made:
        yield made


def test_exemplars_show_the_counted_mask(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    ds = run.ds.isel(snapshot=0, fraction=0)
    units = ["conv/3", "conv/0", "conv/4"]
    found = {str(one["unit"].values): one for one in exemplars(ds, run.stores, units, k=3, size=16, show=False)}
    assert list(found) == ["conv/0", "conv/3", "conv/4"]
    assert capsys.readouterr() == ("", "")
    every = {str(one["unit"].values): one for one in exemplars(ds, run.stores, units, k=7, size=16)}
    assert "exemplars" in capsys.readouterr().err
    view = open_view(ds, run.stores, "conv")
    for unit, one in found.items():
        assert one["picture"].shape == (3, 16, 16, 3)
        assert one["picture"].dtype == np.uint8
        top = top_images(run.stores.activations, "s", "conv", k=3).sel(unit=unit)
        assert one["image"].values.tolist() == top["image"].values.tolist()
        edges = (one["picture"].values == OUTLINE).all(axis=-1).any(axis=(1, 2))
        partly = (one["active"].values > 0) & (one["active"].values < 64)
        np.testing.assert_array_equal(edges, partly)
        # All seven images: their active pixels are the stored area over all images, seen in two domains that cover it.
        assert every[unit]["active"].sum() >= ds["unit_area"].sel(unit=unit).max().compute()
        assert view.thresholds[unit] == ds["threshold"].sel(unit=unit).compute()


def test_crop_shows_the_surroundings_of_the_peak(run: Run) -> None:
    ds = run.ds.isel(snapshot=0, fraction=0)
    (one,) = exemplars(ds, run.stores, ["conv/0"], k=1, size=8, crop=0.5, show=False)
    assert one["picture"].shape == (1, 8, 8, 3)
    with pytest.raises(DissectError, match="crop is 2"):
        next(exemplars(ds, run.stores, ["conv/0"], crop=2, show=False))


def test_images_with_a_concept_are_those_of_a_loop(run: Run) -> None:
    probe = open_probe(run.stores.probe)
    annotation, whole = probe["annotation"].values, probe["whole_image"].values
    for number in probe["concept"].values.tolist():
        share = [
            64 if number in whole[i] else int((annotation[i] == number).any(axis=0).sum()) for i in range(len(whole))
        ]
        order = sorted((i for i in range(len(whole)) if share[i]), key=lambda i, share=share: (-share[i], i))
        found = images_with(probe, number)
        assert found["image"].values.tolist() == probe["image"].values[order].tolist()
        assert found.values.tolist() == [share[i] / 64 for i in order]
    assert images_with(probe, "C9").identical(images_with(probe, "c9").assign_attrs(concept="C9"))
    with pytest.raises(DissectError, match="no concept 'c99'; near: c9"):
        images_with(probe, "c99")


def test_same_for_every_block_of_images(run: Run) -> None:
    ds = run.ds.isel(snapshot=0, fraction=1)
    whole = iou_images(ds, run.stores, "conv/1", "c5", show=False)
    with patch.object(module, "image_blocks", lambda view: iter([(0, 3), (3, 4), (4, 7)])):
        xr.testing.assert_identical(iou_images(ds, run.stores, "conv/1", 5, show=False), whole)


def test_errors_say_what_came(run: Run, tmp_path: Path) -> None:
    ds = run.ds.isel(snapshot=0, fraction=0)
    with pytest.raises(DissectError, match="expected one fraction, the Dataset has 2: select with"):
        iou_images(run.ds, run.stores, "conv/0", 2, show=False)
    with pytest.raises(DissectError, match="unit 'conv/9' is not among the 5 units"):
        iou_images(ds, run.stores, "conv/9", 2, show=False)
    with pytest.raises(DissectError, match="does not say which snapshot"):
        iou_images(ds.drop_vars("snapshot"), run.stores, "conv/0", 2, show=False)
    case, _ = noisy(seed=1)
    other = stores.write_probe_case(case, tmp_path)
    with pytest.raises(DissectError, match="is not the probe of this dissection"):
        iou_images(ds, Stores(run.stores.activations, other), "conv/0", 2, show=False)


def test_pictures_keep_the_images_shape_and_are_square(tmp_path: Path) -> None:
    Image.new("RGB", (40, 20), (200, 100, 0)).save(tmp_path / "wide.png")
    pixels = read_picture(Folder(str(tmp_path)), "wide.png", 16)
    assert pixels.shape == (8, 16, 3)
    active = np.zeros((4, 4), np.bool_)
    active[:, :2] = True
    drawn = draw(pixels, active, 16)
    assert (drawn[:4] == 128).all()  # grey above and below
    assert (drawn[4:12, :7] == [200, 100, 0]).all()
    assert (drawn[4:12, 7] == OUTLINE).all()
    assert (drawn[4:12, 8:] == [90, 45, 0]).all()
    assert (draw(pixels, ~active & active, 16)[4:12] == [90, 45, 0]).all()
    with pytest.raises(DissectError, match="expected an image, found no file"):
        read_picture(Folder(str(tmp_path)), "none.png", 16)


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.floats(0.05, 1),
    st.integers(0, 80),
)
def test_a_crop_is_a_square_inside_the_image_that_holds_the_peak(
    grid: tuple[int, int], shape: tuple[int, int], side: float, peak: int
) -> None:
    values = np.zeros(grid)
    values.flat[peak % values.size] = 1
    top, left, bottom, right = around(values, shape, side)
    assert min(top, left) >= 0
    assert max(bottom, right) <= 1 + 1e-12
    assert (bottom - top) * shape[0] == pytest.approx((right - left) * shape[1])
    row, col = divmod(peak % values.size, grid[1])
    assert top - 1e-12 <= (row + 0.5) / grid[0] <= bottom + 1e-12
    assert left - 1e-12 <= (col + 0.5) / grid[1] <= right + 1e-12
