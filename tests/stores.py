"""Writes small cases to the package's stores, and reads its counts back as the oracle's.

Knows: `strategies.ProbeCase`, the Broden layout, the package's own writers, how the oracle's counts are laid out.
Does not know: what is tested on them.
"""

import csv
import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import oracle
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from strategies import AnchoringCase, ProbeCase

from dissect_xr import schema, store
from dissect_xr.activations import store as activations_store
from dissect_xr.activations.request import SnapshotInfo
from dissect_xr.activations.write import write_activations
from dissect_xr.dissection.dissect import dissect
from dissect_xr.dissection.method import Method
from dissect_xr.parallel.pool import Pool, Threads
from dissect_xr.probe.ingest import write_probe
from dissect_xr.probe.label_set import Concept, LabelSet, Row
from dissect_xr.probe.readers.broden import read_broden

LAYER = "conv"
HALF_PIXEL = AnchoringCase((32, 32), "half_pixel", "half_pixel")


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards; Hypothesis needs one per example, `tmp_path` is one per test."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@contextmanager
def tiny_chunks(
    *, chunk: int = 64, shard: int = 256, units: int = 2, read: int = 64, labels: int = 64, task: int = 512
) -> Iterator[None]:
    """Chunks, shards, unit blocks, reads and image ranges of a few bytes: small data is cut as large data is."""
    from dissect_xr.dissection import cut

    with ExitStack() as stack:
        for module, sizes in (
            (activations_store, {"CHUNK": chunk, "SHARD": shard, "UNIT_CHUNK": units}),
            (cut, {"READ_BYTES": read, "LABEL_READ_BYTES": labels, "TASK_BYTES": task, "COUNT_CHUNK_UNITS": units}),
        ):
            stack.enter_context(patch.multiple(module, **sizes))
        yield


# --- probes ---


def image_names(count: int) -> list[str]:
    """Names of images, in an order that sorting would change."""
    return [f"{'ab'[i % 2]}/{(i * 7) % 1000:03d}_{i}.png" for i in range(count)]


def read_npy(path: Path) -> NDArray[np.uint16]:
    """`LabelSet.decode` of label maps as NumPy files: what PNG maps decode to, in less time."""
    return np.asarray(np.load(path))


def plan_of(case: ProbeCase, folder: Path) -> LabelSet:
    """The label set of a case whose one-pixel images and NumPy label maps are written to `folder`."""
    rows = []
    for image, name in enumerate(image_names(len(case.annotation))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (1, 1), (image % 256, 0, 0)).save(folder / name)
        maps = []
        for plane, labels in enumerate(case.annotation[image]):
            np.save(folder / f"{name}_{plane}.npy", labels)
            maps.append((plane, f"{name}_{plane}.npy"))
        whole = tuple(int(c) for c in case.whole_image[image] if c)
        rows.append(Row(name, "train", tuple(maps), whole, None, f"row {image}"))
    return LabelSet(
        images=str(folder),
        maps=str(folder),
        rows=tuple(rows),
        concepts=tuple(
            Concept(int(number), f"c{number}", case.categories[kind])
            for number, kind in zip(case.concept, case.concept_category, strict=True)
        ),
        categories=case.categories,
        planes=(case.categories[0],) * case.annotation.shape[1],
        decode=read_npy,
        label_size=(case.annotation.shape[2], case.annotation.shape[3]),
    )


def write_probe_case(case: ProbeCase, folder: Path, name: str = "probe.zarr", *, pool: Pool | None = None) -> str:
    """The case as a probe store in `folder`, through the package's own ingest."""
    url = str(folder / name)
    write_probe(plan_of(case, folder / f"{name}.images"), url, pool=pool or Threads(1), show=False)
    return url


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], newline: str = "\r\n") -> None:
    """A CSV file as Broden has them: header row, commas, CRLF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="ascii", newline="") as file:
        writer = csv.writer(file, lineterminator=newline)
        writer.writerow(header)
        writer.writerows(rows)


def save_labels(path: Path, labels: NDArray[Any]) -> None:
    """A label map as Broden's PNG: R + 256 * G."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rgb = np.stack([labels % 256, labels // 256, np.full_like(labels, 7)], axis=-1).astype(np.uint8)
    Image.fromarray(rgb).save(path)


def write_broden(case: ProbeCase, folder: Path) -> Path:
    """The case in the Broden layout, all of an image's maps and numbers in one cell of its first category."""
    size = case.annotation.shape[2:]
    rows = []
    for image, name in enumerate(image_names(len(case.annotation))):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size[::-1], (0, image % 256, 0)).save(path)
        items = [str(c) for c in case.whole_image[image]]
        for plane, labels in enumerate(case.annotation[image]):
            items.insert(plane, f"{name}_{plane}.png")
            save_labels(folder / "images" / items[plane], labels)
        cells = [";".join(items), *("" for _ in case.categories[1:])]
        rows.append([name, "train", *size, *size, *cells])
    kinds = [case.categories[kind] for kind in case.concept_category]
    labels = zip(case.concept, kinds, strict=True)
    write_table(folder / "index.csv", ["image", "split", "ih", "iw", "sh", "sw", *case.categories], rows)
    write_table(folder / "category.csv", ["name"], [[name] for name in case.categories])
    write_table(folder / "label.csv", ["number", "name", "category"], [[n, f"c{n}", kind] for n, kind in labels])
    return folder


def write_probe_broden(case: ProbeCase, folder: Path) -> str:
    """The case as a probe store in `folder`, read from the Broden layout in `folder/broden`."""
    url = str(folder / "probe.zarr")
    write_probe(read_broden(write_broden(case, folder / "broden")), url, pool=Threads(1), show=False)
    return url


# --- activations ---


def geometry_attrs(case: AnchoringCase) -> dict[str, Any]:
    """`input_size` and `geometry` as `write_activations` takes them."""
    attrs: dict[str, Any] = {"input_size": list(case.input_size)}
    if case.rows != "half_pixel":
        attrs["geometry"] = {
            name: {"start": str(start), "jump": str(jump), "receptive_field": "1"}
            for name, (start, jump) in (("y", case.rows), ("x", case.cols))
        }
    return attrs


def write_layers(
    folder: Path,
    probe: str,
    layers: Mapping[str, NDArray[Any]],
    *,
    snapshot: str | SnapshotInfo = "s",
    anchoring: AnchoringCase = HALF_PIXEL,
    name: str = "activations.zarr",
) -> str:
    """Activations of a probe's images as a store in `folder`, each layer in its own precision."""
    url = str(folder / name)
    attrs = geometry_attrs(anchoring) | {"images_sha256": store.read_attrs(probe)["images_sha256"]}
    images = store.read(probe, "image")[:].tolist()
    for layer, values in layers.items():
        write_activations(
            url, {layer: values}, images=images, snapshot=snapshot, dtype=str(values.dtype), attrs={layer: attrs}
        )
    return url


def axes_of(anchoring: AnchoringCase, maps: Sequence[int], labels: Sequence[int]) -> tuple[oracle.Axis, oracle.Axis]:
    """The oracle's axes."""
    return oracle.axes(maps[-2:], labels[-2:], anchoring.input_size, anchoring.rows, anchoring.cols)


def method(fractions: Sequence[float], anchoring: AnchoringCase = HALF_PIXEL, domain: Any = "annotated") -> Method:
    """The method that counts with this anchoring."""
    return Method(tuple(fractions), "half_pixel" if anchoring.rows == "half_pixel" else "receptive_field", domain)


# --- results ---


def stored(out: str, path: str) -> dict[str, NDArray[Any]]:
    """Every variable of a layer's results, with those that all layers share."""
    mine = {name: store.read(out, f"{path}/{name}")[:] for name in schema.PER_UNIT}
    return mine | {name: store.read(out, name)[:] for name in ("concept_area", "domain_area")}


def complete_pairs(out: str) -> list[tuple[str, str]]:
    """The (snapshot, layer) pairs that a store of results holds completely, by step and position."""
    found = []
    for key in store.markers(out):
        if key.endswith("/done") and key.count("/") == 2:
            snapshot, layer, _ = key.split("/")
            note = (store.marker(out, key) or {})["note"]
            found.append((store.read_attrs(out, snapshot)["step"], snapshot, note["position"], layer))
    return [(snapshot, layer) for _, snapshot, _, layer in sorted(found)]


def expected(
    activation: NDArray[Any],
    case: oracle.Labels,
    fractions: Sequence[float],
    anchoring: AnchoringCase,
    domain: str,
    domains: oracle.Domains | None = None,
) -> dict[str, NDArray[Any]]:
    """The same, by the oracle."""
    levels = oracle.thresholds(activation, fractions)
    axes = axes_of(anchoring, activation.shape, case.annotation.shape)
    counts = oracle.count(activation, levels, case, *axes, domains)
    return {
        "threshold": levels,
        "exceedance": oracle.exceedances(activation, levels),
        "intersection": counts.intersection,
        "unit_area": counts.unit_area[domain],
        "dead": counts.dead,
        "concept_area": counts.concept_area,
        "domain_area": counts.domain_area,
    }


def lose_markers(url: str, data: st.DataObject) -> set[str]:
    """Delete any of a store's markers; those that are gone."""
    lost = data.draw(st.sets(st.sampled_from(sorted(store.markers(url)))), "lost markers")
    for key in lost:
        (Path(url).parent / "markers" / Path(url).name / f"{key}.json").unlink()
    return lost


def digest(store_folder: Path) -> str:
    """sha256 over names and contents of all files of a store and of the markers beside it."""
    total = hashlib.sha256()
    for root in (store_folder, store_folder.parent / "markers" / store_folder.name):
        for path in sorted(root.rglob("*")):
            if path.is_file():
                total.update(f"{path.relative_to(root)} {path.stat().st_size}\n".encode() + path.read_bytes())
    return total.hexdigest()


def assert_same(got: Mapping[str, NDArray[Any]], wanted: Mapping[str, NDArray[Any]]) -> None:
    """Equal in every number, -0.0 not being 0.0."""
    for name, value in wanted.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
        if got[name].dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(got[name]), np.signbit(value), err_msg=f"sign of {name}")


def dissected(
    folder: Path,
    case: ProbeCase,
    activation: NDArray[Any],
    fractions: Sequence[float],
    *,
    anchoring: AnchoringCase = HALF_PIXEL,
    domain: str = "annotated",
    pool: Pool | None = None,
) -> dict[str, NDArray[Any]]:
    """Results of one layer, from arrays through all three stores."""
    probe = write_probe_case(case, folder)
    activations = write_layers(folder, probe, {LAYER: activation}, anchoring=anchoring)
    out = str(folder / "dissection.zarr")
    dissect(activations, probe, out, method=method(fractions, anchoring, domain), pool=pool or Threads(1), show=False)
    return stored(out, f"s/{LAYER}")
