"""Derived layers are written once, found again, sealed with their snapshot, and refused where they are not theirs."""

from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import runs
import stores
from dissected import noisy
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.activations.request import SnapshotInfo
from dissect_xr.bases import derive as module
from dissect_xr.bases import stored
from dissect_xr.bases.basis import IdentityBasis, MatrixBasis, PcaBasis, RandomBasis, Rotation2017Basis, RotationBasis
from dissect_xr.bases.derive import derive
from dissect_xr.bases.principal_axes import axes
from dissect_xr.bases.stored import matrix_sha256
from dissect_xr.dissection.dissect import dissect
from dissect_xr.dissection.layers import complete_snapshots, open_layer
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.store import objects
from dissect_xr.store.seal import sealed
from dissect_xr.store.verify import verify

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[str, str, NDArray[np.float16]]:
    """A probe, activations of two snapshots, and those of the first."""
    case, acts = noisy(images=6, units=4)
    probe = stores.write_probe_case(case, tmp_path)
    url = stores.write_layers(tmp_path, probe, {"conv": acts})
    stores.write_layers(tmp_path, probe, {"conv": acts[::-1]}, snapshot=SnapshotInfo("t", step=5))
    return url, probe, acts


def matrix(url: str, path: str) -> NDArray[np.float32]:
    """The stored matrix."""
    return np.asarray(store.read(url, f"{path}/matrix")[:])


def test_a_matrix_of_each_snapshot_is_written(recorded: Any) -> None:
    url, _, _ = recorded
    names = derive(url, "conv", [RotationBasis(0.4, 1), RandomBasis(2)], show=False)
    assert names == ["conv@rotation-0.4-s1", "conv@random-s2"]
    for snapshot in ("s", "t"):
        got = matrix(url, f"{snapshot}/{names[0]}")
        assert got.dtype == np.float32
        assert np.array_equal(got, RotationBasis(0.4, 1).linear(4).matrix.astype(np.float32))
        attrs = store.read_attrs(url, f"{snapshot}/{names[0]}")
        assert attrs["matrix_sha256"] == matrix_sha256(got, np.zeros(4, np.float32))
        assert attrs["basis"] == {"kind": "rotation", "alpha": 0.4, "seed": 1}
        assert store.read(url, f"{snapshot}/{names[0]}/unit")[:].tolist() == [f"{names[0]}/{n}" for n in range(4)]
    one = derive(url, "conv", PcaBasis(), snapshots=["t"], show=False)
    assert not store.exists(url, f"s/{one[0]}")
    assert store.exists(url, f"t/{one[0]}")


def test_principal_axes_are_those_of_the_exact_covariance(recorded: Any) -> None:
    url, _, acts = recorded
    derive(url, "conv", [PcaBasis(), PcaBasis(2, centred=False)], snapshots=["s"], pool=Threads(2), show=False)
    means = acts.astype(np.float64).mean(axis=(0, 2, 3))
    with module.one_thread():
        centred = axes(oracle.covariance(acts, True), means, rank=4, centred=True)
        raw = axes(oracle.covariance(acts, False), means, rank=2, centred=False)
    assert np.array_equal(matrix(url, "s/conv@pca"), centred.matrix.astype(np.float32))
    assert np.array_equal(store.read(url, "s/conv@pca/bias")[:], centred.bias.astype(np.float32))
    assert np.array_equal(store.read(url, "s/conv@pca/variance")[:], centred.variance)
    assert np.array_equal(matrix(url, "s/conv@pca-2-uncentred"), raw.matrix.astype(np.float32))
    maps = oracle.derived(acts, matrix(url, "s/conv@pca"), store.read(url, "s/conv@pca/bias")[:], dtype=np.float32)
    assert np.abs(maps.mean(axis=(0, 2, 3))).max() < 1e-6
    spread = maps.astype(np.float64).transpose(1, 0, 2, 3).reshape(4, -1)
    assert np.abs(np.cov(spread, bias=True) - np.diag(centred.variance)).max() < 1e-6
    assert (np.diff(centred.variance) <= 0).all()


def test_what_is_there_is_kept(recorded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url, _, _ = recorded
    bases = [IdentityBasis(), PcaBasis()]
    derive(url, "conv", bases, show=False)
    before = stores.digest(Path(url))
    monkeypatch.setattr(stored, "matrix_sha256", None)  # nothing is made again
    assert derive(url, "conv", bases, show=False) == ["conv@identity", "conv@pca"]
    assert stores.digest(Path(url)) == before


def test_another_matrix_of_the_same_name_is_refused(recorded: Any, tmp_path: Path) -> None:
    url, _, _ = recorded
    np.save(tmp_path / "m.npy", np.ones((2, 4)))
    basis = MatrixBasis(str(tmp_path / "m.npy"))
    derive(url, "conv", basis, show=False)
    np.save(tmp_path / "m.npy", np.zeros((2, 4)))
    with pytest.raises(DissectError, match=r"holds s/conv@matrix-m in another basis: file_sha256 was '.*', is '"):
        derive(url, "conv", basis, show=False)


def test_what_cannot_be_derived_is_refused(recorded: Any) -> None:
    url, probe, acts = recorded
    for layer, bases, snapshots, message in (
        ("other", IdentityBasis(), None, "expected complete activations of other; complete are conv"),
        ("conv", IdentityBasis(), ["u"], "expected complete activations of conv in u; complete are none"),
        ("conv", [RandomBasis(1), RandomBasis(1)], None, "conv@random-s1: asked for more than once"),
        ("conv", MatrixBasis("m.npy", name="m" * 190), None, "'conv@matrix-m*...': its name has 202 bytes"),
        ("conv", PcaBasis(rank=5), None, "rank 5, expected at most the layer's 4 units"),
    ):
        with pytest.raises(DissectError, match=message):
            derive(url, layer, bases, snapshots=snapshots, show=False)
    assert not [key for key in store.markers(url) if "@" in key]
    derive(url, "conv", IdentityBasis(), show=False)
    with pytest.raises(DissectError, match="complete are conv"):
        derive(url, "conv@identity", IdentityBasis(), show=False)
    stores.write_layers(Path(url).parent, probe, {"conv@random-s0": acts})
    with pytest.raises(DissectError, match="a recorded layer of s has the name conv@random-s0"):
        derive(url, "conv", RandomBasis(0), show=False)
    odd = stores.write_layers(Path(url).parent, probe, {"odd": acts[:, :3]})
    with pytest.raises(DissectError, match="even number of units, got 3"):
        derive(odd, "odd", Rotation2017Basis(), show=False)


def test_a_layer_derived_from_other_activations_is_refused(recorded: Any, tmp_path: Path) -> None:
    url, probe, acts = recorded
    derive(url, "conv", IdentityBasis(), snapshots=["s"], show=False)
    (tmp_path / "markers/activations.zarr/s/conv/done.json").unlink()
    with pytest.raises(DissectError, match="activations of s/conv@identity are not complete"):
        open_layer(url, "s", "conv@identity")
    stores.write_layers(tmp_path, probe, {"conv": acts * 2})
    with pytest.raises(DissectError, match="s/conv@identity was derived from other activations of conv"):
        complete_snapshots(url)


@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_whatever_markers_are_lost_the_same_counts_come_back(data: st.DataObject) -> None:
    case, acts = noisy(images=5, units=3)
    bases = [IdentityBasis(), RotationBasis(0.5), PcaBasis()]
    with stores.scratch() as folder, stores.tiny_chunks():
        probe = stores.write_probe_case(case, folder)
        url, out = stores.write_layers(folder, probe, {"conv": acts}), str(folder / "out.zarr")
        names = derive(url, "conv", bases, show=False)
        dissect(url, probe, out, method=stores.method([0.2]), show=False)
        before = {name: stores.stored(out, f"s/{name}") for name in names}
        kept = [key for key in store.markers(url) if "@" not in key]
        lost = data.draw(st.sets(st.sampled_from(sorted(set(store.markers(url)) - set(kept)))))
        for key in lost:
            (folder / "markers/activations.zarr" / f"{key}.json").unlink()
        stores.lose_markers(out, data)
        derive(url, "conv", bases, pool=Threads(2), show=False)
        dissect(url, probe, out, method=stores.method([0.2]), show=False)
        for name in names:
            stores.assert_same(stores.stored(out, f"s/{name}"), before[name])


# --- beside an extraction ---


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dissect_xr.probe.digits.write import write_digits

    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder, images=12, size=64)
    return folder


def test_a_snapshot_is_sealed_with_its_derived_layers(tmp_path: Path, digits: Path) -> None:
    pytest.importorskip("torch")
    recipe = str(runs.write_recipe(tmp_path / "recipe"))
    arguments = [recipe, "--set", f"data={digits}", "--quiet", "--out", str(tmp_path / "run")]
    assert runs.call("run", *arguments) == 0
    url = str(tmp_path / "run/activations.zarr")
    names = derive(url, "second", [IdentityBasis(), PcaBasis(3)], snapshots=["first"], show=False)

    def intact() -> set[str]:
        return sealed(url, objects.sizes(url), store.markers(url))

    assert intact() == {"first", "second"}
    assert verify(url, show=False)[0] == []
    done = store.marker(url, "first/done")
    assert done is not None
    assert {f"first/{name}/done" for name in names} <= set(done["depends_on"])
    derive(url, "second", RandomBasis(0), snapshots=["first"], show=False)
    assert intact() == {"first", "second"}
    # A damaged matrix costs its own marker and the snapshot's, and is made again.
    chunk = next(Path(url, "first", names[0], "matrix").glob("c*"))
    chunk.write_bytes(chunk.read_bytes()[:-1])
    assert intact() == {"second"}
    assert runs.call("run", *arguments) == 0
    assert store.marker(url, f"first/{names[0]}/done") is None
    assert store.marker(url, f"first/{names[1]}/done") is not None
    derive(url, "second", [IdentityBasis(), PcaBasis(3)], snapshots=["first"], show=False)
    assert intact() == {"first", "second"}
    assert verify(url, show=False)[0] == []
    # The metadata of the snapshot is written again beside them.
    (tmp_path / "run/markers/activations.zarr/first/created.json").unlink()
    assert runs.call("run", *arguments, "--set", "layers=[first, second]") == 0
