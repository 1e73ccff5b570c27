"""Several label sets as one: concepts, domains and images by hand, and what is refused."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import coco
import numpy as np
import pytest
from coco import annotation, category, filled, image, rectangle
from numpy.typing import NDArray
from oriented import exif
from PIL import Image
from test_probe import tasks_of

from dissect_xr import merge_probes, read_coco, read_lvis, read_masks, without_rare_concepts, write_probe
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe import ingest
from dissect_xr.probe.colors import COLOR_NAMES
from dissect_xr.probe.crop import Crop
from dissect_xr.probe.ingest import label_set_fingerprint, open_probe
from dissect_xr.probe.label_set import Concept, LabelSet
from dissect_xr.probe.readers.masks import MaskFormat
from dissect_xr.probe.root import image_folder
from dissect_xr.probe.skip import without_bad_images

SIZE = (4, 4)


def set_of_masks(folder: Path, masks: dict[str, Any], concepts: str, *, void: tuple[int, ...] = ()) -> LabelSet:
    """A set of masks of 4 x 4; the pixels of an image are those of its name's last letter, so z/a is the image a."""
    for name, mask in masks.items():
        for kind, pixels in (("images", np.full((4, 4, 3), ord(name[-1]), np.uint8)), ("masks", np.uint8(mask))):
            path = folder / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (folder / "concepts.yaml").write_text(concepts)
    return read_masks(
        images=folder / "images", masks=folder / "masks", concepts=folder / "concepts.yaml",
        format=MaskFormat(void=void),
    )  # fmt: skip


def square(number: int, top: int, left: int, bottom: int, right: int, other: int = 0) -> NDArray[np.uint8]:
    return np.where(filled(SIZE, top, left, bottom, right), number, other).astype(np.uint8)


CATS, LAMPS = "{1: cat, 2: dog}", "{1: lamp, 7: cat}"


def written(label_set: LabelSet, url: Path) -> Any:
    write_probe(label_set, url, pool=Threads(1), show=False)
    return open_probe(url).load()


def annotated(probe: Any) -> dict[str, list[str]]:
    """Image -> names of the domains that it is annotated for."""
    names, rows = probe["domain"].values, probe["annotated"].values
    return {image: names[row].tolist() for image, row in zip(probe["image"].values.tolist(), rows, strict=True)}


def test_an_image_is_annotated_only_for_what_its_set_labels(tmp_path):
    first = set_of_masks(tmp_path / "1", {"a": square(1, 0, 0, 1, 1), "b": square(2, 0, 0, 1, 2)}, CATS)
    second = set_of_masks(
        tmp_path / "2", {"c": square(7, 0, 0, 2, 2), "d": square(1, 0, 0, 4, 4), "e": square(0, 0, 0, 1, 1)}, LAMPS
    )
    probe = written(merge_probes({"one": first, "two": second}), tmp_path / "probe.zarr")
    assert probe["concept_name"].values.tolist() == ["cat", "dog", "lamp"]
    assert probe["concept"].values.tolist() == [1, 2, 3]
    assert probe["concept_domain"].values.tolist() == ["object", "object (one)", "object (two)"]
    assert annotated(probe) == {
        "one/a.png": ["object", "object (one)"],
        "one/b.png": ["object", "object (one)"],
        "two/c.png": ["object", "object (two)"],
        "two/d.png": ["object", "object (two)"],
        "two/e.png": [],
    }
    assert probe["domain_area"].values.tolist() == [4 * 16, 2 * 16, 2 * 16]
    assert probe["concept_area"].values.tolist() == [1 + 4, 2, 16]
    assert probe["concept_images"].values.tolist() == [2, 1, 1]


def test_one_image_of_two_sets_has_the_labels_of_both(tmp_path):
    first = set_of_masks(tmp_path / "1", {"x/a": square(1, 0, 0, 2, 2), "b": square(2, 0, 0, 1, 1)}, CATS)
    second = set_of_masks(
        tmp_path / "2", {"y/a": square(1, 1, 1, 3, 3, 255), "c": square(7, 0, 0, 1, 1)}, LAMPS, void=(255,)
    )
    merged = merge_probes({"one": first, "two": second})
    assert [row.image for row in merged.rows] == ["one/b.png", "one/x/a.png", "two/c.png"]
    assert merged.notes == (
        "1 images are in several sets: each is one, with the labels of all.",
        "1 of them are in different splits, and have that of their first set: one/x/a.png.",
    )
    assert merged.rows[1].split == "x"
    probe = written(merged, tmp_path / "probe.zarr")
    # The second set ignores all but four pixels of the image a, and one of the first set's cat is among these.
    seen = filled(SIZE, 1, 1, 3, 3)
    assert np.array_equal(probe["ignored"].values[1], ~seen)
    cat, lamp = ((probe["annotation"].values[1] == number).any(axis=0) for number in (1, 3))
    assert np.array_equal(cat, filled(SIZE, 1, 1, 2, 2))
    assert np.array_equal(lamp, seen)
    assert annotated(probe)["one/x/a.png"] == ["object", "object (one)", "object (two)"]
    assert probe["concept_area"].values.tolist() == [1 + 1, 1, 4]


def test_each_set_says_for_itself_what_an_image_is_annotated_for(tmp_path):
    first = set_of_masks(tmp_path / "1", {"a": square(1, 0, 0, 2, 2)}, CATS)
    second = set_of_masks(tmp_path / "2", {"a": square(0, 0, 0, 1, 1)}, LAMPS)  # no label: not annotated for objects
    probe = written(merge_probes({"one": first, "two": second}), tmp_path / "probe.zarr")
    assert annotated(probe) == {"one/a.png": ["object", "object (one)"]}


def test_synonyms_are_one_within_their_category(tmp_path):
    first = set_of_masks(tmp_path / "1", {"a": square(1, 0, 0, 1, 4)}, "{1: sofa, 2: {name: face, category: part}}")
    second = set_of_masks(tmp_path / "2", {"b": np.array([[1, 2, 3, 3]] * 4)}, "{1: couch, 2: settee, 3: face}")
    synonyms = {"object": {"sofa": ["couch", "settee", "divan"]}}
    merged = merge_probes({"one": first, "two": second}, synonyms=synonyms)
    assert [(c.name, c.category, c.domain) for c in merged.concepts] == [
        ("sofa", "object", "object"),
        ("face", "part", "part"),
        ("face", "object", "object (two)"),
    ]
    assert merged.notes == ("synonyms: 1 of 3 names are no concept of any set: object divan.",)
    assert written(merged, tmp_path / "probe.zarr")["concept_area"].values.tolist() == [4 + 8, 0, 8]


def test_sets_of_one_vocabulary_share_one_domain(tmp_path):
    sets = {name: set_of_masks(tmp_path / name, {name: square(1, 0, 0, 1, 1)}, CATS) for name in ("train", "val")}
    assert merge_probes(sets).domains == ("object",)


def test_one_set_alone_has_the_counts_that_it_had(tmp_path):
    alone = set_of_masks(tmp_path, {"a": square(1, 0, 0, 1, 4), "b": square(2, 0, 0, 3, 3, 255)}, CATS, void=(255,))
    before = written(alone, tmp_path / "alone.zarr")
    after = written(merge_probes({"only": alone}), tmp_path / "merged.zarr")
    for name in (
        "annotation",
        "ignored",
        "annotated",
        "concept_area",
        "concept_images",
        "domain_area",
        "concept_domain",
    ):
        assert (
            before[name].drop_vars("image", errors="ignore").equals(after[name].drop_vars("image", errors="ignore"))
        ), name


def test_a_category_and_a_federated_set(tmp_path):
    """The cats of COCO and of LVIS are one concept, which is a domain of its own."""
    images = [image(n, SIZE, neg_category_ids=[], not_exhaustive_category_ids=[]) for n in (1, 2, 3, 4)]
    images[2] |= {"neg_category_ids": [5]}
    images[3] |= {"not_exhaustive_category_ids": [5]}
    coco.photographs(tmp_path / "images", images)
    mine = [annotation(1, 1, 17, rectangle(0, 0, 2, 2)), annotation(2, 2, 18, rectangle(0, 0, 1, 1))]
    coco.write(tmp_path / "coco.json", images[:2], mine, [category(17, "cat"), category(18, "dog")])
    theirs = [annotation(1, 1, 5, rectangle(2, 2, 4, 4)), annotation(2, 4, 5, rectangle(0, 0, 4, 4))]
    coco.write(tmp_path / "lvis.json", images, theirs, [category(5, "cat"), category(6, "lamp")])
    merged = merge_probes(
        {
            "coco": read_coco(tmp_path / "images", tmp_path / "coco.json"),
            "lvis": read_lvis(tmp_path / "images", tmp_path / "lvis.json"),
        }
    )
    assert [(c.name, c.domain) for c in merged.concepts] == [
        ("cat", "object: cat"),
        ("dog", "object"),
        ("lamp", "object: lamp"),
    ]
    probe = written(merged, tmp_path / "probe.zarr")
    assert annotated(probe) == {
        "coco/000000000001.jpg": ["object", "object: cat"],
        "coco/000000000002.jpg": ["object", "object: cat"],  # COCO has labelled its dog, and would have its cats
        "lvis/000000000003.jpg": ["object: cat"],
        "lvis/000000000004.jpg": [],
    }
    assert probe["concept_area"].values.tolist() == [4 + 4, 1, 0]
    assert probe["concept_images"].values.tolist() == [1, 1, 0]


def test_parents_that_sets_disagree_on_are_none(tmp_path):
    def with_parts(folder, whole):
        concepts = f"{{1: {whole}, 2: {{name: wheel, category: part}}, 3: {{name: {whole} door, category: part}}}}"
        found = set_of_masks(tmp_path / folder, {folder: square(1, 0, 0, 1, 1)}, concepts)
        return replace(found, concepts=tuple(replace(c, parent=int(c.number > 1)) for c in found.concepts))

    merged = merge_probes({"one": with_parts("a", "car"), "two": with_parts("b", "bus")})
    assert {c.name: c.parent for c in merged.concepts} == {
        "car": 0, "wheel": 0, "car door": 1, "bus": 0, "bus door": 4,
    }  # fmt: skip
    note = "1 concepts are parts of different wholes in different sets, and have no parent: part wheel."
    assert note in merged.notes


def test_subsets_categories_colours_and_crops_of_a_merged_set(tmp_path):
    parts = "{1: cat, 2: {name: tail, category: part}}"
    first = set_of_masks(tmp_path / "1", {"train/a": square(1, 0, 0, 2, 2), "val/b": square(2, 0, 0, 2, 2)}, parts)
    second = set_of_masks(tmp_path / "2", {"val/c": square(7, 1, 1, 4, 4)}, LAMPS)
    merged = merge_probes({"one": first, "two": second})
    assert [row.image for row in merged.subset(split="val").rows] == ["one/val/b.png", "two/val/c.png"]
    only = written(merged.of_categories(["part"]), tmp_path / "parts.zarr")
    assert (only["concept_name"].values.tolist(), only["concept_area"].values.tolist()) == (["tail"], [4])
    assert annotated(only) == {"one/train/a.png": [], "one/val/b.png": ["part"], "two/val/c.png": []}
    crop = Crop(4, (2, 2))  # the middle half
    probe = written(merged.cropped(crop).with_colors(COLOR_NAMES), tmp_path / "crop.zarr")
    assert probe["concept_area"].sel(concept=[1, 2]).values.tolist() == [4 + 16, 4]  # of 4 x 4 pixels of the grid
    assert all("color" in domains for domains in annotated(probe).values())
    assert probe["concept_area"].sel(concept=probe["concept_category"] == "color").sum() == 3 * 16


def test_images_are_found_in_the_folder_of_their_set_also_when_it_moves(tmp_path):
    first = set_of_masks(tmp_path / "1", {"a": square(1, 0, 0, 2, 2)}, CATS)
    second = set_of_masks(tmp_path / "run" / "2", {"b": square(1, 0, 0, 2, 2)}, LAMPS)
    url = tmp_path / "run" / "probe.zarr"
    probe = written(merge_probes({"one": first, "two": second}), url)
    assert probe.attrs["root"] == {"one": str(tmp_path / "1/images"), "two": "2/images"}
    assert image_folder(str(url)).path("one/a.png") == tmp_path / "1/images/a.png"
    assert image_folder(str(url)).path("two/b.png") == tmp_path / "run/2/images/b.png"
    (tmp_path / "1").rename(tmp_path / "moved")

    def moved(folder):
        return {"one": replace(first, images=str(folder / "images"), maps=str(folder / "masks")), "two": second}

    write_probe(merge_probes(moved(tmp_path / "moved")), url, pool=Threads(1), show=False)
    assert image_folder(str(url)).path("one/a.png") == tmp_path / "moved/images/a.png"
    shutil.copytree(tmp_path / "moved", tmp_path / "other")
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "other/images/a.png")
    with pytest.raises(DissectError, match=r"at least one is not that which"):
        write_probe(merge_probes(moved(tmp_path / "other")), url, pool=Threads(1), show=False)
    assert image_folder(str(url)).path("one/a.png") == tmp_path / "moved/images/a.png"
    with pytest.raises(DissectError, match=r"lies outside"):
        image_folder(str(url)).path("two/../../secret.png")


def test_links_may_lead_out_of_the_folders_of_a_set_that_allows_it(tmp_path):
    first = set_of_masks(tmp_path / "1", {"a": square(1, 0, 0, 2, 2)}, CATS)
    second = set_of_masks(tmp_path / "2", {"b": square(1, 0, 0, 2, 2)}, LAMPS)
    (tmp_path / "1/images/a.png").rename(tmp_path / "elsewhere.png")
    (tmp_path / "1/images/a.png").symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(DissectError, match=r"lies outside"):
        written(merge_probes({"one": first, "two": second}), tmp_path / "refused.zarr")
    written(merge_probes({"one": first.following_links(), "two": second}), tmp_path / "probe.zarr")
    assert image_folder(str(tmp_path / "probe.zarr")).path("one/a.png").is_file()


def test_two_forms_of_one_image_are_refused(tmp_path):
    """One set follows the photograph as it is stored, the other one as viewers display it."""
    sets = {}
    for name, shape in (("stored", (2, 4)), ("displayed", (4, 2))):
        found = set_of_masks(tmp_path / name, {"a": np.ones(shape)}, CATS)
        Image.new("RGB", (4, 2), (9, 9, 9)).save(tmp_path / name / "images/a.png", exif=exif(6))
        sets[name] = replace(found, label_size=SIZE)
    probe = written(merge_probes({"displayed": sets["displayed"]}), tmp_path / "one.zarr")
    assert probe.attrs["turned"] == {"displayed/a.png": 6}
    with pytest.raises(
        DissectError, match=r"a\.png: has the EXIF orientation 6. Of the label sets that are merged, one"
    ):
        written(merge_probes(sets), tmp_path / "probe.zarr")


def test_a_bad_image_is_left_out_with_all_its_labels(tmp_path):
    first = set_of_masks(tmp_path / "1", {"a": square(1, 0, 0, 2, 2), "b": square(1, 0, 0, 1, 1)}, CATS)
    second = set_of_masks(tmp_path / "2", {"a": square(1, 0, 0, 2, 2), "c": square(1, 0, 0, 1, 1)}, LAMPS)
    Image.fromarray(square(9, 0, 0, 1, 1)).save(tmp_path / "2/masks/a.png")
    merged = merge_probes({"one": first, "two": second})
    with pytest.raises(DissectError, match=r"2/masks/a\.png: holds label 9, which is no concept"):
        written(merged, tmp_path / "probe.zarr")
    kept = without_bad_images(merged, str(tmp_path / "kept.zarr"), pool=Threads(1), show=False)
    assert [row.image for row in kept.rows] == ["one/b.png", "two/c.png"]
    assert str(tmp_path) not in str(kept.parameters["skipped"])


def test_rare_concepts_are_left_out(tmp_path):
    first = set_of_masks(tmp_path / "1", {"a": square(1, 0, 0, 1, 1), "b": square(1, 0, 0, 1, 1)}, CATS)
    second = set_of_masks(tmp_path / "2", {"c": square(7, 0, 0, 2, 2), "d": square(1, 0, 0, 4, 4)}, LAMPS)
    merged = merge_probes({"one": first, "two": second})
    url = str(tmp_path / "probe.zarr")
    found = without_rare_concepts(merged, 3, url=url, pool=Threads(1), show=False)
    assert [concept.name for concept in found.concepts] == ["cat"]
    assert found.notes[-1] == "2 of 3 concepts are in fewer than 3 images: dog, lamp."
    assert found.parameters["min_images"] == 3
    probe = written(found, Path(url))
    assert probe["concept_area"].values.tolist() == [1 + 1 + 4]
    assert annotated(probe)["two/d.png"] == []  # what it has a label of is no concept any more
    for path in (tmp_path / "1/masks").iterdir():  # a resumed run does not decode them again
        path.unlink()
    assert without_rare_concepts(merged, 3, url=url, pool=Threads(1), show=False).concepts == found.concepts
    with pytest.raises(DissectError, match=r"min_images: no concept is in 4 images, the most frequent is in 3"):
        without_rare_concepts(merged, 4, url=url, show=False)


def test_rare_concepts_are_counted_as_the_probe_counts_them(tmp_path):
    """On the grid, without ignored pixels and what is not verified, with labels of whole images."""
    mask = square(1, 0, 0, 1, 1)  # not on a grid of 2 x 2
    first = set_of_masks(tmp_path / "1", {"a": mask, "b": square(2, 0, 0, 4, 4)}, CATS)
    whole = [replace(row, whole=(2,)) if row.image == "a.png" else row for row in first.rows]
    label_set = replace(first, rows=tuple(whole), label_size=(2, 2))
    probe = written(label_set, tmp_path / "probe.zarr")
    assert probe["concept_images"].values.tolist() == [0, 2]
    found = without_rare_concepts(label_set, 1, show=False)
    assert [concept.number for concept in found.concepts] == [2]
    own = replace(label_set, concepts=tuple(replace(c, own_domain=True) for c in label_set.concepts))
    with pytest.raises(DissectError, match=r"no concept is in 1 images"):
        without_rare_concepts(own, 1, show=False)


def test_what_cannot_be_merged_is_said(tmp_path):
    one = set_of_masks(tmp_path / "1", {"a": square(1, 0, 0, 1, 1)}, CATS)
    bad = {
        r"expected at least one label set": {},
        r"'a/b' cannot be the name": {"a/b": one},
        r"'\.\.' cannot be the name": {"..": one},
        r"'' cannot be the name": {"": one},
        r"'m' is merged itself: merge its parts": {"m": merge_probes({"one": one})},
        r"'c' has colours or a crop": {"c": one.with_colors(COLOR_NAMES)},
        r"'c' has colours or a crop.*": {"c": one.cropped(Crop(4, (2, 2)))},
        r"sizes differ: one \[4, 4\], two \[2, 2\]. Give": {"one": one, "two": replace(one, label_size=(2, 2))},
        r"empty: the probe would hold no image": {"empty": replace(one, rows=())},
        r"double: concepts 1 and 9 are both called 'cat'": {
            "double": replace(one, concepts=(*one.concepts, Concept(9, "cat", "object")))
        },
    }  # fmt: skip
    for message, sets in bad.items():
        with pytest.raises(DissectError, match=message):
            merge_probes(sets)


def test_where_folders_lie_does_not_make_another_probe_but_numbers_do(tmp_path):
    sets = [
        {"one": set_of_masks(tmp_path / name / "1", {"a": square(1, 0, 0, 1, 1)}, CATS),
         "two": set_of_masks(tmp_path / name / "2", {"b": square(1, 0, 0, 1, 1)}, lamps)}
        for name, lamps in (("here", LAMPS), ("there", LAMPS), ("other", "{2: lamp, 7: cat}"))
    ]  # fmt: skip
    first, second, third = (label_set_fingerprint(merge_probes(one)) for one in sets)
    assert first == second != third


def test_a_task_carries_no_tables_of_65000_concepts(tmp_path):
    one = set_of_masks(tmp_path / "1", {"a": square(1, 0, 0, 1, 1)}, CATS)
    many = tuple(Concept(n, f"a concept with a long name, {n}", "object") for n in range(1, 65_001))
    names = ("a", "b", "c")
    merged = merge_probes({name: replace(one, concepts=many) for name in names})
    for task in tasks_of(ingest, lambda: write_probe(merged, str(tmp_path / "probe.zarr"), show=False)):
        assert len(pickle.dumps(task)) < 2**15
