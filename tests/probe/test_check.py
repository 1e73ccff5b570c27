"""What is suspicious in a probe is found, with counts worked out by hand; what is in order is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkout import DATA, needs_data
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from published_sets import photo, text

from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.check.displaced import Displacement, looks_displaced
from dissect_xr.probe.check.edges import LEAST, REACH, SQUARE_TURNS, TURNS, borders, edge_scores, gradient_ranks
from dissect_xr.probe.check.findings import Finding, ProbeCheck, ceiling, check_probe
from dissect_xr.probe.check.names import near_names
from dissect_xr.probe.check.survey import survey_probe
from dissect_xr.probe.ingest import write_probe
from dissect_xr.probe.readers.broden import read_broden
from dissect_xr.probe.readers.tags import read_tags
from dissect_xr.probe.readers.unpacked.arrays import About, probe_from_arrays


def made(folder: Path, images: NDArray[Any], labels: Any, concepts: dict[int, Any], **about: Any) -> str:
    folder.mkdir(exist_ok=True)
    probe_from_arrays(images, labels, concepts, folder / "probe.zarr", about=About(**about), show=False)
    return str(folder / "probe.zarr")


def checked(url: str, **options: Any) -> ProbeCheck:
    return check_probe(url, pool=Threads(1), show=False, **options)


def of_kind(found: ProbeCheck, kind: str) -> list[str]:
    return [one.message for one in found.findings if one.kind == kind]


SKY, SEA, WHEEL, SCENE, BAND, LINE = range(1, 7)
CONCEPTS = {
    SKY: "sky", SEA: "sea", WHEEL: {"name": "wheel", "category": "part"}, SCENE: {"name": "coast", "category": "scene"},
    BAND: {"name": "banded", "category": "texture"}, LINE: {"name": "lined", "category": "texture"},
}  # fmt: skip


def small(folder: Path) -> str:
    """Two images of 2 x 4 label pixels in two planes; a pixel is ignored (9)."""
    planes = np.array(
        [
            [[[SKY, SKY, SKY, 0], [SEA, SEA, 0, 9]], [[SEA, WHEEL, 0, 0], [SKY, 0, 0, SEA]]],
            [[[0, 0, 0, 0], [0, 0, 0, 0]], [[SKY, 0, 0, 0], [0, 0, 0, 0]]],
        ]
    )
    images = np.random.default_rng(0).integers(0, 256, (2, 2, 4, 3), np.uint8)
    return made(folder, images, planes, CONCEPTS, whole=[[SCENE, BAND, LINE], []], void=[9], splits=["train", "val"])


def test_pixels_are_counted_once_whatever_lies_on_them(tmp_path):
    found = checked(small(tmp_path))
    assert found.ignored == 1 / 16
    assert found.unlabelled == 7 / 15  # the first image has labels of the whole image, the second one pixel of eight
    assert found.splits == {"train": 1, "val": 1}
    assert found.sizes == {(2, 4): 2}
    assert found.grid == (2, 4)
    labelled = {one.name: (one.images, one.labelled) for one in found.categories}
    assert labelled == {"object": (2, 6 / 15), "part": (1, 1 / 15), "scene": (1, 7 / 15), "texture": (1, 7 / 15)}


def test_two_labels_of_one_category_at_a_pixel(tmp_path):
    """Sky and sea share two pixels of the first image, in either order of planes; the two textures all seven."""
    survey = survey_probe(small(tmp_path), edges=0, pool=Threads(1), show=False)
    assert survey.conflicts == {(SKY, SEA): (2, 1), (BAND, LINE): (7, 1)}
    assert [one.split(":")[0] for one in of_kind(checked(str(tmp_path / "probe.zarr")), "conflict")] == [
        "banded and lined (texture) are both at 7 pixels of 1 images",
        "sky and sea (object) are both at 2 pixels of 1 images",
    ]


def test_a_label_of_the_whole_image_conflicts_with_those_of_pixels(tmp_path):
    labels = np.array([[[SKY, SKY, 0], [WHEEL, 0, 0]]])
    images = np.zeros((1, 2, 3, 3), np.uint8)
    url = made(tmp_path, images, labels, CONCEPTS, whole=[[SEA, SCENE]])
    assert survey_probe(url, edges=0, pool=Threads(1), show=False).conflicts == {(SKY, SEA): (2, 1)}


def test_the_example_is_the_image_with_most_of_a_concept(tmp_path):
    labels = np.array([[[1, 1, 0, 0]], [[1, 1, 1, 2]], [[1, 1, 1, 0]]])
    url = made(tmp_path, np.zeros((3, 1, 4), np.uint8), labels, {1: "a", 2: "b", 3: "c"}, whole=[[], [], [2]])
    survey = survey_probe(url, edges=0, pool=Threads(1), show=False)
    assert survey.largest == {1: (3, 1), 2: (4, 2)}
    assert {one.name: one.example for one in checked(url).concepts} == {"a": 1, "b": 2, "c": None}


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_blocks_add_up(images, parts, seed):
    from dissect_xr.probe.check.survey import Survey

    random = np.random.default_rng(seed)
    rows = [
        Survey(largest={int(c): (int(random.integers(1, 4)), n) for c in random.integers(0, 4, 3)},
               conflicts={(1, 2): (int(random.integers(1, 9)), 1)}, pixels=n, digests={n: str(n)})
        for n in range(images)
    ]  # fmt: skip
    totals = []
    for block in (1, parts):
        total = Survey()
        for start in range(0, images, block):
            mine = Survey()
            for row in rows[start : start + block]:
                mine.add(row)
            total.add(mine)
        totals.append(total)
    assert totals[0] == totals[1]
    for concept, (area, image) in totals[0].largest.items():
        having = [(row.largest[concept][0], -n) for n, row in enumerate(rows) if concept in row.largest]
        assert max(having) == (area, -image)


# --- shares ---


@pytest.mark.parametrize(
    ("share", "fraction", "highest"),
    [(0.125, 0.005, 0.04), (0.005, 0.005, 1.0), (0.0002, 0.005, 0.04), (0.0, 0.005, 0.0), (1.0, 0.5, 0.5)],
)
def test_the_ceiling_is_the_smaller_share_of_the_larger(share, fraction, highest):
    assert ceiling(share, fraction) == pytest.approx(highest, rel=1e-12)


def test_concepts_too_rare_too_common_and_never(tmp_path):
    """Of 10,000 pixels, 6,000 are sea and one is a buoy; the best IoU at a fraction of 0.005 is 1/120, and 1/50."""
    labels = np.zeros((1, 100, 100), int)
    labels[0, :60], labels[0, 70, 7], labels[0, 80] = 1, 2, 3
    url = made(tmp_path, np.zeros((1, 100, 100), np.uint8), labels, {1: "sea", 2: "buoy", 3: "rope", 4: "gull"})
    found = checked(url)
    assert [(one.name, one.share, one.state) for one in found.concepts] == [
        ("sea", 0.6, "common"), ("rope", 0.01, ""), ("buoy", 0.0001, "rare"), ("gull", 0.0, "never")
    ]  # fmt: skip
    assert [one.ceiling for one in found.concepts] == [0.005 / 0.6, 0.5, 0.0001 / 0.005, 0.0]
    assert of_kind(found, "rare") == [
        "buoy (object) covers 0.010% of its domain: a unit that is active in 0.005 of the pixels reaches at most an "
        "IoU of 0.020, below the cutoff 0.04."
    ]
    assert [len(of_kind(found, kind)) for kind in ("never", "rare", "common")] == [1, 1, 1]
    at_half = {one.name: one.state for one in checked(url, fraction=0.5).concepts}
    assert at_half == {"sea": "", "rope": "rare", "buoy": "rare", "gull": "never"}


# --- copies ---


def test_one_image_in_two_splits_is_a_leak_and_twice_in_one_a_copy(tmp_path):
    for name, shade in (("a.png", 1), ("b.png", 2), ("c.png", 1), ("d.png", 2), ("e.png", 3)):
        photo(tmp_path / "photos" / name, shade=shade)
    text(
        tmp_path / "tags.csv",
        "image,tag,split\na.png,x,train\nb.png,x,train\nc.png,x,val\nd.png,x,train\ne.png,x,val\n",
    )
    found = read_tags(image_folder=tmp_path / "photos", table=tmp_path / "tags.csv")
    write_probe(found, tmp_path / "probe.zarr", show=False)
    result = checked(str(tmp_path / "probe.zarr"))
    assert of_kind(result, "leak") == [
        "a.png (train), c.png (val): one image, in several splits. What is tested on it was trained on it."
    ]
    assert of_kind(result, "copies") == ["b.png (train), d.png (train): one image, which counts 2 times."]
    assert result.findings[0].kind == "leak"  # the most serious first


def test_images_without_a_label_are_counted(tmp_path):
    labels = np.zeros((3, 2, 2), int)
    labels[1] = 1
    images = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    found = checked(made(tmp_path, images, labels, {1: "a"}))
    assert of_kind(found, "no label")[0].startswith("2 images have no label (000000.png, 000002.png)")


# --- names ---


@pytest.mark.parametrize(
    ("one", "two", "why"),
    [
        ("car", "Car", "spelling"), ("car", "cars", "spelling"), ("traffic light", "traffic-light", "spelling"),
        ("grey-c", "gray-c", "spelling"), ("sofa, couch", "couch", "a word for the same"),
        ("television", "televison", "one letter"), ("skyscraper", "skyscrapper", "one letter"),
        ("airplane", "aeroplane", "spelling"),
    ],
)  # fmt: skip
def test_names_that_nearly_are_the_same(one, two, why):
    assert near_names([one, "another", two]) == [(0, 2, why)]


@pytest.mark.parametrize(
    ("one", "two"),
    [("cat", "car"), ("house", "horse"), ("glass", "grass"), ("bus", "bu"), ("left arm", "left leg"), ("-", "+")],
)
def test_names_that_are_not(one, two):
    assert near_names([one, two]) == []


def test_65000_names_take_no_square_of_comparisons(monkeypatch):
    calls = []
    monkeypatch.setattr("dissect_xr.probe.check.names.SequenceMatcher", lambda *args: calls.append(args))
    assert near_names([f"concept number {n} of {n * n}x" for n in range(0, 1_300_000, 20)]) == []
    assert len(calls) == 0


def test_names_of_one_category_are_reported_and_those_of_two_are_not(tmp_path):
    concepts = {1: "cars", 2: "car", 3: {"name": "car", "category": "part"}}
    found = checked(made(tmp_path, np.zeros((1, 1, 3), np.uint8), np.array([[[1, 2, 3]]]), concepts))
    assert of_kind(found, "names") == [
        "cars (object) and car (object) are nearly the same name (spelling). If they mean one thing, merge them."
    ]


# --- edges ---


def scene(seed: int, side: int = 64) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """An image of rectangles and noise, and its labels."""
    random = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.int64)
    for number in range(1, 6):
        top, left = random.integers(0, side * 3 // 4, 2)
        tall, wide = random.integers(side // 6, side // 2, 2)
        labels[top : top + tall, left : left + wide] = number
    shades = random.permutation(np.linspace(30, 220, 6))
    return (shades[labels] + random.normal(0, 4, labels.shape)).clip(0, 255).astype(np.uint8), labels


def test_ranks_of_gradients_share_ties():
    flat = gradient_ranks(np.zeros((3, 4)))
    assert (flat == 0.5).all()
    step = gradient_ranks(np.array([[0.0, 0, 9, 9]] * 2))
    assert (14 * step).round(4).tolist() == [[3, 11, 11, 3]] * 2  # places 0 to 3 share 1.5 of 7, and 4 to 7 5.5


def test_both_sides_of_a_border_are_border_in_any_plane():
    planes = np.zeros((2, 3, 4), np.uint16)
    planes[0, :, 2:], planes[1, 0, 0] = 7, 3
    assert borders(planes).astype(int).tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [0, 1, 1, 0]]


@given(st.integers(-REACH, REACH), st.integers(-REACH, REACH), st.integers(0, 50))
def test_a_moved_label_map_fits_best_when_it_is_moved_back(down, right, seed):
    image, labels = scene(seed)
    moved = np.roll(labels, (down, right), (0, 1)).astype(np.uint16)
    scores = edge_scores(image, moved[None])
    best = np.argwhere(scores.moved == np.nanmax(scores.moved)).tolist()
    assert best == [[REACH - down, REACH - right]]
    assert scores.as_is == scores.moved[REACH, REACH]


UNDONE = {name: name for name in (*TURNS, "transposed")} | {
    "transposed and turned by 180 degrees": "transposed and turned by 180 degrees",
    "turned to the left": "turned to the right", "turned to the right": "turned to the left",
}  # fmt: skip


@pytest.mark.parametrize("turn", UNDONE)
def test_a_turned_label_map_is_found_with_what_undoes_it(turn):
    image, labels = scene(3)
    scores = edge_scores(image, (TURNS | SQUARE_TURNS)[turn](labels.astype(np.uint16)[None]))
    assert max(scores.turned, key=scores.turned.get) == UNDONE[turn]
    assert scores.turned[UNDONE[turn]] > 0.9


def test_turning_left_is_what_numpy_calls_rot90():
    labels = np.arange(6).reshape(1, 2, 3)
    assert np.array_equal(SQUARE_TURNS["turned to the left"](labels)[0], np.rot90(labels[0]))
    assert np.array_equal(SQUARE_TURNS["turned to the right"](labels)[0], np.rot90(labels[0], -1))


def test_a_grid_that_is_not_square_is_not_transposed():
    image, labels = scene(1)
    scores = edge_scores(image[:40], labels[None, :40].astype(np.uint16))
    assert set(scores.turned) == set(TURNS)


def test_too_little_border_has_no_score():
    labels = np.zeros((1, 64, 64), np.uint16)
    labels[0, 10:15, 10:15] = 1
    assert int(borders(labels).sum()) < LEAST
    assert edge_scores(np.zeros((64, 64)), labels) is None


def many(folder: Path, change: Any, count: int = 12) -> str:
    """A probe of scenes whose label maps were changed; `change(n, labels)`."""
    pairs = [scene(seed) for seed in range(count)]
    labels = np.stack([change(n, labels) for n, (_, labels) in enumerate(pairs)])
    names = {n: f"thing {n}" for n in range(1, 6)}
    return made(folder, np.stack([image for image, _ in pairs]), labels, names)


def displaced(url: str, **options: Any) -> list[Finding]:
    return [one for one in checked(url, **options).findings if one.kind == "displaced"]


def test_label_maps_in_their_place_are_not_reported(tmp_path):
    url = many(tmp_path, lambda n, labels: labels)
    assert displaced(url) == []
    assert checked(url).compared == 12


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda labels: labels.T, "transposed"),
        (lambda labels: labels[:, ::-1], "mirrored left to right"),
        (lambda labels: np.roll(labels, 2, 0), "moved up by 2 label pixels"),
        (lambda labels: np.roll(labels, (-1, 3), (0, 1)), "moved down by 1 and left by 3 label pixels"),
    ],
)
def test_a_whole_set_that_is_displaced_is_one_finding(tmp_path, change, what):
    found = displaced(many(tmp_path, lambda n, labels: change(labels)))
    assert [one.subject for one in found] == ["all label maps"]
    assert f"if they are {what}: " in found[0].message


def test_single_label_maps_that_are_displaced_are_named(tmp_path):
    found = displaced(many(tmp_path, lambda n, labels: labels[::-1] if n in (3, 8) else labels))
    assert [one.subject for one in found] == ["000003.png", "000008.png"]
    assert "if it is mirrored top to bottom" in found[0].message


def test_only_so_many_images_are_compared(tmp_path):
    url = many(tmp_path, lambda n, labels: labels.T)
    assert checked(url, edges=0).compared == 0
    assert displaced(url, edges=0) == []
    assert checked(url, edges=5).compared == 5
    assert displaced(many(tmp_path / "few", lambda n, labels: labels.T, count=7)) != []  # one by one, not together


@pytest.mark.parametrize(
    ("gain", "border", "looks"), [(0.09, 4000, True), (0.07, 4000, False), (0.2, 300, False), (0.5, 70, True)]
)
def test_little_border_needs_a_larger_gain(gain, border, looks):
    assert looks_displaced(Displacement("transposed", 0.5, gain), border) is looks


# --- files ---


def test_a_missing_image_is_named(tmp_path):
    url = small(tmp_path)
    (tmp_path / "probe.files/images/000001.png").unlink()
    with pytest.raises(DissectError, match=r"000001\.png: cannot be read \(No such file or directory\)"):
        checked(url)


def test_sizes_are_those_of_images_as_they_are_displayed(tmp_path):
    from oriented import exif

    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    Image.new("RGB", (24, 16)).save(tmp_path / "images/a.jpg", exif=exif(6))
    Image.fromarray(np.ones((24, 16), np.uint8)).save(tmp_path / "masks/a.png")
    (tmp_path / "concepts.yaml").write_text("1: all")
    from dissect_xr.probe.readers.masks import read_masks

    found = read_masks(images=tmp_path / "images", masks=tmp_path / "masks", concepts=tmp_path / "concepts.yaml")
    write_probe(found, tmp_path / "probe.zarr", show=False)
    assert checked(str(tmp_path / "probe.zarr")).sizes == {(24, 16): 1}


def test_something_that_is_no_probe_is_refused(tmp_path):
    with pytest.raises(DissectError, match=r"expected a complete probe, found none"):
        check_probe(tmp_path / "probe.zarr")


@pytest.mark.data
@needs_data
def test_real_photographs_in_their_place_and_mirrored(tmp_path):
    """60 street scenes of CamVid: as they are nothing is displaced; mirrored, all are, and most are found alone."""
    found = read_broden(DATA / "camvid_broden", categories=["object"]).subset(limit=60)
    write_probe(found, tmp_path / "probe.zarr", show=False)
    assert displaced(str(tmp_path / "probe.zarr")) == []
    from dataclasses import replace

    mirrored = replace(found, decode=mirrored_broden, parameters=found.parameters | {"mirrored": True})
    (tmp_path / "other").mkdir()
    write_probe(mirrored, tmp_path / "other/probe.zarr", show=False, pool=Threads(1))
    together, *alone = displaced(str(tmp_path / "other/probe.zarr"))
    assert "if they are mirrored left to right" in together.message
    assert alone == []  # said once for all


def mirrored_broden(path: Path) -> NDArray[np.uint16]:
    from dissect_xr.probe.readers.broden import decode_broden

    return decode_broden(path)[:, ::-1]
