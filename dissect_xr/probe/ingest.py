"""Writes a label set to `probe.zarr`: all labels on one grid, checked and without duplicates.

Knows: which arrays and tasks there are, and the totals of all tasks.
Does not know: what a task does (`ingest_block`), how files are read (`readers`), or how a probe is used.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Pool, Threads, run_blocks
from dissect_xr.parallel.progress import track
from dissect_xr.probe.block import image_blocks
from dissect_xr.probe.ingest_block import IngestTask, ingest_block
from dissect_xr.probe.label_maps.runs import run_arrays
from dissect_xr.probe.label_set import LabelSet
from dissect_xr.probe.root import follow_images, root_attrs
from dissect_xr.schema import DRAWN_BY, IGNORED, PROBE, SCHEMA_VERSION, check_version

BLOCKS = 16
"""A probe is divided into about this many image blocks, of 16 to 256 images each."""

MAPS = ("annotation", "ignored")
"""Arrays of pixels, which are read in smaller parts than a block."""


def write_probe(label_set: LabelSet, url: store.Url, *, pool: Pool | None = None, show: bool = True) -> None:
    """Read every image and label map of `label_set`, and write the probe to `url`; blocks that are finished are kept.

    Every image is decoded once, so that a damaged file is found now and not hours later. An unfinished probe of other
    parameters is begun anew, so that one may mend a recipe and give the same command again: nothing is made from it.

    Raises
    ------
    DissectError
        If a file is missing, damaged or of the wrong size, a label is not a concept, or `url` holds another probe.
    """
    label_set, url, pool = label_set.check(), store.as_url(url), pool or Threads()
    fingerprint = label_set_fingerprint(label_set)
    store.drop_if_gone(url)
    stored, is_done = store.marker(url, "created"), store.marker(url, "done") is not None
    if stored is not None and stored["fingerprint"] != fingerprint:
        if is_done:
            changed = "; ".join(_differences(stored["note"], _summary(label_set)))
            raise DissectError(
                f"{url}: holds a probe of other images or parameters: {changed}. Use another path, or delete this one."
            )
        changed = "; ".join(_differences(stored["note"], _summary(label_set)))
        warnings.warn(f"{url}: the unfinished probe there is begun anew, since {changed}.", stacklevel=2)
        store.drop(url, {"created", *store.markers(url, "blocks")})
        stored = None
    if is_done:
        follow_images(label_set, url, pool=pool, show=show)
        return
    length = block_length(len(label_set.rows))
    slots = max(1, max(len(row.whole) for row in label_set.rows))
    if stored is None:
        _check_ours(url, fingerprint)
        store.mark(
            url,
            "created",
            fingerprint=fingerprint,
            written=_create(label_set, url, length, slots),
            note=_summary(label_set),
        )
    tasks = [
        IngestTask(url, block, n * length, length, slots, fingerprint)
        for n, block in enumerate(image_blocks(label_set, length))
    ]
    marked = store.markers(url, "blocks")
    missing = [task for task in tasks if task.key not in marked]
    with track("probe", len(missing), show=show and bool(missing)) as bar:
        for task, _ in run_blocks(pool, ingest_block, missing):
            bar.advance(len(task.block.rows))
    _finish(label_set, url, [store.marker(url, task.key, fingerprint=fingerprint) or {} for task in tasks])


def _summary(label_set: LabelSet) -> dict[str, Any]:
    """What determines a probe, short enough to name the differences in a message."""
    return {
        "schema_version": SCHEMA_VERSION,
        "images": len(label_set.rows),
        "concepts": len(label_set.concepts),
        "categories": list(label_set.categories),
        "label_size": list(label_set.label_size),
        "colors": label_set.colors,
        "rows_sha256": store.fingerprint({"rows": [row.content for row in label_set.rows]})[:12],
        "concepts_sha256": store.fingerprint({"concepts": [concept.content for concept in label_set.concepts]})[:12],
    } | {f"parameters.{name}": value for name, value in label_set.parameters.items()}


def _differences(was: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    now = json.loads(json.dumps(given))
    keys = dict.fromkeys([*was, *now])
    return [f"{key} was {was.get(key)!r}, is {now.get(key)!r}" for key in keys if was.get(key) != now.get(key)]


def _check_ours(url: str, fingerprint: str) -> None:
    """Raise if there is something at `url` other than an unfinished probe of this label set."""
    for key in store.markers(url, "blocks"):
        store.marker(url, key, fingerprint=fingerprint)
    if store.exists(url) and not {"schema_version", "parameters"} <= store.read_attrs(url).keys():
        raise DissectError(f"{url}: holds something that this package did not write. Use another path.")


def block_length(images: int) -> int:
    """Number of images of a block: a power of two that does not depend on the number of workers."""
    return int(min(256, max(16, 2 ** round(np.log2(max(1, images / BLOCKS))))))


def label_chunks(length: int) -> tuple[int, int]:
    """Images of a chunk and of a shard of label maps in blocks of `length` images; equal if there are no shards."""
    chunk = min(16, length)
    return chunk, chunk if length % chunk else length


def label_set_fingerprint(label_set: LabelSet) -> str:
    """sha256 of everything that determines a probe, except the files' contents and the folders they are in."""
    return store.fingerprint(label_set.content | {"schema_version": SCHEMA_VERSION})


def _create(label_set: LabelSet, url: str, length: int, slots: int) -> store.Written:
    """Create the store with all arrays and write its coordinates."""
    sizes = {
        "image": len(label_set.rows), "plane": max(1, len(label_set.planes)), "row": label_set.label_size[0],
        "col": label_set.label_size[1], "slot": slots, "domain": len(label_set.domains),
        "concept": len(label_set.concepts),
    }  # fmt: skip
    arrays = []
    for variable in (*PROBE.values(), *([IGNORED] if label_set.void else [])):
        shape = tuple(sizes[dim] for dim in variable.dims)
        block = tuple(
            min(length, size) if dim == "image" else size for dim, size in zip(variable.dims, shape, strict=True)
        )
        inner, outer = label_chunks(block[0]) if variable.name in MAPS else (block[0], block[0])
        arrays.append(
            store.ArraySpec(
                variable.name, variable.dims, shape, variable.dtype, (inner, *block[1:]), attrs=variable.attrs,
                shards=(outer, *block[1:]) if outer != inner else None,
            )
        )  # fmt: skip
    arrays += run_arrays([sizes[dim] for dim in PROBE["annotation"].dims], length)
    drawn = _drawn_by(label_set) if label_set.is_predicted else []
    coordinates = [
        store.coordinate("image", "image", [row.image for row in label_set.rows]),
        store.coordinate("split", "image", [row.split for row in label_set.rows]),
        store.coordinate("concept", "concept", [c.number for c in label_set.concepts]),
        store.coordinate("concept_name", "concept", [c.name for c in label_set.concepts]),
        store.coordinate("concept_category", "concept", [c.category for c in label_set.concepts]),
        store.coordinate("concept_domain", "concept", [c.domain for c in label_set.concepts]),
        store.coordinate("parent", "concept", np.array([c.parent for c in label_set.concepts], np.int64)),
        *drawn,
        store.coordinate("category", "category", label_set.categories),
        store.coordinate("domain", "domain", label_set.domains),
        store.coordinate("plane_category", "plane", label_set.planes or label_set.categories[:1]),
    ]
    write = store.lay_out if store.markers(url, "blocks") else store.create
    objects = write(url, "", arrays, _attrs(label_set, url), coordinates)
    # `_finish` writes the root's metadata again, with the digests of the images, and its marker lists that.
    return {key: pair for key, pair in objects.items() if "/" in key}


def _drawn_by(label_set: LabelSet) -> list[tuple[store.ArraySpec, NDArray[Any]]]:
    """The coordinates of concepts that say whose labels they have."""
    agreements = np.array([concept.agreement for concept in label_set.concepts], np.int64).reshape(-1, 2)
    source, both, either = DRAWN_BY
    return [
        store.coordinate(source, "concept", [concept.label_source for concept in label_set.concepts]),
        store.coordinate(both, "concept", agreements[:, 0]),
        store.coordinate(either, "concept", agreements[:, 1]),
    ]


def _attrs(label_set: LabelSet, url: str) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "parameters": label_set.parameters,
        "label_size": list(label_set.label_size),
        "root": root_attrs(label_set.folder, url),
        "turned": {},
        "most_runs": 0,
        "has_ignored": bool(label_set.void),
        "coordinates": " ".join(
            (
                "split",
                "concept_name",
                "concept_category",
                "concept_domain",
                "parent",
                *(DRAWN_BY if label_set.is_predicted else ()),
                "plane_category",
            )
        ),
    }


def _finish(label_set: LabelSet, url: str, blocks: Sequence[Mapping[str, Any]]) -> None:
    """Write the totals, then the marker `done`, whose fingerprint includes the digests of all files."""
    images, areas = np.zeros((2, len(label_set.concepts)), np.int64)
    domain_areas = np.zeros(len(label_set.domains), np.int64)
    for block in blocks:
        for concept, image_count, area in block["note"]["concepts"]:
            images[concept] += image_count
            areas[concept] += area
        for domain, area in block["note"]["domains"]:
            domain_areas[domain] += area
    digests = {
        kind: store.fingerprint({kind: [block["note"][kind] for block in blocks]})
        for kind in ("pixels_sha256", "labels_sha256")
    }
    names = {"images": [row.image for row in label_set.rows]}
    turned = {name: orientation for block in blocks for name, orientation in block["note"]["turned"].items()}
    seen = names | {"pixels": digests["pixels_sha256"]} | ({"turned": turned} if turned else {})
    attrs = _attrs(label_set, url) | {
        "turned": turned,
        "images_sha256": store.fingerprint(seen | ({"crop": label_set.crop.parameters} if label_set.crop else {})),
        "names_sha256": store.fingerprint(names),
        "most_runs": max(block["note"]["most_runs"] for block in blocks),
    }
    fingerprint = store.fingerprint(digests | {"label_set": label_set_fingerprint(label_set)})
    with store.marked(url, "done", fingerprint=fingerprint, depends_on=store.markers(url)) as (writer, _):
        writer.add(store.write_group(url, "", attrs))
        writer.write("concept_images", (0,), images)
        writer.write("concept_area", (0,), areas)
        writer.write("domain_area", (0,), domain_areas)


def open_probe(url: store.Url) -> xr.Dataset:
    """The probe at `url` as a lazy Dataset (`schema.PROBE`), with coordinates in memory."""
    url = store.as_url(url)
    if store.marker(url, "done") is None:
        raise DissectError(f"{url}: expected a complete probe, found none. Run `dissect-xr probe RECIPE` first.")
    data = store.open_lazy(url)
    check_version(data.attrs, url)
    return data
