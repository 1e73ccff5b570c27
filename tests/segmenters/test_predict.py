"""Predicted label maps: drawn once, block by block, kept, verified, and read as labels of a probe."""

import numpy as np
import painted
import pytest
from PIL import Image

from dissect_xr import merge_probes, read_masks, store, write_probe
from dissect_xr.activations.request import ModelSpec, Preprocess
from dissect_xr.errors import BlocksFailed, DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.ingest import open_probe
from dissect_xr.probe.readers.masks import MaskFormat
from dissect_xr.segmenters import predict as stage
from dissect_xr.segmenters.agreement import with_agreement
from dissect_xr.segmenters.label_set import predicted, predicted_url, unlabelled
from dissect_xr.segmenters.predict import predict
from dissect_xr.segmenters.segmenter import Segmenter, numbered
from dissect_xr.store.verify import verify


def segmenter(folder, **fields):
    kwargs = fields.pop("kwargs", {})
    given = {"classes": numbered(painted.CLASSES), "nothing": (0,), "batch": 2} | fields
    return Segmenter(ModelSpec.of(f"{folder}/colours.py:Colours", kwargs), Preprocess(painted.SIZE), **given)


def drawn(folder, asked, images=None, out="out"):
    """The label set of predicted labels, after they were drawn."""
    images = images or unlabelled(folder / "images")
    url = predicted_url(str(folder / out), "colours", images, asked)
    predict(images, asked, url, pool=Threads(1), show=False)
    return predicted(images, asked, url, label_size=painted.SIZE)


def people(folder):
    return read_masks(
        images=folder / "images", masks=folder / "masks", concepts=folder / "concepts.yaml",
        format=MaskFormat(void=(255,)),
    )  # fmt: skip


def written(label_set, folder, name="probe.zarr"):
    write_probe(label_set, folder / name, pool=Threads(1), show=False)
    return open_probe(folder / name).load()


@pytest.mark.parametrize("form", ["tensor", "out", "labels"])
def test_labels_by_hand(tmp_path, form):
    painted.write(tmp_path)
    probe = written(drawn(tmp_path, segmenter(tmp_path, kwargs={"form": form})), tmp_path)
    assert probe["concept_name"].values.tolist() == ["red", "green"]
    assert probe["concept_area"].values.tolist() == [6, 6 + 8]
    assert probe["label_source"].values.tolist() == ["predicted", "predicted"]
    assert probe["label_union"].values.tolist() == [0, 0]  # nobody compared them
    red = np.zeros(painted.SIZE, bool)
    red[:2, :3] = True
    assert np.array_equal(probe["annotation"].values[0, 0] == 2, red)
    assert probe["annotated"].values[:, 0].tolist() == [True, True, False]  # an image without a label


def test_labels_are_drawn_in_the_proportions_of_each_image(tmp_path):
    painted.write(tmp_path)
    Image.fromarray(np.full((8, 2, 3), painted.RED, np.uint8)).save(tmp_path / "images/d.png")
    label_set = drawn(tmp_path, segmenter(tmp_path))
    with Image.open(f"{label_set.maps}/d.png.png") as image:
        assert image.size == (2, 8)
        assert np.unique(np.asarray(image)).tolist() == [2]


def test_an_image_with_an_exif_orientation_is_seen_as_it_is_displayed(tmp_path):
    painted.write(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "images/e.jpg"
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, 16:] = (250, 0, 0)
    Image.fromarray(stored).save(path, exif=exif, quality=100, subsampling=0)
    label_set = drawn(tmp_path, segmenter(tmp_path))
    with Image.open(f"{label_set.maps}/e.jpg.png") as image:
        assert image.size == (16, 32)
        assert (np.asarray(image)[24:] == 2).all()  # what is right as stored is below as displayed
        assert (np.asarray(image)[:8] == 0).all()
    assert written(label_set, tmp_path).attrs["turned"] == {"e.jpg": 6}
    stored_form = segmenter(tmp_path, orientation="stored")
    assert written(drawn(tmp_path, stored_form), tmp_path, "stored.zarr").attrs["turned"] == {}


def test_finished_blocks_are_kept_and_missing_ones_drawn(tmp_path, monkeypatch):
    painted.write(tmp_path)
    monkeypatch.setattr(stage, "block_length", lambda images: 1)
    asked, images = segmenter(tmp_path), unlabelled(tmp_path / "images")
    url = predicted_url(str(tmp_path / "out"), "colours", images, asked)
    predict(images, asked, url, pool=Threads(1), show=False)
    assert verify(str(tmp_path / "out"), show=False)[0] == []
    before = {path: path.stat().st_mtime_ns for path in sorted((tmp_path / "out").rglob("*.png"))}
    store.drop(url, {"blocks/1-2"})
    calls = []
    work = stage.predict_block
    monkeypatch.setattr(stage, "predict_block", lambda task: (calls.append(task.images), work(task)))
    predict(images, asked, url, pool=Threads(1), show=False)
    assert calls == [("b.png",)]
    changed = [path.name for path in before if path.exists() and path.stat().st_mtime_ns != before[path]]
    assert changed == ["b.png.png"]
    predict(images, asked, url, pool=Threads(1), show=False)
    assert calls == [("b.png",)]


def test_a_damaged_label_map_is_found(tmp_path):
    painted.write(tmp_path)
    label_set = drawn(tmp_path, segmenter(tmp_path))
    path = f"{label_set.maps}/b.png.png"
    with Image.open(path) as image:
        Image.fromarray(np.asarray(image)[:, ::-1]).save(path)
    damages, _ = verify(str(tmp_path / "out"), show=False)
    assert [damage.where for damage in damages] == [path]


def test_another_segmenter_draws_elsewhere(tmp_path):
    painted.write(tmp_path)
    one, other = segmenter(tmp_path), segmenter(tmp_path, confidence=0.5)
    images = unlabelled(tmp_path / "images")
    urls = {predicted_url(str(tmp_path), "colours", images, asked) for asked in (one, other)}
    assert len(urls) == 2
    sets = [drawn(tmp_path, asked) for asked in (one, other)]
    assert sets[0].parameters["segmenter"]["sha256"] != sets[1].parameters["segmenter"]["sha256"]
    # exp(1) / (exp(0.5) + exp(1) + exp(0)) = 0.51 is enough, and exp(0.5) / (exp(0.5) + 2) = 0.45 is nothing anyway.
    assert written(sets[1], tmp_path)["concept_area"].values.tolist() == [6, 14]


def test_an_error_names_the_block_and_the_class(tmp_path):
    painted.write(tmp_path)
    with pytest.raises((BlocksFailed, DissectError), match=r"classes 0 to 2; 1 are neither in `classes`"):
        drawn(tmp_path, segmenter(tmp_path, classes=numbered({2: "green"})))


def test_agreement_by_hand(tmp_path):
    painted.write(tmp_path)
    found = with_agreement(drawn(tmp_path, segmenter(tmp_path)), people(tmp_path), pool=Threads(1), show=False)
    assert {concept.name: concept.agreement for concept in found.concepts} == painted.AGREEMENT
    probe = written(found, tmp_path)
    assert probe["label_intersection"].values.tolist() == [both for both, _ in painted.AGREEMENT.values()]
    assert probe["label_union"].values.tolist() == [either for _, either in painted.AGREEMENT.values()]


def test_agreement_is_recorded_with_the_probe(tmp_path, monkeypatch):
    painted.write(tmp_path)
    url = str(tmp_path / "probe.zarr")
    found = drawn(tmp_path, segmenter(tmp_path))
    first = with_agreement(found, people(tmp_path), url=url, pool=Threads(1), show=False)

    def fail(task):
        raise AssertionError("counted again")

    monkeypatch.setattr("dissect_xr.segmenters.agreement.count_agreement", fail)
    assert with_agreement(found, people(tmp_path), url=url, pool=Threads(1), show=False) == first


def test_what_has_nothing_in_common_is_refused(tmp_path):
    painted.write(tmp_path)
    found = drawn(tmp_path, segmenter(tmp_path, classes=numbered({1: "rot", 2: "grün"})))
    with pytest.raises(DissectError, match="have no concept of one name and category in common"):
        with_agreement(found, people(tmp_path), pool=Threads(1), show=False)


def test_labels_of_people_and_of_a_segmenter_in_one_probe(tmp_path):
    painted.write(tmp_path)
    labels = {"people": people(tmp_path), "colours": drawn(tmp_path, segmenter(tmp_path))}
    probe = written(merge_probes(labels, label_size=painted.SIZE), tmp_path)
    assert probe.sizes["image"] == 3  # an image of both is one
    assert probe["label_source"].values.tolist() == ["mixed", "mixed"]
    # Pixels with either label; the ignored one has none.
    assert probe["concept_area"].values.tolist() == [4 + 2 + 1, 5 + 8]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"confidence": 1.0}, "confidence must be at least 0 and below 1, got 1.0"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"classes": ()}, "expected at least one class with a name"),
        ({"nothing": (1,)}, "class 1 has a name, and is said to mean nothing"),
    ],
)
def test_a_segmenter_that_contradicts_itself_is_refused(tmp_path, fields, message):
    with pytest.raises(DissectError, match=message):
        segmenter(tmp_path, **fields)


def test_a_segmenter_sees_whole_images(tmp_path):
    with pytest.raises(DissectError, match=r"it must see whole images\. Leave out `resize`"):
        Segmenter(ModelSpec("a.py:b"), Preprocess((2, 2), resize=4), numbered({0: "sky"}))
