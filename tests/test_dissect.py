"""Every threshold and count of a dissection is the oracle's, however the work is cut, interrupted or refused."""

import math
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import oracle
import pytest
import stores
import strategies
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import ProbeCase

from dissect_xr import storage
from dissect_xr.activations.store import SnapshotInfo, write_activations
from dissect_xr.cluster import Threads
from dissect_xr.dissection import blocks, kernels, passes, threshold
from dissect_xr.dissection.dissect import Method, complete_pairs, dissect
from dissect_xr.dissection.labels import open_labels
from dissect_xr.dissection.layers import open_layer
from dissect_xr.dissection.passes import tally_blocks
from dissect_xr.dissection.tally import TallyTask, tally_block
from dissect_xr.errors import DissectError

DOMAIN = st.sampled_from(oracle.DOMAINS)
CUTS = st.fixed_dictionaries(
    {
        "chunk": st.sampled_from([1, 64, 1000]),
        "shard": st.sampled_from([1, 256, 4000]),
        "units": st.integers(1, 5),
        "read": st.sampled_from([1, 100, 10_000]),
        "task": st.sampled_from([1, 400, 10_000]),
    }
)


def grid(labels, *, concepts=(1, 2), kinds=(0, 0), categories=("object",), whole=None):
    """A probe of hand-made label maps (image, row, col)."""
    annotation = np.array(labels, np.uint16)[:, None]
    whole_image = np.zeros((len(annotation), 1), np.uint16) if whole is None else np.array(whole, np.uint16)
    return ProbeCase(annotation, whole_image, np.array(concepts, np.uint16), np.array(kinds, np.int64), categories)


def noise(images=6, units=3, size=(5, 5), dtype=np.float16, seed=0):
    return np.random.default_rng(seed).normal(size=(images, units, *size)).astype(dtype)


def noisy_probe(images=6, size=(8, 8), seed=0, concepts=3):
    labels = np.random.default_rng(seed).integers(0, concepts + 1, (images, *size))
    return grid(labels, concepts=range(1, concepts + 1), kinds=[0] * concepts)


def iou(result, unit, concept, fraction=0, category=0):
    both = result["intersection"][fraction, unit, concept]
    return both / (result["unit_area"][fraction, unit, category] + result["concept_area"][concept] - both)


@contextmanager
def spied(module, name) -> Iterator[list]:
    """First arguments of every call of a function."""
    calls, original = [], getattr(module, name)

    def spy(*args):
        calls.append(args[0])
        return original(*args)

    with patch.object(module, name, spy):
        yield calls


# --- equal to the oracle ---


@settings(max_examples=80)
@given(st.data())
def test_thresholds_and_counts_are_the_oracles(data):
    case = data.draw(strategies.probes(max_images=8))
    acts = data.draw(strategies.activations(len(case.annotation)))
    fractions, anchoring = data.draw(strategies.fractions()), data.draw(strategies.anchorings())
    domain, cut, workers = data.draw(DOMAIN), data.draw(CUTS), data.draw(st.sampled_from([1, 3]))
    with stores.scratch() as folder, stores.tiny_chunks(**cut):
        got = stores.dissected(
            folder, case, acts.activation, fractions, anchoring=anchoring, domain=domain, pool=Threads(workers)
        )
    stores.assert_same(got, stores.expected(acts.activation, case, fractions, anchoring, domain))
