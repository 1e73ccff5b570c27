"""A linear classifier finds as much in a rotated layer as in the layer, and what it needs is said where it lacks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import stores
from strategies import ProbeCase

from dissect_xr import store
from dissect_xr.bases.basis import IdentityBasis, MatrixBasis, RotationBasis
from dissect_xr.bases.derive import derive
from dissect_xr.bases.linear_probe import linear_probe
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.ingest import write_probe

IMAGES = 60


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Images of three scenes, 40 to train on and 20 to test on, and six noisy units that know of the scene."""
    folder = tmp_path_factory.mktemp("scenes")
    random = np.random.default_rng(0)
    scene = np.resize([0, 1, 2], IMAGES)
    whole = np.zeros((IMAGES, 2), np.uint16)
    whole[:, 0] = np.array([4, 5, 9])[scene]
    whole[7] = 0  # of no scene
    whole[8] = 4, 5  # of two
    annotation = np.full((IMAGES, 1, 4, 4), 2, np.uint16)
    kinds = np.array([0, 1, 1, 1])
    case = ProbeCase(annotation, whole, np.array([2, 4, 5, 9], np.uint16), kinds, ("object", "scene"))
    found = stores.plan_of(case, folder / "images")
    rows = tuple(replace(row, split="val" if n >= 40 else "train") for n, row in enumerate(found.rows))
    probe = str(folder / "probe.zarr")
    write_probe(replace(found, rows=rows), probe, pool=Threads(1), show=False)
    mixed = random.normal(size=(3, 6))[scene] * 0.5
    maps = (mixed[:, :, None, None] + random.normal(size=(IMAGES, 6, 5, 5))).astype(np.float16)
    return stores.write_layers(folder, probe, {"conv": maps}), probe


def test_a_rotated_layer_tells_as_much(scenes: tuple[str, str], tmp_path: Path) -> None:
    activations, probe = scenes
    np.save(tmp_path / "nothing.npy", np.zeros((2, 6)))
    bases = [IdentityBasis(), *(RotationBasis(alpha, seed) for alpha in (0.5, 1) for seed in range(3))]
    names = derive(activations, "conv", [*bases, MatrixBasis(str(tmp_path / "nothing.npy"))], show=False)
    found = linear_probe(activations, probe, ["conv", *names], snapshot="s")
    accuracy = dict(zip(found["layer"].values.tolist(), found["accuracy"].values.tolist(), strict=True))
    assert accuracy["conv"] > 0.8
    assert {accuracy[name] for name in names[:-1]} == {accuracy["conv"]}
    assert accuracy[names[-1]] == float(found["chance"]) < 0.5, "of nothing it tells the most frequent class"
    assert found["images"].values.tolist() == [38, 20]
    assert found.attrs["classes"] == 3


def test_features_are_the_means_of_maps(scenes: tuple[str, str]) -> None:
    """Fitted here on the stored means, with the same scaling."""
    from sklearn.linear_model import LogisticRegression

    activations, probe = scenes
    features = store.read(activations, "s/conv/mean")[:].astype(np.float64)
    whole = store.read(probe, "whole_image")[:]
    kept = np.array([n for n in range(IMAGES) if n not in (7, 8)])
    train, test = kept[kept < 40], kept[kept >= 40]
    features /= np.sqrt((features[train] ** 2).sum(axis=1).mean())
    fitted = LogisticRegression(C=0.1, max_iter=10_000, tol=1e-8).fit(features[train], whole[train, 0])
    wanted = fitted.score(features[test], whole[test, 0])
    found = linear_probe(activations, probe, ["conv"], snapshot="s", C=0.1)
    assert found["accuracy"].values.tolist() == [wanted]


def test_what_it_lacks_is_said(scenes: tuple[str, str], tmp_path: Path) -> None:
    activations, probe = scenes
    with pytest.raises(DissectError, match="has no category 'part', but object, scene"):
        linear_probe(activations, probe, ["conv"], snapshot="s", category="part")
    with pytest.raises(DissectError, match=r"split 'test' has 0 images .* Splits are train, val"):
        linear_probe(activations, probe, ["conv"], snapshot="s", test="test")
    with pytest.raises(DissectError, match="split 'train' has 0 images with one label of category 'object'"):
        linear_probe(activations, probe, ["conv"], snapshot="s", category="object")
    with pytest.raises(DissectError, match="activations of s/other are not complete"):
        linear_probe(activations, probe, ["other"], snapshot="s")
