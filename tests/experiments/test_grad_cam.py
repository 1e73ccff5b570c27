"""Maps from gradients: for networks linear in means, they are class activation maps without what is negative."""

import numpy as np
import pytest
import torch
from located import write_drawn
from planted import CLASSES, network
from torch import nn

from dissect_xr.errors import DissectError
from dissect_xr.experiments.cam import cam, open_cam
from dissect_xr.experiments.class_labels import class_table
from dissect_xr.experiments.localisation.grad_cam import GradCam, grad_cam
from dissect_xr.experiments.localisation.gradients import gradient_maps
from dissect_xr.parallel.pool import Threads
from dissect_xr.store.verify import verify

pytest.importorskip("captum", reason="NOT RUN, NO LIBRARY captum: pip install 'dissect-xr[attribution]'")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    run, classes = write_drawn(folder)
    return run, classes, class_table(folder / "labels.csv", probe=run.probe, outputs=CLASSES), network(batch=4, size=8)


ASKED = GradCam("relu", "s")


@pytest.fixture(scope="module")
def found(stored, tmp_path_factory):
    run, _, labelled, net = stored
    url = tmp_path_factory.mktemp("cam") / "grad.zarr"
    return grad_cam(url, run, labelled, net, ASKED, pool=Threads(1), show=False).load()


def test_boxes_and_shares_are_those_of_class_activation_maps(stored, found, tmp_path):
    run, classes, _, _ = stored
    wanted = cam(tmp_path / "cam.zarr", run, classes, show=False).load()
    for name in ("image", "label", "prediction", "box", "object_box", "object_pixels", "pointed", "box_iou"):
        np.testing.assert_array_equal(found[name].values, wanted[name].values, err_msg=name)
    np.testing.assert_allclose(found["map"].values, np.maximum(wanted["map"].values, 0) / 64, rtol=1e-6)
    np.testing.assert_allclose(found["score"].values, wanted["score"].values, rtol=1e-6)
    for name in ("localisation_accuracy", "known_localisation", "pointing", "object_images"):
        np.testing.assert_array_equal(found[name].values, wanted[name].values, err_msg=name)


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_do_not_matter_and_finished_batches_are_kept(stored, found, tmp_path, workers, monkeypatch):
    run, _, labelled, net = stored
    again = grad_cam(tmp_path / "g.zarr", run, labelled, net, ASKED, pool=Threads(workers), show=False).load()
    assert again.equals(found)
    monkeypatch.setattr("dissect_xr.experiments.localisation.gradients.gradient_maps", None)
    assert grad_cam(tmp_path / "g.zarr", run, labelled, net, ASKED, show=False).load().equals(found)
    assert verify(str(tmp_path / "g.zarr"), show=False)[0] == []
    assert open_cam(tmp_path / "g.zarr").attrs["method"] == "grad-cam"


class Deep(nn.Module):
    """A layer whose maps go through more than a mean, and an activation in place behind it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.rest = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(5, 4, 3), nn.ReLU(inplace=True), nn.Flatten())
        self.head = nn.Linear(4 * 6 * 6, 3)

    def forward(self, image):
        return self.head(self.rest(self.conv(image)))


def test_maps_are_those_of_the_definition():
    model, batch, label = Deep().eval(), torch.rand(4, 3, 8, 8), [0, 2, 1, 1]
    scores, maps = gradient_maps(model, "conv", batch, label, classes=3)
    assert torch.equal(scores, model(batch))
    assert model.rest[0].inplace
    kept = {}
    handle = model.conv.register_forward_hook(lambda module, args, output: kept.setdefault("A", output).clone())
    out = model(batch)
    handle.remove()
    chosen = sum(out[n, one] for n, one in enumerate(label))
    (gradient,) = torch.autograd.grad(chosen, kept["A"])
    weight = gradient.mean((2, 3), keepdim=True)
    wanted = (weight * kept["A"]).sum(1).relu()
    torch.testing.assert_close(maps, wanted.detach())
    assert maps.shape == (4, 8, 8)
    assert not maps.requires_grad


def test_frozen_weights_have_gradients_too():
    model = Deep().eval().requires_grad_(False)
    _, maps = gradient_maps(model, "conv", torch.rand(2, 3, 8, 8), [0, 1], classes=3)
    assert float(maps.max()) > 0


def test_what_cannot_be_done_is_said(stored, tmp_path):
    run, _, labelled, net = stored
    with pytest.raises(DissectError, match="has not dissected s/head"):
        grad_cam(tmp_path / "a.zarr", run, labelled, net, GradCam("head", "s"), show=False)
    unordered = class_table(run.probe.replace("probe.zarr", "labels.csv"), probe=run.probe)
    with pytest.raises(DissectError, match="classes in the order of the network's scores"):
        grad_cam(tmp_path / "b.zarr", run, unordered, net, ASKED, show=False)
    with pytest.raises(DissectError, match=r"a share of the map's maximum in \[0, 1\), got 1.5"):
        GradCam("relu", "s", share=1.5)
