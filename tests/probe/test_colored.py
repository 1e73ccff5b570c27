"""A colour is a class of the table or an error; in CamVid, black is what nobody could tell."""

import numpy as np
import published_sets as sets
import pytest
from checkout import DATA, needs_data
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from published_sets import areas, probed
from stores import scratch

from dissect_xr.errors import DissectError
from dissect_xr.probe.ingest import label_set_fingerprint
from dissect_xr.probe.readers.broden import decode_broden, read_broden
from dissect_xr.probe.readers.pairs import Names
from dissect_xr.probe.readers.scenes.colored import Colored, read_colored, read_colors


def read(root, **options):
    return read_colored(
        image_folder=root / "701_StillsRaw_full", mask_folder=root / "LabeledApproved_full",
        colors_table=root / "label_colors.txt", names=Names(mask="{stem}_L.png"), **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "extra", "domain"),
    [({}, {"Void": 5}, 32), ({"unlabelled": ["Void"]}, {}, 32), ({"void": ["Void"]}, {}, 27)],
)
def test_what_black_means_has_to_be_said(tmp_path, options, extra, domain):
    probe = probed(read(sets.camvid(tmp_path / "set"), **options), tmp_path)
    assert areas(probe) == {"Road": 11, "Sky": 12, "Car": 4} | extra
    assert int(probe["domain_area"][0]) == domain


def test_the_nth_class_of_the_table_is_concept_n(tmp_path):
    found = read(sets.camvid(tmp_path), void=["Void"])
    assert {c.number: c.name for c in found.concepts} == {
        1: "Animal", 2: "Car", 3: "Road", 4: "Sky", 5: "SUVPickupTruck"
    }  # fmt: skip
    assert found.void == {6}


COLORS = st.tuples(*[st.integers(0, 255)] * 3)


@given(st.lists(COLORS, min_size=1, max_size=40, unique=True), st.data())
def test_every_colour_is_its_place_in_the_table(table, data):
    numbers = np.array(data.draw(st.lists(st.integers(1, len(table)), min_size=1, max_size=20)))[None]
    with scratch() as folder:
        path = sets.save(folder / "a.png", np.array(table)[numbers - 1])
        assert Colored(tuple(table))(path).tolist() == numbers.tolist()


@given(st.lists(COLORS, min_size=1, max_size=6, unique=True), COLORS)
def test_a_colour_that_is_not_in_the_table_is_refused_however_near(table, color):
    with scratch() as folder:
        path = sets.save(folder / "a.png", np.array([[table[0], color]]))
        if color in table:
            assert Colored(tuple(table))(path).tolist() == [[1, table.index(color) + 1]]
        else:
            with pytest.raises(DissectError, match=r"a\.png: holds 1 colours that are not in the table"):
                Colored(tuple(table))(path)


KINDS = {
    "RGB": lambda image: image.copy(),
    "palette": lambda image: image.quantize(6),
    "opaque": lambda image: image.convert("RGBA"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_colours_are_read_from_any_kind_of_file_that_has_them(tmp_path, kind):
    root = sets.camvid(tmp_path / "set")
    for path in (root / "LabeledApproved_full").iterdir():
        with Image.open(path) as image:
            saved = KINDS[kind](image)
        saved.save(path)
        assert saved.mode == {"palette": "P", "opaque": "RGBA"}.get(kind, "RGB")
    assert areas(probed(read(root, void=["Void"]), tmp_path)) == {"Road": 11, "Sky": 12, "Car": 4}


def test_half_transparent_and_16_bit_files_are_refused(tmp_path):
    root = sets.camvid(tmp_path)
    path = root / "LabeledApproved_full/0001TP_006690_L.png"
    with Image.open(path) as image:
        faded = image.convert("RGBA")
    faded.putalpha(128)
    faded.save(path)
    with pytest.raises(
        DissectError, match=r"expected a label map in opaque colours.*Pillow mode RGBA with transparency"
    ):
        read(root)
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(path)
    with pytest.raises(DissectError, match=r"expected a label map in opaque colours.*Pillow mode I;16"):
        read(root)


def test_grey_is_a_colour_of_equal_channels(tmp_path):
    path = sets.save(tmp_path / "a.png", np.array([[0, 128]]))
    assert Colored(((128, 128, 128), (0, 0, 0)))(path).tolist() == [[2, 1]]


def test_a_resized_label_map_has_colours_of_its_borders(tmp_path):
    pixels = np.repeat([[[128, 64, 128], [128, 128, 128]]], 2, axis=0).astype(np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).resize((8, 8), Image.Resampling.BILINEAR).save(path)
    with pytest.raises(DissectError, match=r"holds 4 colours that are not in the table.*resize by nearest neighbour"):
        Colored(((128, 64, 128), (128, 128, 128)))(path)


def test_tables_as_csv_may_have_categories(tmp_path):
    root = sets.camvid(tmp_path / "set")
    rows = [
        f"{name},{r},{g},{b},{'vehicle' if name == 'Car' else ''}" for name, (r, g, b) in sets.CAMVID_COLORS.items()
    ]
    (root / "colors.csv").write_text("name,r,g,b,category\n" + "\n".join(rows))
    given = {"image_folder": root / "701_StillsRaw_full", "mask_folder": root / "LabeledApproved_full"}
    found = read_colored(**given, colors_table=root / "colors.csv", names=Names(mask="{stem}_L.png"), void=["Void"])
    assert found.categories == ("object", "vehicle")
    probe = probed(found, tmp_path)
    assert areas(probe) == {"Road": 11, "Sky": 12, "Car": 4}
    assert probe["annotated"].values.tolist() == [[True, True], [True, False]]
    cars = read_colored(
        **given, colors_table=root / "colors.csv", names=Names(mask="{stem}_L.png"), categories=["vehicle"]
    )
    home = tmp_path / "cars"
    home.mkdir()
    assert areas(probed(cars, home)) == {"Car": 4}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 2 3 a\n4 5 b\n", r"line 2: expected red, green, blue and a name, got '4 5 b'"),
        ("1 2 3 a\n1 2 256 b\n", r"line 2: expected red, green and blue from 0 to 255, got \[1, 2, 256\]"),
        ("1 2 3 a\n1 2 3 b\n", r"line 2: the colour \[1, 2, 3\] is 'a' already, .*line 1"),
        ("# nothing\n", r"expected a table of colours, found no row"),
    ],
)
def test_malformed_tables_are_named(tmp_path, content, message):
    (tmp_path / "colors.txt").write_text(content)
    with pytest.raises(DissectError, match=rf"colors\.txt.*{message}"):
        read_colors(tmp_path / "colors.txt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"void": ["void"]}, r"void: void not in .*; there are \['Animal', 'Car'"),
        ({"unlabelled": ["Void"], "void": ["Void"]}, "void: 'Void' is among `unlabelled`, too"),
        ({"categories": ["part"]}, "categories: part not in"),
    ],
)
def test_names_that_are_not_in_the_table_are_refused(tmp_path, options, message):
    with pytest.raises(DissectError, match=message):
        read(sets.camvid(tmp_path), **options)


def test_what_a_colour_means_is_part_of_the_probe(tmp_path):
    root = sets.camvid(tmp_path)
    before = label_set_fingerprint(read(root))
    table = (root / "label_colors.txt").read_text()
    (root / "label_colors.txt").write_text(table.replace("64 128 64\tAnimal", "64 128 65\tAnimal"))
    assert label_set_fingerprint(read(root)) != before


@pytest.mark.data
@needs_data
def test_the_real_labels_in_colours_have_the_areas_they_have_in_broden(tmp_path):
    """16 photographs of CamVid, their label maps painted in its colours."""
    broden = read_broden(DATA / "camvid_broden", categories=["object"]).subset(limit=16)
    names = {c.number: c.name for c in broden.concepts}
    table = {number: (number, 255 - number, 7 * number % 256) for number in names} | {0: (0, 0, 0)}
    lines = [f"{r} {g} {b}\t{names.get(number, 'Void')}" for number, (r, g, b) in table.items()]
    (tmp_path / "colors.txt").write_text("\n".join(lines))
    for n, row in enumerate(broden.rows):
        numbers = decode_broden(DATA / "camvid_broden/images" / row.maps[0][1])
        lookup = np.zeros((max(table) + 1, 3), np.uint8)
        for number, color in table.items():
            lookup[number] = color
        sets.save(tmp_path / "masks" / f"{n:02d}.png", lookup[numbers])
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / f"{n:02d}.jpg").write_bytes((DATA / "camvid_broden/images" / row.image).read_bytes())
    found = read_colored(
        image_folder=tmp_path / "images", mask_folder=tmp_path / "masks", colors_table=tmp_path / "colors.txt",
        unlabelled=["Void"],
    )  # fmt: skip
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    wanted = areas(probed(broden, tmp_path / "one"))
    assert len(wanted) == 11
    assert areas(probed(found, tmp_path / "two")) == wanted
