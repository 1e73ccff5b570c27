"""Activations are those of one forward pass per image, stored whole or not at all; made elsewhere, they are checked."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import stores
import torch
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from strategies import SEEDS, activations
from torch import nn

from dissect_xr import schema, store
from dissect_xr.activations import extract as extraction
from dissect_xr.activations.extract import extract, prepare_extraction
from dissect_xr.activations.layouts.positions import Positions
from dissect_xr.activations.recording import batches, block
from dissect_xr.activations.recording.block import extract_block
from dissect_xr.activations.recording.threads import torch_threads
from dissect_xr.activations.request import ModelSpec, Preprocess, Recording, SnapshotInfo
from dissect_xr.activations.sources import load_model
from dissect_xr.activations.store import open_activations
from dissect_xr.activations.write import summarise, write_activations
from dissect_xr.errors import DissectError
from dissect_xr.floats import means
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.ingest import write_probe
from dissect_xr.probe.label_set import Concept, LabelSet, Row

IMAGES = 40
SIZE = (12, 10)
LAYERS = ("first", "second")


class Net(nn.Module):
    """Two layers in whole numbers, which every batch size computes alike; `second` has 70 units.

    An image whose first pixel has red 255 is scaled up by `burst`.
    """

    def __init__(self, burst: float | str = 1.0, units: int = 70) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 3, stride=2)
        self.second = nn.Conv2d(5, units, 2)
        self.burst = float(burst)
        self.head = nn.Flatten()
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randint(-2, 3, parameter.shape))

    def forward(self, x):
        scale = torch.where(x[:, :1, :1, :1] >= 255, self.burst, 1.0)
        return self.head(self.second(self.first(x) * scale))


class OneChannel(nn.Module):
    """Takes grey images only."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3)

    def forward(self, x):
        return self.first(x)


def grey(batch: np.ndarray) -> torch.Tensor:
    """A `Preprocess.callable`: green alone."""
    return torch.tensor(batch[..., 1:2]).permute(0, 3, 1, 2).to(torch.float32)


POSITIONS_OF = Positions.of

PREPROCESS = Preprocess(SIZE, scale=1.0)
RECORDING = Recording(PREPROCESS, LAYERS, batch=8, device="cpu", threads=1)
SPEC = ModelSpec.of(f"{__name__}:Net")


def probe_in(folder):
    """A probe of 40 images without labels; only the 23rd starts with a red of 255."""
    random = np.random.default_rng(0)
    rows = []
    for image in range(IMAGES):
        pixels = random.integers(0, 100, (*SIZE, 3), np.uint8)
        pixels[0, 0, 0] = 255 if image == 22 else 0
        Image.fromarray(pixels).save(folder / f"{image}.png")
        rows.append(Row(f"{image}.png", "all", (), (), None, "here"))
    label_set = LabelSet(
        str(folder), str(folder), tuple(rows), (Concept(1, "c", "object"),), ("object",), (), stores.read_npy, (4, 4)
    )
    url = str(folder / "probe.zarr")
    write_probe(label_set, url, pool=Threads(1), show=False)
    return url


def run(url, probe, *, spec=SPEC, recording=RECORDING, snapshot="s", pool=None):
    extraction = prepare_extraction(url, probe, SnapshotInfo(snapshot, 3, {"loss": 0.5}), spec, recording)
    extract(extraction, pool=pool or Threads(1), show=False)
    return extraction


def by_torch(probe, model=None):
    """Layer -> activations of all images, by torch alone."""
    folder = Path(probe).parent
    pixels = np.stack([np.asarray(Image.open(folder / f"{image}.png")) for image in range(IMAGES)])
    model, kept = model or load_model(SPEC), {}
    for layer in LAYERS:
        model.get_submodule(layer).register_forward_hook(lambda _m, _i, out, layer=layer: kept.update({layer: out}))
    with torch.inference_mode():
        model(torch.tensor(pixels).permute(0, 3, 1, 2).to(torch.float32))
    return {layer: out.numpy() for layer, out in kept.items()}


def forwards():
    """Counts forward passes of recordings: the images of each."""
    counts, original = [], batches.forward

    def counted(model, batch, *rest):
        counts.append(len(batch))
        return original(model, batch, *rest)

    return counts, patch.object(batches, "forward", counted)


def recorded(url, layer, snapshot="s", name="activation"):
    return store.read(url, f"{snapshot}/{layer}/{name}")[:]


def assert_recorded(url, wanted, *, dtype="float16", snapshot="s"):
    for layer, values in wanted.items():
        stored = recorded(url, layer, snapshot)
        assert stored.dtype == dtype
        np.testing.assert_array_equal(stored, values.astype(dtype))
        assert_summaries(url, f"{snapshot}/{layer}", stored)


def assert_summaries(url, path, stored):
    """`peak` and `mean` are those of the values as stored."""
    flat = stored.reshape(*stored.shape[:2], -1)
    layer = open_activations(url)[path].dataset
    peak, mean = layer["peak"].values, layer["mean"].values
    assert peak.dtype == stored.dtype
    np.testing.assert_array_equal(peak, flat.max(axis=2))
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, flat.astype(np.float64).mean(axis=2), rtol=2e-7, atol=1e-30)


# --- recorded from a model ---


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("batch", [1, 8, 100])
def test_what_is_recorded_is_what_torch_computes(url, probe, dtype, batch):
    run(url, probe, recording=replace(RECORDING, dtype=dtype, batch=batch))
    assert_recorded(url, by_torch(probe), dtype=dtype)


def test_autocast_computes_in_its_dtype_and_is_recorded(url, probe):
    """Sums of products of pixels up to 255 do not all fit the 8 bits of bfloat16's significand."""
    run(url, probe, recording=replace(RECORDING, dtype="float32", autocast="bfloat16"))
    found = recorded(url, "first")
    exact = by_torch(probe)["first"]
    assert not np.array_equal(found, exact)
    np.testing.assert_array_equal(found, torch.tensor(exact).to(torch.bfloat16).to(torch.float32).numpy())
    assert store.read_attrs(url, "s")["inputs"]["autocast"] == "bfloat16"


def test_one_forward_pass_serves_all_layers_of_an_image(url, probe):
    counts, spy = forwards()
    with spy:
        run(url, probe)
        assert counts == [8, 8, 8, 8, 8]
        run(url, probe)
        assert len(counts) == 5, "a second run computed something"


def test_batches_end_where_blocks_end(url, probe):
    counts, spy = forwards()
    with spy:
        run(url, probe, recording=replace(RECORDING, batch=12))
    assert counts == [12, 4, 12, 4, 8]


def test_only_the_block_that_is_missing_is_done_again(url, probe):
    run(url, probe)
    before = stores.digest(Path(url))
    counts, spy = forwards()
    (Path(url).parent / "markers/activations.zarr/s/blocks/16-32.json").unlink()
    with spy:
        run(url, probe)
    assert counts == [8, 8]
    assert stores.digest(Path(url)) == before


class Interrupted(BaseException):
    """What a killed run looks like from inside."""


def test_an_interrupted_recording_is_taken_up(url, probe):
    def dies(task):
        if task.start == 16:
            raise Interrupted
        extract_block(task)

    with patch("dissect_xr.activations.extract.extract_block", dies), pytest.raises(Interrupted):
        run(url, probe)
    assert not open_activations(url).children
    kept = store.markers(url, "s/blocks")
    assert "s/blocks/0-16" in kept
    counts, spy = forwards()
    with spy:
        run(url, probe)
    assert sum(counts) == (24 if len(kept) == 1 else 16)
    assert_recorded(url, by_torch(probe))


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_markers_are_lost_the_same_activations_come_back(probe, data):
    with stores.scratch() as folder:
        url = str(folder / "activations.zarr")
        run(url, probe)
        before = stores.digest(Path(url))
        lost = stores.lose_markers(url, data)
        run(url, probe)
        assert store.markers(url) >= lost
        assert stores.digest(Path(url)) == before


def test_blocks_and_shards_are_powers_of_two_that_divide_each_other(url, probe):
    with stores.tiny_chunks(chunk=4000, shard=9000, units=32):
        extraction = run(url, probe, recording=replace(RECORDING, memory=16_000))
    assert {layer.block for layer in extraction.layers} == {8}
    for layer in extraction.layers:
        array = store.read(url, f"s/{layer.name}/activation")
        shards = array.shards or array.chunks
        assert extraction.layers[0].block % shards[0] == 0
        assert shards[0] % array.chunks[0] == 0
        assert shards[1] % array.chunks[1] == 0
        assert shards[1] >= array.shape[1]
    assert store.read(url, "s/second/activation").chunks[1] == 32
    assert_recorded(url, by_torch(probe))


def test_recording_on_processes_gives_the_same_bits(url, probe, processes, tmp_path):
    run(url, probe)
    other = str(tmp_path / "other" / "activations.zarr")
    run(other, probe, pool=processes)
    assert stores.digest(Path(other)) == stores.digest(Path(url))


def test_the_model_and_torch_are_left_as_they_were(url, probe):
    model, threads = block.cached(SPEC, "cpu").model, torch.get_num_threads()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run(url, probe)
    assert all((model.state_dict()[name] == tensor).all() for name, tensor in state.items())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("leaves_last", ["the first", "the second"])
def test_tasks_that_overlap_leave_the_number_of_torch_threads_as_it_was(leaves_last):
    """Torch keeps a number per thread, and one for threads to come."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    tasks = [torch_threads(1), torch_threads(2)]
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other, ThreadPoolExecutor(1) as new:
        threads = [one, other]
        for thread, task in zip(threads, tasks, strict=True):
            thread.submit(task.__enter__).result()
        assert [thread.submit(torch.get_num_threads).result() for thread in threads] == [1, 2]
        last = 0 if leaves_last == "the first" else 1
        threads[1 - last].submit(tasks[1 - last].__exit__, None, None, None).result()
        assert threads[last].submit(torch.get_num_threads).result() == last + 1, "it is still running"
        threads[last].submit(tasks[last].__exit__, None, None, None).result()
        found = [thread.submit(torch.get_num_threads).result() for thread in (one, other, new)]
        here = torch.get_num_threads()
        torch.set_num_threads(before)
    assert [here, *found] == [3, 3, 3, 3]


def test_a_task_without_a_number_of_torch_threads_takes_the_one_before_all_tasks():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    with ThreadPoolExecutor(1) as other:
        first, second = torch_threads(1), torch_threads(None)
        other.submit(first.__enter__).result()
        with second:
            here = torch.get_num_threads()
        other.submit(first.__exit__, None, None, None).result()
        torch.set_num_threads(before)
    assert here == 3


def test_what_made_them_is_recorded(url, probe):
    run(url, probe)
    snapshot, attrs = store.read_attrs(url, "s"), store.read_attrs(url, "s/second")
    assert (snapshot["step"], snapshot["metrics"]) == (3, {"loss": 0.5})
    assert store.marker(url, "s/done")["note"]["layers"][1] == "second"
    assert attrs["images_sha256"] == store.read_attrs(probe)["images_sha256"]
    assert attrs["input_size"] == list(SIZE)
    assert attrs["geometry"]["y"] == {"jump": "2", "start": "5/2", "receptive_field": "5"}
    inputs = store.read_attrs(url, "s")["inputs"]
    assert inputs["preprocess"]["size"] == list(SIZE)
    assert len(inputs["weights_sha256"]) == 64
    text = (Path(url) / "s" / "zarr.json").read_text() + (Path(url) / "s/second/zarr.json").read_text()
    assert str(Path(url).parent) not in text, "a machine's path is stored"


def test_a_layer_without_geometry_says_why(url, probe):
    run(url, probe, spec=ModelSpec.of(f"{__name__}:Flipped"), recording=replace(RECORDING, layers=("conv",)))
    attrs = store.read_attrs(url, "s/conv")
    assert attrs["geometry"] is None
    assert attrs["geometry_reason"]


def test_a_layer_whose_geometry_was_measured_says_so(url, probe):
    """The image is rolled by 2 columns, for which there is no rule."""
    run(url, probe, spec=ModelSpec.of(f"{__name__}:Rolled"), recording=replace(RECORDING, layers=("conv",)))
    attrs = store.read_attrs(url, "s/conv")
    assert attrs["geometry"]["y"] == {"jump": "1", "start": "3/2", "receptive_field": "3"}
    assert attrs["geometry"]["x"] == {"jump": "1", "start": "-1/2", "receptive_field": "3"}
    assert attrs["geometry_reason"] is None
    assert attrs["geometry_measured"] == {"at": "conv", "residual": {"y": 0.0, "x": 0.0}}
    assert "geometry_measured" not in store.read_attrs(url, "s")["inputs"], "a residual may differ between machines"


def test_geometry_is_measured_once_for_all_weights_of_a_model(url, probe):
    recording = replace(RECORDING, layers=("conv",))
    with patch.object(extraction, "_KNOWN_PLACES", {}), patch.object(Positions, "of", autospec=True) as found:
        found.side_effect = POSITIONS_OF
        for seed in (0, 1):
            spec = ModelSpec.of(f"{__name__}:Rolled", seed=seed)
            run(url, probe, spec=spec, recording=recording, snapshot=f"seed {seed}")
    assert found.call_count == 1
    assert store.read_attrs(url, "seed 0/conv")["geometry"] == store.read_attrs(url, "seed 1/conv")["geometry"]


class Rolled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, x):
        return self.conv(x.roll(2, 3))


class Flipped(nn.Module):
    """Looks at the image mirrored, depending on its values: no geometry."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, x):
        return self.conv(x if x.mean() < 0 else x.flip(3))


# --- values that cannot be stored ---


@pytest.mark.parametrize("batch", [8, 3])
@pytest.mark.parametrize("burst", [1e4, -1e4])
def test_overflow_names_layer_image_value_and_advice(url, probe, burst, batch):
    spec = ModelSpec.of(f"{__name__}:Net", {"burst": burst})
    with pytest.raises(
        DissectError, match=r"layer (first|second), image 22\.png: activation -?inf as float16.*float32"
    ):
        run(url, probe, spec=spec, recording=replace(RECORDING, batch=batch))
    assert not store.markers(url, "s/second")
    assert store.markers(url, "s/blocks") <= {"s/blocks/0-16", "s/blocks/32-40"}
    single = replace(RECORDING, dtype="float32", batch=batch)
    run(url.replace("activations", "single"), probe, spec=spec, recording=single)


def test_nan_names_layer_and_image_and_never_becomes_a_zero(url, probe):
    spec = ModelSpec.of(f"{__name__}:Net", {"burst": "nan"})
    for dtype in ("float16", "float32"):
        with pytest.raises(DissectError, match=r"layer second, image 22\.png: activation nan as float.*mend the model"):
            run(url + dtype, probe, spec=spec, recording=replace(RECORDING, dtype=dtype))


# --- memory ---


class Small:
    """A device that holds `most` images at once: larger batches run out of memory."""

    def __init__(self, most: int) -> None:
        self.most, self.asked, self.forward = most, [], batches.forward

    def __call__(self, model, batch, layers, sink):
        self.asked.append(len(batch))
        if len(batch) > self.most:
            self.forward(model, batch, layers[:1], sink)  # what was copied before is to be forgotten
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")
        return self.forward(model, batch, layers, sink)


@pytest.mark.parametrize("most", [1, 2, 3, 5, 7])
def test_batches_that_do_not_fit_are_halved(url, probe, most):
    device = Small(most)
    with patch.object(batches, "forward", device):
        run(url, probe)
    assert_recorded(url, by_torch(probe))
    fitting = next(n for n in (8, 4, 2, 1) if n <= most)
    assert device.asked[:2] == [8, 4]
    assert max(device.asked[device.asked.index(fitting) :][:4]) == fitting
    assert store.marker(url, "s/blocks/0-16")["note"]["batch"] == fitting


def test_an_image_that_does_not_fit_alone_is_an_error_and_leaves_no_marker(url, probe):
    with (
        patch.object(batches, "forward", Small(0)),
        pytest.raises(DissectError, match=r"(?s)memory.*(0\.png|batch|image)"),
    ):
        run(url, probe)
    assert not store.markers(url, "s/blocks")


def test_budget_refuses_before_anything_is_written(url, probe):
    with pytest.raises(DissectError, match=r"2 layers take .* the budget is 0\.00 GiB; the largest are second"):
        run(url, probe, recording=replace(RECORDING, budget=1000))
    assert not Path(url).exists()
    run(url, probe, recording=replace(RECORDING, budget=IMAGES * 2 * (5 * 5 * 4 + 70 * 4 * 3)))


# --- what belongs together ---


@pytest.fixture
def weights(tmp_path):
    """A file of weights, and a function that replaces them."""
    path = tmp_path / "weights.pt"

    def write(seed):
        model = load_model(replace(SPEC, seed=seed))
        torch.save(model.state_dict(), path)
        return model

    write(1)
    return path, write


def test_changed_weights_are_refused(url, probe, weights):
    path, write = weights
    spec = ModelSpec.of(f"{__name__}:Net", weights=path)
    run(url, probe, spec=spec)
    write(2)
    with pytest.raises(DissectError, match="holds snapshot s made from something else: weights_sha256 was"):
        run(url, probe, spec=spec)


def test_weights_that_change_under_way_are_refused(url, probe, weights):
    path, write = weights
    spec, block = ModelSpec.of(f"{__name__}:Net", weights=path), extract_block

    def meanwhile(task):
        block(task)
        write(2)

    with patch("dissect_xr.activations.extract.extract_block", meanwhile), pytest.raises(DissectError, match="weights"):
        run(url, probe, spec=spec)
    assert not open_activations(url).children


CODE = """
from torch import nn

class Edited(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 2, 3)
        self.second = nn.Identity()

    def forward(self, x):
        return self.second(self.first(x) * FACTOR)
"""


@pytest.fixture
def code(tmp_path):
    """A file with a network, and a function that edits it."""
    path = tmp_path / "network.py"

    def write(factor):
        path.write_text(CODE.replace("FACTOR", str(factor)))

    write(1)
    return ModelSpec.of(f"{path}:Edited"), write


def test_edited_code_is_what_runs(url, probe, code):
    spec, write = code
    run(url, probe, spec=spec, snapshot="one")
    write(-1)
    run(url, probe, spec=spec, snapshot="two")
    np.testing.assert_array_equal(recorded(url, "first", "one"), recorded(url, "first", "two"))
    np.testing.assert_array_equal(recorded(url, "second", "one"), -recorded(url, "second", "two"))


def test_edited_code_is_another_model(url, probe, code):
    spec, write = code
    run(url, probe, spec=spec)
    write(-1)
    with pytest.raises(DissectError, match="made from something else"):
        run(url, probe, spec=spec)


def test_changed_weights_are_those_recorded(url, probe, weights):
    path, write = weights
    spec = ModelSpec.of(f"{__name__}:Net", weights=path)
    run(url, probe, spec=spec, snapshot="one")
    model = write(2)
    run(url, probe, spec=spec, snapshot="two")
    assert_recorded(url, by_torch(probe, model), snapshot="two")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "float32"}, "dtype was 'float16', is 'float32'"),
        ({"layers": ("first",)}, "layers was"),
        ({"preprocess": replace(PREPROCESS, std=(2.0, 2.0, 2.0))}, "preprocess was"),
        ({"memory": 2**12}, "layers was"),
        ({"autocast": "bfloat16"}, "autocast was None, is 'bfloat16'"),
    ],
)
def test_another_recording_into_the_same_snapshot_is_refused(url, probe, change, message):
    run(url, probe)
    with pytest.raises(DissectError, match=message):
        run(url, probe, recording=replace(RECORDING, **change))


def test_another_batch_or_device_is_the_same_recording(url, probe):
    counts, spy = forwards()
    run(url, probe)
    with spy:
        run(
            url,
            probe,
            recording=replace(RECORDING, batch=5, threads=2, device=None if torch.cuda.is_available() else "cpu"),
        )
    assert not counts


def test_snapshots_lie_side_by_side(url, probe):
    run(url, probe, snapshot="a")
    run(url, probe, snapshot="b", spec=replace(SPEC, seed=1))
    tree = open_activations(url)
    assert sorted(tree.children) == ["a", "b"]
    assert sorted(tree["a"].children) == sorted(LAYERS)
    assert (recorded(url, "first", "a") != recorded(url, "first", "b")).any()


def test_an_unfinished_probe_is_refused(url, probe, tmp_path):
    store.create(str(tmp_path / "half.zarr"), "", [], {"images_sha256": ""})
    with pytest.raises(DissectError, match="the probe is not complete"):
        run(url, str(tmp_path / "half.zarr"))


def test_an_image_lost_since_is_named(url, probe):
    path = Path(probe).parent / "17.png"
    content = path.read_bytes()
    try:
        path.write_bytes(content[:50])
        with pytest.raises(DissectError, match=r"17\.png"):
            run(url, probe)
    finally:
        path.write_bytes(content)
    run(url, probe)
    assert_recorded(url, by_torch(probe))


def test_a_function_may_give_the_model_other_channels(url, probe):
    preprocess = Preprocess(SIZE, callable=f"{__name__}:grey")
    run(
        url,
        probe,
        spec=ModelSpec.of(f"{__name__}:OneChannel"),
        recording=replace(RECORDING, preprocess=preprocess, layers=("first",)),
    )
    assert recorded(url, "first").shape == (IMAGES, 2, 10, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "float64"}, "float16, float32"),
        ({"batch": 0}, "at least 1"),
        ({"autocast": "float32"}, "bfloat16, float16"),
    ],
)
def test_recordings_that_cannot_be_are_refused(change, message):
    with pytest.raises(DissectError, match=message):
        replace(RECORDING, **change)


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "__x", "a\nb", "\ud800", "é" * 101])
def test_names_that_no_snapshot_can_have(name):
    with pytest.raises(DissectError, match="snapshot"):
        SnapshotInfo(name)


# --- made elsewhere ---


def names(count):
    return stores.image_names(count)


@settings(max_examples=30)
@given(st.data())
def test_blocks_of_any_length_are_the_whole_array(data):
    images = data.draw(st.integers(1, 40))
    case = data.draw(activations(images, max_units=7, max_size=4))
    edges = sorted(data.draw(st.lists(st.integers(0, images), max_size=6)))
    blocks = np.split(case.activation, edges)
    dtype = str(case.activation.dtype)
    with stores.scratch() as folder, stores.tiny_chunks(units=data.draw(st.sampled_from([2, 3, 64]))):
        for name, values in (("whole", case.activation), ("blocks", iter(blocks))):
            write_activations(str(folder / name), {"conv": values}, images=names(images), snapshot="s", dtype=dtype)
            stored = recorded(str(folder / name), "conv")
            assert stored.tobytes() == case.activation.tobytes()
            assert_summaries(str(folder / name), "s/conv", stored)
        assert stores.digest(folder / "whole") == stores.digest(folder / "blocks")


@pytest.mark.parametrize("units", [1, 63, 64, 65, 130])
@pytest.mark.parametrize("images", [1, 7, 33])
def test_edges_of_units_and_images_come_back(url, units, images):
    values = np.random.default_rng(0).normal(size=(images, units, 3, 2)).astype(np.float16)
    with stores.tiny_chunks(chunk=64 * 6 * 2 * 4, shard=64 * 6 * 2 * 16, units=64):
        write_activations(url, {"conv": values}, images=names(images), snapshot="s")
    assert recorded(url, "conv").tobytes() == values.tobytes()
    assert_summaries(url, "s/conv", values)


def test_layers_and_snapshots_open_lazily_and_labelled(url, lazy):
    values = np.random.default_rng(0).normal(size=(9, 4, 3, 2)).astype(np.float16)
    info = SnapshotInfo("later", 7, {"accuracy": 0.25})
    attrs = {"b": {"input_size": [32, 32], "geometry": {"y": {"start": "1/2", "jump": "2"}}}}
    write_activations(url, {"b": values, "a.1": values[:, :2]}, images=names(9), snapshot=info, attrs=attrs)
    write_activations(url, {"b": values}, images=names(9), snapshot="sooner")
    tree = open_activations(url)
    assert {path for path, node in tree.subtree_with_keys if node.data_vars} == {"later/b", "later/a.1", "sooner/b"}
    layer = tree["later/a.1"].dataset
    schema.check(layer, schema.ACTIVATIONS, schema.ACTIVATIONS, "activations")
    assert layer["unit"].values.tolist() == ["a.1/0", "a.1/1"]
    assert layer["channel"].values.tolist() == [0, 1]
    assert layer["image"].values.tolist() == names(9)
    assert layer["activation"].chunks is not None
    assert (tree["later"].attrs["step"], tree["later"].attrs["metrics"]) == (7, {"accuracy": 0.25})
    assert store.marker(url, "later/a.1/done")["note"] == {"position": 1}
    assert [path.parent for path in Path(url).rglob("image")] == [Path(url)], "the images' names stand once"
    assert tree["later/b"].attrs["geometry"] == attrs["b"]["geometry"]


def test_opened_activations_are_those_written(url):
    values = np.random.default_rng(0).normal(size=(9, 4, 3, 2)).astype(np.float32)
    write_activations(url, {"conv": values}, images=names(9), snapshot="s", dtype="float32")
    np.testing.assert_array_equal(open_activations(url)["s/conv/activation"].values, values)
    with xr.open_datatree(url, engine="zarr", consolidated=False) as tree:
        np.testing.assert_array_equal(tree["s/conv/activation"].values, values)


GOOD = np.zeros((4, 2, 3, 3), np.float16)


def bad(value, dtype=np.float32):
    values = GOOD.astype(dtype)
    values[2, 1, 0, 2] = value
    return values


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        (bad(np.nan), "float16", r"layer conv, image a/014_2\.png: activation nan as float16.*mend the model"),
        (bad(np.inf), "float32", r"layer conv, image a/014_2\.png: activation inf as float32.*mend the model"),
        (bad(70000), "float16", r"layer conv, image a/014_2\.png: activation inf as float16.*float32"),
        (bad(-70000), "float16", r"activation -inf as float16"),
        (bad(1e39, np.float64), "float32", r"image a/014_2\.png: activation inf as float32"),
        ([GOOD[:2], bad(np.nan)[2:]], "float16", r"image a/014_2\.png"),
        (GOOD.astype(np.int32), "float16", r"layer conv: expected floating-point maps .*got int32 \(4, 2, 3, 3\)"),
        (GOOD[:, :, 0], "float16", r"expected floating-point maps .*got float16 \(4, 2, 3\)"),
        ([GOOD[0]], "float16", r"got float16 \(2, 3, 3\)"),
        (GOOD[:3], "float16", r"layer conv: expected 4 images, got 3"),
        (np.concatenate([GOOD, GOOD]), "float16", r"layer conv: expected 4 maps of \(2, 3, 3\), got 8"),
        ([GOOD, GOOD[:1]], "float16", r"layer conv: expected 4"),
        ([GOOD[:2], GOOD[2:, :1]], "float16", r"expected maps of \(2, 3, 3\) as in the first block, got \(1, 3, 3\)"),
        ([], "float16", r"layer conv: expected activations of 4 images, got none"),
        ([GOOD[:0]], "float16", r"layer conv: expected 4 images, got 0"),
        (GOOD[:, :0], "float16", r"layer conv.*\(4, 0, 3, 3\)"),
        (GOOD[..., :0], "float16", r"layer conv.*\(4, 2, 3, 0\)"),
        (GOOD, "float64", r"dtype 'float64': expected one of float16, float32"),
    ],
    ids=[
        "nan", "inf", "overflow", "overflow below", "overflow of float32", "nan in a later block", "integers", "3-d",
        "3-d block", "too few", "too many", "too many blocks", "another shape", "nothing", "no images", "no units",
        "no cells", "dtype",
    ],
)  # fmt: skip
def test_what_cannot_be_dissected_is_refused(url, values, dtype, message):
    blocks = iter(values) if isinstance(values, list) else values
    with pytest.raises(DissectError, match=message):
        write_activations(url, {"conv": blocks}, images=names(4), snapshot="s", dtype=dtype)
    assert not [key for key in store.markers(url) if key.endswith("done")]
    write_activations(url, {"conv": GOOD}, images=names(4), snapshot="s")  # what is half written is in nobody's way
    np.testing.assert_array_equal(recorded(url, "conv"), GOOD)


def test_a_layer_is_not_overwritten(url):
    write_activations(url, {"conv": GOOD}, images=names(4), snapshot="s")
    with pytest.raises(DissectError, match="holds s/conv already"):
        write_activations(url, {"conv": GOOD + 1}, images=names(4), snapshot="s")
    np.testing.assert_array_equal(recorded(url, "conv"), GOOD)


@pytest.mark.parametrize("layer", ["a/b", "", ".", "..", "\0", "a" * 201])
def test_names_that_no_layer_can_have(url, layer):
    with pytest.raises(DissectError, match="layer"):
        write_activations(url, {layer: GOOD}, images=names(4), snapshot="s")


def test_images_must_be_distinct(url):
    with pytest.raises(DissectError, match="image"):
        write_activations(url, {"conv": GOOD}, images=["a", "b", "a", "c"], snapshot="s")


def test_no_store_is_said(url):
    with pytest.raises(DissectError, match="expected a store of activations, found none"):
        open_activations(url)


@given(seed=SEEDS, dtype=st.sampled_from([np.float16, np.float32]))
def test_summaries_of_any_finite_values(seed, dtype):
    bits = np.random.default_rng(seed).integers(0, 2 ** (8 * dtype().itemsize), (3, 2, 4, 5))
    block = bits.astype(f"u{dtype().itemsize}").view(dtype)
    block[~np.isfinite(block)] = 1
    peak, mean = summarise(block)
    np.testing.assert_array_equal(peak, block.max(axis=(2, 3)))
    exact = [[math.fsum(cells.ravel().tolist()) / cells.size for cells in image] for image in block]
    largest = np.abs(block).max(axis=(2, 3)).astype(np.float64)
    np.testing.assert_array_less(np.abs(mean - np.array(exact)), 1e-7 * np.abs(exact) + 1e-14 * largest + 1e-45)
    if dtype is np.float16:
        np.testing.assert_array_equal(mean, np.array(exact).astype(np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_one_value_that_is_not_finite_shows_in_the_mean(value, dtype):
    maps = np.random.default_rng(0).normal(size=(2, 3, 9, 9)).astype(dtype)
    maps[1, 2, 4, 4], maps[0, 1, 0, :2] = value, (np.inf, -np.inf)
    assert np.isfinite(means(maps)).tolist() == [[True, False, True], [True, True, False]]


def test_a_task_can_be_called_by_hand(url, probe):
    extraction = prepare_extraction(url, probe, SnapshotInfo("s"), SPEC, RECORDING)
    with patch("dissect_xr.activations.extract.run_tasks", lambda *args, **options: iter(())):
        extract(extraction, show=False)
    for task in extraction.tasks()[::-1]:
        extract_block(task)
        extract_block(task)  # a task may run twice
    assert_recorded(url, by_torch(probe))
