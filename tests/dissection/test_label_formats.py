"""Overlapping instances, federated tables and merged sets: every count of a dissection is the oracle's."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import coco
import hypothesis
import numpy as np
import oracle
import stores
import strategies
from coco import annotation, category, image, rle
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from strategies import ProbeCase

from dissect_xr import store
from dissect_xr.dissection.dissect import dissect
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.ingest import write_probe
from dissect_xr.probe.label_set import Concept, LabelSet, Row
from dissect_xr.probe.readers.coco.instances import read_coco
from dissect_xr.probe.readers.coco.lvis import read_lvis
from dissect_xr.probe.readers.coco.panoptic import read_coco_panoptic
from dissect_xr.probe.sources.merge import merge_probes

Masks = NDArray[np.bool_]


def check(data: st.DataObject, folder: Path, label_set: LabelSet, case: ProbeCase, domains: oracle.Domains) -> None:
    """Ingest the label set, dissect activations that are drawn, and compare every number with the oracle's."""
    probe = str(folder / "probe.zarr")
    write_probe(label_set, probe, pool=Threads(1), show=False)
    assert np.array_equal(store.read(probe, "annotated")[:], domains.verified)
    acts = data.draw(strategies.activations(len(case.annotation), max_units=3))
    fractions, kind = data.draw(strategies.fractions()), data.draw(st.sampled_from(oracle.DOMAINS))
    out = str(folder / "out.zarr")
    with stores.tiny_chunks(task=data.draw(st.sampled_from([400, 10**9]))):
        activations = stores.write_layers(folder, probe, {"conv": acts.activation})
        dissect(activations, probe, out, method=stores.method(fractions, domain=kind), pool=Threads(2), show=False)
    wanted = stores.expected(acts.activation, case, fractions, stores.HALF_PIXEL, kind, domains)
    stores.assert_same(stores.stored(out, "s/conv"), wanted)


def labelled(masks: Sequence[Mapping[int, Masks]], size: tuple[int, int], concepts: Sequence[int]) -> ProbeCase:
    """What each image has of each concept, as a case with one plane per concept; all of one category."""
    annotation = np.zeros((len(masks), len(concepts), *size), np.uint16)
    for n, found in enumerate(masks):
        for plane, concept in enumerate(concepts):
            if concept in found:
                annotation[n, plane][found[concept]] = concept
    numbers = np.array(concepts, np.uint16)
    return ProbeCase(
        annotation, np.zeros((len(masks), 1), np.uint16), numbers, np.zeros(len(concepts), np.int64), ("object",)
    )


# --- overlapping instances ---


@dataclass(frozen=True)
class Instance:
    """One annotation."""

    concept: int
    crowd: bool
    mask: Masks
    segmentation: object


CONCEPTS = (1, 13, 67, 90)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[tuple[int, int], list[list[Instance]]]:
    """A size and the instances of some images of it, as polygons, lists of runs and compressed runs."""
    size = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    random = np.random.default_rng(draw(strategies.SEEDS))
    crowds = draw(st.sampled_from([0.0, 0.3]))
    counts = draw(st.lists(st.integers(0, 6), min_size=1, max_size=5))
    return size, [[_instance(random, size, random.random() < crowds) for _ in range(count)] for count in counts]


def _instance(random: np.random.Generator, size: tuple[int, int], crowd: bool) -> Instance:
    concept = int(random.choice(CONCEPTS))
    if random.random() < 0.5:
        (top, bottom), (left, right) = (sorted(random.integers(0, side + 1, 2).tolist()) for side in size)
        polygon = coco.rectangle(top, left, bottom, right)
        return Instance(concept, crowd, coco.filled(size, top, left, bottom, right), polygon)
    mask = random.random(size) < random.choice([0.0, 0.2, 0.7, 1.0])
    return Instance(concept, crowd, mask, rle(mask, text=random.random() < 0.5))


def united(instances: Sequence[Instance], size: tuple[int, int]) -> tuple[dict[int, Masks], Masks]:
    """The pixels of each concept, and those of crowds."""
    found: dict[int, Masks] = {}
    hidden = np.zeros(size, np.bool_)
    for one in instances:
        if one.crowd:
            hidden |= one.mask
        else:
            found[one.concept] = found.get(one.concept, np.zeros(size, np.bool_)) | one.mask
    return found, hidden


@settings(max_examples=30)
@hypothesis.given(st.data())
def test_overlapping_instances_and_crowds(data: st.DataObject) -> None:
    size, scene = data.draw(scenes())
    images = [image(n + 1, size) for n in range(len(scene))]
    marks = [
        annotation(100 * n + m, n + 1, one.concept, one.segmentation, iscrowd=int(one.crowd))
        for n, instances in enumerate(scene)
        for m, one in enumerate(instances)
    ]
    found = [united(instances, size) for instances in scene]
    case = labelled([masks for masks, _ in found], size, CONCEPTS)
    domains = oracle.Domains.of_categories(case, np.array([hidden for _, hidden in found]))
    deepest = max(int(sum(masks.values(), np.zeros(size, int)).max()) for masks, _ in found)
    with stores.scratch() as folder:
        coco.photographs(folder / "images", images)
        coco.write(folder / "a.json", images, marks, [category(n, f"c{n}") for n in CONCEPTS[::-1]])
        label_set = read_coco(folder / "images", folder / "a.json")
        assert len(label_set.planes) == max(1, deepest)
        check(data, folder, label_set, case, domains)


@settings(max_examples=30)
@hypothesis.given(st.data())
def test_segments_of_panoptic_images(data: st.DataObject) -> None:
    size = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    random = np.random.default_rng(data.draw(strategies.SEEDS))
    count = data.draw(st.integers(1, 4))
    images, listed, masks, hidden = [], [], [], []
    with stores.scratch() as folder:
        for n in range(1, count + 1):
            numbers = [0, *random.choice(2**24 - 1, 5, replace=False) + 1]
            segments = random.choice(numbers, size, p=[0.1, 0.18, 0.18, 0.18, 0.18, 0.18])
            categories = {int(number): int(random.choice(CONCEPTS)) for number in numbers[1:]}
            crowds = [number for number in categories if random.random() < 0.2]
            images.append(image(n, size))
            listed.append(coco.panoptic(n, categories, crowds))
            coco.save_segments(folder / "maps" / f"{n:012d}.png", segments)
            hidden.append(np.isin(segments, [0, *crowds]))
            masks.append({c: np.isin(segments, [s for s in categories if categories[s] == c]) for c in CONCEPTS})
        coco.photographs(folder / "images", images)
        coco.write(folder / "a.json", images, listed, [category(n, f"c{n}", isthing=1) for n in CONCEPTS])
        case = labelled(masks, size, CONCEPTS)
        label_set = read_coco_panoptic(folder / "images", folder / "maps", folder / "a.json")
        check(data, folder, label_set, case, oracle.Domains.of_categories(case, np.array(hidden)))


# --- federated tables ---


@settings(max_examples=30)
@hypothesis.given(st.data())
def test_federated_tables(data: st.DataObject) -> None:
    size, scene = data.draw(scenes())
    scene = [[replace(one, crowd=False) for one in instances] for instances in scene]
    random = np.random.default_rng(data.draw(strategies.SEEDS))
    images, marks, masks, verified = [], [], [], []
    for n, instances in enumerate(scene):
        present = {one.concept for one in instances}
        partly = {concept for concept in CONCEPTS if random.random() < 0.3}
        absent = {concept for concept in CONCEPTS if concept not in present and random.random() < 0.5}
        boxes = {concept for concept in present if random.random() < 0.1}  # one more has a box only
        images.append(image(n + 1, size, neg_category_ids=sorted(absent), not_exhaustive_category_ids=sorted(partly)))
        shapes = [(one.concept, one.segmentation) for one in instances] + [(concept, []) for concept in sorted(boxes)]
        marks += [annotation(100 * n + m, n + 1, c, shape) for m, (c, shape) in enumerate(shapes)]
        known = (present | absent) - partly - boxes
        found, _ = united(instances, size)
        masks.append({concept: mask for concept, mask in found.items() if concept in known})
        verified.append([concept in known for concept in CONCEPTS])
    case = labelled(masks, size, CONCEPTS)
    nothing = np.zeros((len(scene), *size), np.bool_)
    domains = oracle.Domains(np.arange(len(CONCEPTS)), np.array(verified), nothing)
    with stores.scratch() as folder:
        coco.photographs(folder / "images", images)
        coco.write(folder / "a.json", images, marks, [category(n, f"c{n}") for n in CONCEPTS])
        check(data, folder, read_lvis(folder / "images", folder / "a.json"), case, domains)


# --- merged sets ---

NAMES = ("cat", "kitty", "dog", "lamp", "tail")
KINDS = ("object", "part")
SYNONYMS = {"object": {"cat": ["kitty"]}}
SIZE = (4, 5)

Pair = tuple[str, str]
"""category and name"""


@dataclass(frozen=True)
class Given:
    """What one set says about one image, by names."""

    masks: Mapping[Pair, Masks]
    hidden: Masks
    verified: frozenset[Pair]
    """of the concepts that the set verifies images for one by one"""


@dataclass(frozen=True)
class GivenSet:
    """One set: which concepts it has, and what it says about which images; a picture is a number of the pool."""

    own: Mapping[Pair, bool]
    """concept -> whether images are verified for it one by one"""
    pictures: Mapping[int, Given]
    label_set: LabelSet


@st.composite
def several_sets(draw: st.DrawFn, folder: Path) -> list[GivenSet]:
    random = np.random.default_rng(draw(strategies.SEEDS))
    federated = draw(st.sampled_from([0.0, 0.4, 1.0]))
    return [_given_set(random, folder / f"set{n}", federated) for n in range(draw(st.integers(1, 3)))]


def _given_set(random: np.random.Generator, folder: Path, federated: float) -> GivenSet:
    """A set of up to four pictures of a pool of five; a concept may have two names in it."""
    pairs = [(kind, name) for kind in KINDS for name in NAMES if random.random() < 0.5] or [("object", "cat")]
    numbers = np.sort(random.choice(np.arange(1, 60_000), len(pairs) + 1, replace=False)).tolist()
    void, is_own = numbers.pop(), {}
    for kind, name in pairs:  # synonyms are verified alike
        standing = SYNONYMS["object"]["cat"][0] if (kind, name) == ("object", "cat") else name
        is_own[kind, name] = is_own.get((kind, standing), bool(random.random() < federated))
    if ("object", "kitty") in is_own and ("object", "cat") in is_own:
        is_own["object", "kitty"] = is_own["object", "cat"]
    number_of = dict(zip(pairs, numbers, strict=True))
    pictures, rows = {}, []
    for picture in random.permutation(5)[: random.integers(1, 5)].tolist():
        planes = random.choice([0, void, *numbers], (2, *SIZE), p=[0.4, 0.1, *[0.5 / len(numbers)] * len(numbers)])
        planes[random.random((2, *SIZE)) < random.choice([0.0, 0.8, 1.0])] = 0
        whole = [number for number in numbers if random.random() < 0.1]
        verified = [pair for pair in pairs if is_own[pair] and random.random() < 0.6]
        rows.append(_write(folder, picture, planes, whole, [number_of[pair] for pair in verified]))
        hidden = (planes == void).any(axis=0)
        masks = {pair: (planes == n).any(axis=0) | (n in whole) for pair, n in number_of.items()}
        pictures[picture] = Given(masks, hidden, frozenset(verified))
    concepts = tuple(Concept(n, name, kind, own_domain=is_own[kind, name]) for (kind, name), n in number_of.items())
    kinds = tuple(dict.fromkeys(kind for kind, _ in pairs))
    label_set = LabelSet(
        str(folder / "images"), str(folder / "maps"), tuple(rows), concepts, kinds, (kinds[0],) * 2, stores.read_npy,
        SIZE, void=frozenset({void}),
    )  # fmt: skip
    return GivenSet(is_own, pictures, label_set)


def _write(folder: Path, picture: int, planes: NDArray[np.int64], whole: Sequence[int], verified: Sequence[int]) -> Row:
    for name in ("images", "maps"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE[::-1], (picture, 0, 0)).save(folder / "images" / f"{folder.name}_{picture}.png")
    for plane, labels in enumerate(planes):
        np.save(folder / "maps" / f"{picture}_{plane}.npy", labels.astype(np.uint16))
    maps = tuple((plane, f"{picture}_{plane}.npy") for plane in range(len(planes)))
    where = f"{folder.name}, picture {picture}"
    return Row(f"{folder.name}_{picture}.png", "all", maps, tuple(whole), None, where, verified=tuple(verified))


def standing(pair: Pair) -> Pair:
    """The concept that a name means."""
    return ("object", "cat") if pair == ("object", "kitty") else pair


def known_of(sets: Sequence[GivenSet], picture: int, concept: Pair) -> tuple[Masks, bool]:
    """The pixels of a concept in a picture, and whether the picture is annotated for it: by each set for itself."""
    said = [(one, one.pictures[picture]) for one in sets if picture in one.pictures]
    seen = ~np.logical_or.reduce([given.hidden for _, given in said])
    pixels, is_annotated = np.zeros(SIZE, np.bool_), False
    for one, given in said:
        for name in (pair for pair in one.own if standing(pair) == concept):
            if one.own[name]:
                # Of two names for one concept, both must be verified: what has the other name may be missing.
                sure = all(other in given.verified for other in one.own if standing(other) == concept)
                is_annotated |= sure
            else:
                of_kind = [pair for pair in one.own if pair[0] == concept[0] and not one.own[pair]]
                sure = any((given.masks[pair] & seen).any() for pair in of_kind)
                is_annotated |= sure
            pixels |= given.masks[name] & seen & sure
    return pixels, bool(is_annotated)


def order_of(sets: Sequence[GivenSet]) -> Iterator[int]:
    """The pictures in the order in which the sets name them first."""
    yield from dict.fromkeys(picture for one in sets for picture in one.pictures)


@settings(max_examples=50)
@hypothesis.given(st.data())
def test_merged_sets(data: st.DataObject) -> None:
    with stores.scratch() as folder:
        sets = data.draw(several_sets(folder))
        merged = merge_probes({f"set{n}": one.label_set for n, one in enumerate(sets)}, synonyms=SYNONYMS)
        concepts = [(concept.category, concept.name) for concept in merged.concepts]
        assert set(concepts) == {standing(pair) for one in sets for pair in one.own}
        pictures = list(order_of(sets))
        found = [[known_of(sets, picture, concept) for concept in concepts] for picture in pictures]
        annotation = np.zeros((len(pictures), len(concepts), *SIZE), np.uint16)
        for n, of_picture in enumerate(found):
            for plane, (pixels, _) in enumerate(of_picture):
                annotation[n, plane][pixels] = plane + 1
        kinds = np.array([KINDS.index(kind) for kind, _ in concepts])
        numbers = np.arange(1, len(concepts) + 1).astype(np.uint16)
        case = ProbeCase(annotation, np.zeros((len(pictures), 1), np.uint16), numbers, kinds, KINDS)
        index = np.array([merged.domains.index(concept.domain) for concept in merged.concepts])
        verified = np.zeros((len(pictures), len(merged.domains)), np.bool_)
        for n, of_picture in enumerate(found):
            for concept, (_, is_annotated) in enumerate(of_picture):
                verified[n, index[concept]] |= is_annotated
        # Concepts that share a domain are annotated in the same images, whatever the sets.
        assert [[bool(verified[n, index[c]]) for c in range(len(concepts))] for n in range(len(pictures))] == [
            [is_annotated for _, is_annotated in of_picture] for of_picture in found
        ]
        said = [[one.pictures[picture] for one in sets if picture in one.pictures] for picture in pictures]
        hidden = np.array([np.logical_or.reduce([given.hidden for given in of_picture]) for of_picture in said])
        check(data, folder, merged, case, oracle.Domains(index, verified, hidden))


def test_the_example_has_sets_that_share_pictures_and_concepts() -> None:
    """What is drawn above is rich in what breaks counting."""
    random = np.random.default_rng(0)
    with stores.scratch() as folder:
        drawn = [[_given_set(random, folder / f"{n}_{m}", 0.4) for m in range(3)] for n in range(10)]
    shared = [sets for sets in drawn if len(set(sets[0].pictures) & set(sets[1].pictures)) > 0]
    both = [
        sets
        for sets in drawn
        if any(sets[0].own[pair] != sets[1].own.get(pair, sets[0].own[pair]) for pair in sets[0].own)
    ]
    assert len(shared) > 5
    assert len(both) > 3
