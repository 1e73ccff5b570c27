"""Activations come from arrays of any library, and are the same whichever it is."""

import json
import shutil
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

from dissect_xr import store
from dissect_xr.activations import arrays
from dissect_xr.activations.arrays import blocks_of
from dissect_xr.activations.request import ModelSpec, Preprocess, Recording
from dissect_xr.activations.store import open_activations
from dissect_xr.activations.write import write_activations
from dissect_xr.dissection.method import Method
from dissect_xr.errors import DissectError
from dissect_xr.probe.ingest import open_probe

VALUES = np.random.default_rng(0).normal(size=(7, 3, 2, 5)).astype(np.float32)
NAMES = [f"image{n}" for n in range(7)]
DIMS = ("image", "unit", "y", "x")


def as_memmap(folder: Path) -> Any:
    np.save(folder / "maps.npy", VALUES)
    return np.load(folder / "maps.npy", mmap_mode="r")


def as_zarr(folder: Path) -> Any:
    array = zarr.create_array(str(folder / "maps.zarr"), shape=VALUES.shape, chunks=(2, 3, 2, 5), dtype="float32")
    array[:] = VALUES
    return array


def as_torch(_: Path) -> Any:
    torch = pytest.importorskip("torch")
    return torch.from_numpy(VALUES).requires_grad_()


KINDS = {
    "numpy": lambda _: VALUES,
    "float64": lambda _: VALUES.astype(np.float64),
    "memory map": as_memmap,
    "dask": lambda _: da.from_array(VALUES, chunks=(3, 2, 1, 5)),
    "zarr": as_zarr,
    "torch": as_torch,
    "xarray": lambda _: xr.DataArray(VALUES, dims=DIMS),
    "xarray in another order": lambda _: xr.DataArray(VALUES, dims=DIMS).transpose("y", "unit", "x", "image"),
    "xarray over dask": lambda _: xr.DataArray(da.from_array(VALUES, chunks=3), dims=DIMS).transpose("x", ...),
    "iterator": lambda _: (VALUES[start : start + 3] for start in range(0, 7, 3)),
    "list of lists": lambda _: [VALUES.astype(np.float64).tolist()],
}


@pytest.mark.parametrize("size", [arrays.BLOCK, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_same_activations_from_every_kind_of_array(
    tmp_path: Path, kind: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "BLOCK", size)
    url = tmp_path / "a.zarr"
    write_activations(url, {"conv": KINDS[kind](tmp_path)}, images=NAMES, dtype="float32", show=False)
    stored = store.read(str(url), "snapshot/conv/activation")[:]
    assert np.array_equal(stored, VALUES)


def test_bfloat16_is_exact(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    values = torch.from_numpy(VALUES).to(torch.bfloat16)
    write_activations(tmp_path / "a.zarr", {"conv": values}, images=NAMES, dtype="float32", show=False)
    assert np.array_equal(store.read(str(tmp_path / "a.zarr"), "snapshot/conv/activation")[:], values.float().numpy())


def test_dask_and_zarr_are_read_in_whole_chunks_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "BLOCK", 5 * VALUES[0].nbytes)  # five images fit: two chunks of two, not two and a half
    lazy = da.from_array(VALUES, chunks=(2, 3, 2, 5))
    assert [len(block) for block in blocks_of("conv", lazy)] == [4, 3]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (VALUES[:, :, 0, 0], r"got float32 \(7, 3\)\. For one number per unit give values\[:, :, None, None\]"),
        (VALUES[..., None], r"got float32 \(7, 3, 2, 5, 1\)"),
        (VALUES.astype(np.int32), r"expected floating-point maps \(image, unit, y, x\), got int32 \(7, 3, 2, 5\)"),
        (
            xr.DataArray(VALUES, dims=("batch", "unit", "y", "x")),
            "in any order, got batch, unit, y, x",
        ),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, values: Any, said: str) -> None:
    with pytest.raises(DissectError, match=said):
        write_activations(tmp_path / "a.zarr", {"conv": values}, images=NAMES, show=False)


def test_single_values_stand_for_pairs_and_lists() -> None:
    assert Preprocess(32) == Preprocess((32, 32)) == Preprocess([32, 32])  # type: ignore[arg-type]
    assert Preprocess(32, mean=0.5).mean == (0.5, 0.5, 0.5)  # type: ignore[arg-type]
    assert Method(0.01) == Method((0.01,)) == Method([0.01])  # type: ignore[arg-type]
    assert Recording(Preprocess(8), layers="conv1").layers == ("conv1",)  # type: ignore[arg-type]
    with pytest.raises(DissectError, match="fraction 1 is not between"):
        Method(1)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers() -> None:
    assert Preprocess(np.int64(32)) == Preprocess(np.array([32, 32])) == Preprocess((32, 32))  # type: ignore[arg-type]
    look = Preprocess(8, resize=np.int64(9), mean=np.float32(0.5), std=np.ones(3), scale=np.float32(1))  # type: ignore[arg-type]
    assert look == Preprocess((8, 8), resize=9, mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0), scale=1.0)
    json.dumps(look.parameters)
    for fractions in (np.float32(0.25), np.array([0.25]), np.array(0.25), [0.25]):
        assert Method(fractions).fractions == (0.25,)  # type: ignore[arg-type]
    assert type(Method(np.float32(0.25)).fractions[0]) is float  # type: ignore[arg-type]
    recording = Recording(Preprocess(8), batch=np.int64(4))  # type: ignore[arg-type]
    assert type(recording.batch) is int


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Preprocess("32"), "input size: expected a whole number, got '32', a text"),
        (lambda: Preprocess(32.0), r"input size: expected a whole number, got 32\.0, a float"),
        (lambda: Preprocess((32, "8")), "input size: expected a whole number, got '8', a text"),
        (lambda: Preprocess(None), "input size: expected a whole number, got None"),
        (lambda: Preprocess(32, resize="64"), "resize: expected a whole number, got '64', a text"),
        (lambda: Preprocess(32, mean="0.5"), r"mean: expected a number or a list of numbers, got '0\.5', a text"),
        (lambda: Preprocess(32, scale="1"), "scale: expected a number or a list of numbers, got '1', a text"),
        (lambda: Method(fractions="0.005"), r"fractions: expected a number or a list of numbers, got '0\.005', a text"),
        (lambda: Method(fractions=None), "fractions: expected a number or a list of numbers, got None"),
        (lambda: Recording(32, layers="c"), r"preprocess: expected .* Preprocess\(224\), got 32\."),
        (lambda: Recording(Preprocess(8), batch="4"), "batch: expected a whole number, got '4', a text"),
    ],
)
def test_what_is_no_number_is_one_error(make: Any, said: str) -> None:
    with pytest.raises(DissectError, match=said):
        make()


def test_images_may_be_paths(tmp_path: Path) -> None:
    names = ["a/1.png", "a/2.png", *NAMES[2:]]
    for n, given in enumerate(([Path(name) for name in names], np.array(names), tuple(names), xr.DataArray(names))):
        url = str(tmp_path / f"{n}.zarr")
        write_activations(url, {"conv": VALUES}, images=given, show=False)  # type: ignore[arg-type]
        assert store.read(url, "image")[:].tolist() == names
    for wrong in ("a.png", [1, 2, 3, 4, 5, 6, 7], [None] * 7):
        with pytest.raises(DissectError, match="images: expected a list of names, as in the probe, got"):
            write_activations(tmp_path / "no.zarr", {"conv": VALUES}, images=wrong, show=False)  # type: ignore[arg-type]


def test_a_class_is_a_model_and_an_object_is_told_what_to_give() -> None:
    nn = pytest.importorskip("torch").nn
    assert ModelSpec.of(nn.Identity).factory == "torch.nn.modules.linear:Identity"
    with pytest.raises(DissectError, match="Give the class or a function"):
        ModelSpec.of(object())
    assert ModelSpec.of(nn.Identity()).factory == "live Identity"  # a module is the model itself, in this process
    with pytest.raises(DissectError, match="defined inside a function"):
        ModelSpec.of(lambda: nn.Identity())


def test_stores_are_named_by_path_or_text(tmp_path: Path) -> None:
    write_activations(tmp_path / "a.zarr", {"conv": VALUES}, images=NAMES, show=False)
    with pytest.raises(DissectError, match=r"probe\.zarr: expected a complete probe"):
        open_probe(tmp_path / "probe.zarr")


@pytest.mark.parametrize("keep", ["dense", "tail"])
@pytest.mark.parametrize(
    ("scale", "offset", "said"),
    [
        (1e-9, 0, r"layer conv: its largest activation of all images is \S+e-09, but as float16"),
        (1e-4, 1, r"layer conv: as float16, most of its units lose most of their levels: in a sample, .* become"),
    ],
)
def test_values_that_float16_cannot_tell_apart_are_refused(
    tmp_path: Path, keep: Any, scale: float, offset: float, said: str
) -> None:
    url, names = tmp_path / "a.zarr", [f"image{n}" for n in range(40)]
    values = (np.random.default_rng(0).normal(size=(40, 3, 8, 8)) * scale + offset).astype(np.float32)
    with pytest.raises(DissectError, match=rf"{said}.*dtype: float32"):
        write_activations(url, {"conv": values}, images=names, keep=keep, show=False)
    assert store.marker(str(url), "snapshot/conv/done") is None
    write_activations(url, {"conv": values}, images=names, dtype="float32", show=False)
    assert np.array_equal(store.read(str(url), "snapshot/conv/activation")[:], values)


def test_values_that_are_float16_already_lose_nothing(tmp_path: Path) -> None:
    values = np.float16(1) + (VALUES > 0).astype(np.float16) * np.float16(2**-10)
    for name, given in (("a", values), ("b", np.abs(VALUES.astype(np.float16)) * np.float16(2**-20))):
        url = tmp_path / f"{name}.zarr"
        write_activations(url, {"conv": given}, images=NAMES, show=False)
        assert np.array_equal(store.read(str(url), "snapshot/conv/activation")[:], given)


def test_a_store_that_was_deleted_is_written_again(tmp_path: Path) -> None:
    url = tmp_path / "a.zarr"
    write_activations(url, {"conv": VALUES, "other": VALUES}, images=NAMES, show=False)
    with pytest.raises(DissectError, match=r"holds snapshot/conv already.*delete the store's folder"):
        write_activations(url, {"conv": VALUES}, images=NAMES, show=False)
    shutil.rmtree(url)
    write_activations(url, {"conv": VALUES + 1}, images=NAMES[::-1], dtype="float32", show=False)
    assert np.array_equal(store.read(str(url), "snapshot/conv/activation")[:], VALUES + 1)
    assert store.markers(str(url)) == {"created", "snapshot/conv/done"}
    shutil.rmtree(url / "snapshot")
    with pytest.raises(DissectError, match="holds snapshot/conv already"):  # of a part that is lost, `verify` tells
        write_activations(url, {"conv": VALUES}, images=NAMES[::-1], show=False)


@pytest.mark.parametrize("left", ["link", "folder"])
def test_what_may_be_a_disk_that_is_not_mounted_is_no_deleted_store(tmp_path: Path, left: str) -> None:
    url, elsewhere = tmp_path / "a.zarr", tmp_path / "disk" / "a.zarr"
    elsewhere.parent.mkdir()
    write_activations(url, {"conv": VALUES}, images=NAMES, show=False)
    url.rename(elsewhere)
    if left == "link":
        url.symlink_to(tmp_path / "gone" / "a.zarr")
    else:
        url.mkdir()
    assert store.drop_if_gone(str(url)) == set()
    url.unlink() if left == "link" else url.rmdir()
    elsewhere.rename(url)
    assert store.markers(str(url)) == {"created", "snapshot/conv/done"}


# --- images and units by name ---


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("keep", ["dense", "tail"])
def test_images_are_found_by_their_coordinate(tmp_path: Path, lazy: bool, keep: Any) -> None:
    maps = xr.DataArray(VALUES, dims=DIMS, coords={"image": NAMES})
    turned = maps.isel(image=[3, 0, 6, 1, 5, 2, 4]).transpose("unit", "y", "image", "x")
    found = []
    for name, values in (("plain", VALUES), ("turned", turned.chunk(image=2) if lazy else turned)):
        url = tmp_path / f"{name}.zarr"
        write_activations(url, {"conv": values}, images=NAMES, keep=keep, show=False)
        found.append(open_activations(url)["snapshot/conv"].to_dataset().drop_attrs().load())
    xr.testing.assert_identical(*found)


@pytest.mark.parametrize(
    "names", [[10, 11, 12, 13, 14, 15, 16], list(range(7)), NAMES], ids=["numbers that go on", "numbers", "names"]
)
def test_images_that_are_only_numbered_are_taken_by_position(tmp_path: Path, names: list[Any]) -> None:
    url, maps = str(tmp_path / "a.zarr"), xr.DataArray(VALUES, dims=DIMS, coords={"image": names})
    write_activations(url, {"conv": maps}, images=NAMES, dtype="float32", show=False)
    parts = iter([maps[:3], maps[3:]])
    write_activations(url, {"parts": parts}, images=NAMES, dtype="float32", show=False)
    for layer in ("conv", "parts"):
        assert np.array_equal(store.read(url, f"snapshot/{layer}/activation")[:], VALUES)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([*NAMES[:3], "other", *NAMES[4:]], "of 7, number 3 is other, of the 7 given it is image3"),
        ([6, 5, 4, 3, 2, 1, 0], "of 7, number 0 is 6, of the 7 given it is image0"),
        ([*NAMES[:6], NAMES[0]], "of 7, number 6 is image0, of the 7 given it is image6"),
    ],
)
def test_images_of_other_names_are_refused(tmp_path: Path, names: list[Any], said: str) -> None:
    maps = xr.DataArray(VALUES, dims=DIMS, coords={"image": names})
    with pytest.raises(DissectError, match=rf"layer conv: its coordinate `image` .* {said}\. .*drop_vars\('image'\)"):
        write_activations(tmp_path / "a.zarr", {"conv": maps}, images=NAMES, show=False)


def test_parts_of_an_iterator_are_in_order_or_refused(tmp_path: Path) -> None:
    maps = xr.DataArray(VALUES, dims=DIMS, coords={"image": NAMES})
    with pytest.raises(DissectError, match="of 4, number 0 is image3, of the 4 given it is image0"):
        write_activations(tmp_path / "a.zarr", {"conv": iter([maps[3:], maps[:3]])}, images=NAMES, show=False)


@pytest.mark.parametrize("units", [[2, 0, 1], ["conv/2", "conv/0", "conv/1"], [4, 5, 6]])
def test_units_of_other_numbers_are_refused(tmp_path: Path, units: list[Any]) -> None:
    maps = xr.DataArray(VALUES, dims=DIMS, coords={"unit": units})
    for values in (maps, iter([maps])):
        with pytest.raises(DissectError, match=r"layer conv: its coordinate `unit` begins with .*, but units are"):
            write_activations(tmp_path / "a.zarr", {"conv": values}, images=NAMES, show=False)
    for name, good in (("numbers", [0, 1, 2]), ("ids", ["a/0", "a/1", "a/2"]), ("words", ["sky", "tree", "sea"])):
        maps = xr.DataArray(VALUES, dims=DIMS, coords={"unit": good})
        write_activations(tmp_path / "a.zarr", {name: maps}, images=NAMES, show=False)


@pytest.mark.parametrize("lazy", [False, True])
def test_masked_values_are_refused(tmp_path: Path, lazy: bool) -> None:
    masked = np.ma.masked_array(VALUES, VALUES > 1)
    assert masked.mask.any()
    values = da.from_array(masked, chunks=3) if lazy else masked
    with pytest.raises(DissectError, match=r"layer conv: holds masked values.*values\.filled\(0\)"):
        write_activations(tmp_path / "a.zarr", {"conv": values}, images=NAMES, show=False)
    write_activations(tmp_path / "a.zarr", {"none": np.ma.masked_array(VALUES)}, images=NAMES, show=False)
