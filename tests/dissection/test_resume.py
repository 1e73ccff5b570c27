"""A dissection that is stopped keeps every layer that is finished, and takes up the others where they were."""

from unittest.mock import patch

import numpy as np
import pytest
import stores
from strategies import ProbeCase

from dissect_xr import store
from dissect_xr.dissection import cut, passes
from dissect_xr.dissection import dissect as dissecting
from dissect_xr.dissection.dissect import dissect
from dissect_xr.parallel.pool import Threads
from dissect_xr.store import writer

LAYERS = [f"layer{n:02}" for n in range(20)]


class Stopped(BaseException):
    """What a killed run looks like from inside."""


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("size", ["small", "large"])
def test_stopped_when_nine_tenths_of_the_layers_are_done(tmp_path, monkeypatch, size, workers):
    if size == "large":
        monkeypatch.setattr(cut, "READ_BYTES", 64)
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 4, (12, 1, 5, 5)).astype(np.uint16)
    case = ProbeCase(labels, np.zeros((12, 1), np.uint16), np.arange(1, 4), np.zeros(3, np.int64), ("object",))
    probe = stores.write_probe_case(case, tmp_path)
    maps = {name: draw.normal(size=(12, 3, 4, 4)).astype(np.float16) for name in LAYERS}
    activations = stores.write_layers(tmp_path, probe, maps)
    out, method, done = str(tmp_path / "out.zarr"), stores.method([0.1]), []
    real = store.mark

    def mark(url, key, **given):
        if len(done) == 18:
            raise Stopped
        real(url, key, **given)
        if key.endswith("/done"):
            done.append(key)

    def run():
        dissect(activations, probe, out, method=method, pool=Threads(workers), show=False)

    with patch.object(store, "mark", mark), patch.object(writer, "mark", mark), pytest.raises(Stopped):
        run()
    kept = {layer for _, layer in stores.complete_pairs(out)}
    assert len(kept) >= 17
    found = {key.split("/")[1] for key in store.markers(out) if key.endswith("/threshold")}
    counted, searched, whole = set(), set(), set()
    count, histogram, small = passes.count_block, passes.histogram_block, dissecting.dissect_small
    with (
        patch.object(dissecting, "dissect_small", lambda task: whole.add(task.wanted.layer.name) or small(task)),
        patch.object(passes, "count_block", lambda task: counted.add(task.layer.name) or count(task)),
        patch.object(passes, "histogram_block", lambda task: searched.add(task.layer.name) or histogram(task)),
    ):
        run()
    left = set(LAYERS) - kept
    assert whole == (left if size == "small" else set())
    assert counted == (left if size == "large" else set())
    assert searched == (left - found if size == "large" else set())
    for name in LAYERS:
        wanted = stores.expected(maps[name], case, [0.1], stores.HALF_PIXEL, "annotated")
        stores.assert_same(stores.stored(out, f"s/{name}"), wanted)
