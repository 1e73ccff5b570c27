"""Whatever is in masks, their images and tables of concepts: a message, or exactly the numbers that were saved."""

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from oriented import DISPLAYED, exif
from PIL import Image
from stores import scratch
from test_fuzz import share

from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.colors import COLOR_NAMES, color_labels
from dissect_xr.probe.ingest import open_probe, write_probe
from dissect_xr.probe.label_set import Concept
from dissect_xr.probe.readers.concepts import read_concepts
from dissect_xr.probe.readers.masks import MaskFormat, decode_mask, read_masks
from dissect_xr.probe.readers.pairs import Names, paired

pytestmark = pytest.mark.slow

SIDE = st.integers(1, 6)

# --- masks ---

SAVED = {
    "grey": ("PNG", {}),
    "grey of 2 bits": ("PNG", {"bits": 2}),
    "grey of 4 bits": ("PNG", {"bits": 4}),
    "16 bits": ("PNG", {}),
    "32 bits": ("TIFF", {}),
    "RGB": ("PNG", {}),
    "RGBA": ("PNG", {}),
    "LA": ("PNG", {}),
    "palette": ("PNG", {}),
    "palette of 4 bits": ("PNG", {"bits": 4}),
    "palette in a GIF": ("GIF", {}),
    "TIFF": ("TIFF", {"compression": "tiff_lzw"}),
    "BMP": ("BMP", {}),
    "JPEG": ("JPEG", {"quality": 100}),
    "WebP": ("WEBP", {"lossless": True}),
    "turned": ("PNG", {"exif": exif(6)}),
}


def picture(numbers: np.ndarray, how: str) -> Image.Image:
    """The numbers of a mask as one may save them."""
    grey, opaque = numbers.astype(np.uint8), np.full(numbers.shape, 255, np.uint8)
    match how.split()[0]:
        case "16":
            return Image.fromarray(numbers.astype(np.uint16))
        case "32":
            return Image.fromarray(numbers.astype(np.int32))
        case "RGB":
            return Image.fromarray(np.stack([grey] * 3, -1))
        case "RGBA":
            return Image.fromarray(np.stack([grey] * 3 + [opaque], -1))
        case "LA":
            return Image.fromarray(np.stack([grey, opaque], -1), "LA")
        case "palette":
            image = Image.fromarray(grey)
            image.putpalette([n for level in range(256) for n in (level, 0, 255 - level)])
            return image
        case _:
            return Image.fromarray(grey)


@st.composite
def masks(draw):
    """(numbers, how they are saved); some with more bits than that way has, which would be no fair question."""
    how = draw(st.sampled_from(sorted(SAVED)))
    bits = {"grey of 2 bits": 2, "grey of 4 bits": 4, "palette of 4 bits": 4, "16 bits": 16, "32 bits": 17}.get(how, 8)
    shape = draw(st.tuples(SIDE, SIDE))
    number = st.integers(0, 2**bits - 1) | st.sampled_from([0, 1, 2**bits - 1])
    flat = draw(st.lists(number, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
    return np.array(flat).reshape(shape), how


UNFIT = ("JPEG", "WebP", "turned", "palette in a GIF", "grey of 2 bits", "grey of 4 bits")


def attempt(function, *given, **options):
    """(result, ""), or (None, what was said) where it was refused."""
    try:
        return function(*given, **options), ""
    except DissectError as error:
        return None, str(error)


@share(0.04)
@given(masks())
def test_masks_are_refused_or_hold_what_was_saved(case):
    numbers, how = case
    kind, options = SAVED[how]
    with scratch() as folder:
        picture(numbers, how).save(folder / "a.png", kind, **options)
        found, said = attempt(decode_mask, folder / "a.png")
    assert (found is None) == (how in UNFIT or numbers.max() > 65535), said
    assert found is None or found.tolist() == numbers.tolist()


@share(0.03)
@given(
    shape=st.tuples(SIDE, SIDE),
    orientation=st.sampled_from([0, 9, *DISPLAYED]),
    drawn_on=st.sampled_from(["stored", "displayed", "something else"]),
    asked=st.sampled_from([None, "stored", "displayed"]),
    seed=st.integers(0, 99),
)
def test_labels_lie_on_the_pixels_that_they_were_drawn_on_or_are_refused(shape, orientation, drawn_on, asked, seed):
    random = np.random.default_rng(seed)
    stored = random.integers(0, 256, (*shape, 3), np.uint8)
    forms = {"stored": stored, "displayed": DISPLAYED.get(orientation, DISPLAYED[1])(stored)}
    size = forms[drawn_on].shape[:2] if drawn_on in forms else tuple(random.integers(1, 99, 2).tolist())
    mask = random.integers(0, 3, size, np.uint8)
    with scratch() as folder:
        label_set = one_image(folder, stored, mask, orientation)
        url = str(folder / "p.zarr")
        _, said = attempt(write_probe, label_set.oriented(asked), url, pool=Threads(1), show=False)
        if said:
            assert drawn_on == "something else" or (orientation in range(2, 9) and asked != drawn_on), said
            return
        planes = open_probe(str(folder / "p.zarr"))["annotation"].values[0]
    assert planes[0].tolist() == mask.tolist()
    if drawn_on in forms and asked in (None, drawn_on):
        below = planes[1] - 2  # numbers 1 and 2 are the concepts of the mask
        wanted = [color_labels(pixels) for pixels in forms.values() if pixels.shape[:2] == size]
        assert any((below == colors).all() for colors in wanted)
        if asked == drawn_on:
            np.testing.assert_array_equal(below, color_labels(forms[drawn_on]))


def one_image(folder: Path, pixels: np.ndarray, mask: np.ndarray, orientation: int):
    """A label set of one image and its mask, in which 1 and 2 are concepts, with colours."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    Image.fromarray(pixels).save(folder / "images/a.png", exif=exif(orientation))
    Image.fromarray(mask).save(folder / "masks/a.png")
    (folder / "concepts.yaml").write_text("1: road\n2: car\n")
    given = {"images": folder / "images", "masks": folder / "masks", "concepts": folder / "concepts.yaml"}
    return read_masks(**given).with_colors(COLOR_NAMES)


# --- tables of concepts ---

NAME = st.text(st.characters(exclude_categories=["C"], codec="utf-8"), min_size=1, max_size=5).filter(
    lambda text: text == text.strip() and not text.isspace()
)
ENTRY = st.tuples(st.integers(1, 9) | st.integers(-1, 70_000), NAME, st.none() | NAME)


def sensible(entries, offset: int) -> tuple[Concept, ...] | None:
    """The concepts that a table of these entries means, None if it must be refused."""
    numbers = [number + offset for number, _, _ in entries]
    if len(set(numbers)) < len(numbers) or any(not 1 <= number <= 65535 for number in numbers):
        return None
    found = [Concept(number + offset, name, category or "object") for number, name, category in entries]
    return tuple(sorted(found, key=lambda concept: concept.number))


@share(0.03)
@given(
    st.lists(ENTRY, min_size=1, max_size=5),
    st.integers(0, 2),
    st.sampled_from(["road", "nmae", "category: 3"]),
    st.data(),
)
def test_yaml_tables_are_refused_or_mean_what_they_say(entries, offset, broken, data):
    lines = []
    for number, name, category in entries:
        value = name if category is None else {"name": name, "category": category}
        lines.append(
            yaml.safe_dump({number: value}, allow_unicode=True, default_flow_style=True, width=999).strip()[1:-1]
        )
    wanted = sensible(entries, offset)
    if data.draw(st.integers(0, 3)) == 0:
        lines.insert(data.draw(st.integers(0, len(lines))), f"{data.draw(st.integers(1, 9))}: {{{broken}}}")
        wanted = None
    with scratch() as folder:
        (folder / "c.yaml").write_text("\n".join(lines), encoding="utf-8")
        found, said = attempt(read_concepts, folder / "c.yaml", offset=offset)
    assert (found and found[0]) == wanted, said
    assert found or re.search(r"c\.yaml, line \d+: |line \d+ is not readable as YAML", said), said


@share(0.02)
@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from([*"123:-?&*[]{}<'\"\n ", "road", "name", "!!int", "<<"])).map("".join)
)
def test_any_text_is_a_table_or_refused(text):
    with scratch() as folder, contextlib.suppress(DissectError):
        (folder / "c.yaml").write_text(text, encoding="utf-8", errors="replace")
        found, _ = read_concepts(folder / "c.yaml")
        assert len({concept.number for concept in found}) == len(found)
        assert all(1 <= c.number <= 65535 and c.name.strip() and c.category.strip() for c in found)


@share(0.03)
@given(
    entries=st.lists(ENTRY, min_size=1, max_size=5),
    delimiter=st.sampled_from([",", ";", "\t"]),
    ends=st.sampled_from(["", "", ",", ",,"]),
    space=st.sampled_from(["", "", " "]),
    point=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_csv_tables_are_refused_or_mean_what_they_say(entries, delimiter, ends, space, point, encoding, newline):
    rows = [("number", "name", "category")]
    rows += [(f"{number}.0" if point else str(number), name, category or "") for number, name, category in entries]
    quoted = [[cell if cell.isalnum() else '"' + cell.replace('"', '""') + '"' for cell in row] for row in rows]
    tail = ends.replace(",", delimiter)
    text = "".join((delimiter + space).join(cells) + tail + newline for cells in quoted)
    wanted = sensible(entries, 0)
    with scratch() as folder:
        try:
            (folder / "c.csv").write_bytes(text.encode(encoding))
        except UnicodeEncodeError:
            return
        found, said = attempt(read_concepts, folder / "c.csv")
    assert (found and found[0]) == wanted or "not certainly in Windows-1252" in said, said


# --- folders ---

FILE = st.sampled_from(
    ["a.jpg", "a.png", "a.PNG", "a.txt", "é.jpg", "e\u0301.jpg", "é.png", "e\u0301.png", ".a.png", "._a.jpg",
     "b_mask.png", "b.jpg", "b.gif", "x/a.jpg", "x/a.png", "__MACOSX/a.jpg", "c", "[c].jpg", "[c].png", "a b.jpg",
     "a b.png"]
)  # fmt: skip


@share(0.02)
@given(st.sets(FILE), st.sets(FILE), st.booleans(), st.sampled_from(["{stem}", "{stem}.jpg"]))
def test_every_image_has_its_mask_or_that_is_said(images, masks, apart, pattern):
    with scratch() as folder:
        for kind, names in (("i", images), ("m" if apart else "i", masks)):
            for name in {"", *names}:
                path = folder / kind / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch() if name else path.mkdir(exist_ok=True)
        roots = folder / "i", folder / ("m" if apart else "i")
        with contextlib.suppress(DissectError):
            pairs, _ = paired(*roots, Names(image=pattern))
            assert pairs
            assert len({image for image, _ in pairs}) == len({mask for _, mask in pairs}) == len(pairs)
            for image, mask in pairs:
                assert (roots[0] / image).is_file()
                assert (roots[1] / mask).is_file()
                assert not any(part.startswith(".") or part == "__MACOSX" for part in Path(image).parts)
            if apart:
                hidden = (".", "__MACOSX")
                mine = {n for n in images if n.endswith((".jpg", ".png", ".PNG", ".gif")) and not n.startswith(hidden)}
                assert {image for image, _ in pairs} == (
                    {n for n in mine if n.endswith(".jpg")} if "." in pattern else mine
                )


@share(0.01)
@given(
    st.integers(-2, 70_000), st.integers(-2, 70_000) | st.lists(st.integers(-2, 300), max_size=3), st.text(max_size=8)
)
def test_formats_of_masks_are_refused_or_made(offset, unlabelled, name):
    with contextlib.suppress(DissectError), contextlib.redirect_stderr(io.StringIO()):
        format = MaskFormat(offset=offset, unlabelled=unlabelled)
        assert all(0 <= number <= 65535 for number in format.void)
    with contextlib.suppress(DissectError):
        assert Names(mask=f"{{stem}}{name}").mask_of("x/a.jpg").startswith("x/a")
