"""Whatever is in the tables, the images, the recipe or the command: a message, or the right counts; never a traceback.

FUZZ_CASES is the number of cases in total (1,000 where it is not set), shared among the tests.
"""

import contextlib
import csv
import io
import os
from pathlib import Path

import numpy as np
import pytest
import stores
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("torch")

import runs

from dissect_xr import store
from dissect_xr.cli.recipe import load_recipe
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.ingest import write_probe
from dissect_xr.probe.pixels import open_image
from dissect_xr.probe.readers.broden import decode_broden, read_broden
from dissect_xr.probe.readers.masks import decode_mask

pytestmark = pytest.mark.slow

CASES = int(os.environ.get("FUZZ_CASES", "1000"))

SIDE = 4


def share(part: float, seconds: int = 20):
    """Settings of a test that gets this part of all cases; a case that takes longer counts as hanging."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(max_examples=max(5, int(CASES * part)), deadline=seconds * 1000, suppress_health_check=quiet)


# --- tables ---

WEIRD = st.sampled_from(
    ["", "0", "1", "2", "-1", "65535", "65536", "1e9", "nan", "x", ";", "1;2", "a.png", "../a.png", "/etc/passwd",
     "a.png;a.png", "a.png;1", " 1 ", "１", "a\x00b", "a\nb", '"', "=1+1", "<script>", "[red]", "b.png", "1;1", "²"]
)  # fmt: skip

CELL = st.one_of(WEIRD, WEIRD, st.text(max_size=6))

NAMES = ["a.png", "b.png", "c.png"]


def labelled_folder(folder: Path) -> None:
    """Three images of 4 x 4, whose label maps hold the numbers 1 and 2."""
    for n, name in enumerate(NAMES):
        Image.new("RGB", (SIDE, SIDE), (n, 0, 0)).save(folder / f"image_{name}")
        labels = np.full((SIDE, SIDE), n, np.uint16)
        stores.save_labels(folder / name, labels)


@st.composite
def tables(draw):
    """(index rows, label rows, whether nothing is wrong with them), mostly right with some cells drawn."""
    categories = ["object", "part"]
    index = [["image", "split", "ih", "iw", "sh", "sw", *categories]]
    for name in NAMES:
        index.append([f"image_{name}", "train", "4", "4", "4", "4", draw(st.sampled_from([name, "", "1", "2"])), ""])
    labels = [["number", "name", "category"], ["1", "sky", "object"], ["2", "wing", "part(3);object(1)"]]
    changes = draw(st.integers(0, 3))
    for _ in range(changes):
        table = draw(st.sampled_from([index, labels]))
        row = draw(st.integers(0, len(table) - 1))
        match draw(st.integers(0, 4)):
            case 0:
                table[row] = [*table[row], draw(CELL)]
            case 1:
                table.insert(row, list(table[row]))
            case _:
                table[row][draw(st.integers(0, len(table[row]) - 1))] = draw(CELL)
    return index, labels, not changes


def write(path: Path, rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    path.write_bytes(text.getvalue().encode("utf-8", "surrogatepass"))


@share(0.2)
@given(tables())
def test_tables_are_refused_or_counted_right(case):
    index, labels, right = case
    with stores.scratch() as folder:
        (folder / "images").mkdir()
        labelled_folder(folder / "images")
        write(folder / "index.csv", index)
        write(folder / "label.csv", labels)
        write(folder / "category.csv", [["name"], ["object"], ["part"]])
        url = str(folder / "probe.zarr")
        try:
            label_set = read_broden(folder)
            write_probe(label_set, url, pool=Threads(1), show=False)
        except DissectError:
            assert not right
            return
        numbers = store.read(url, "concept")[:].tolist()
        areas = dict(zip(numbers, store.read(url, "concept_area")[:].tolist(), strict=True))
        assert areas == recounted(folder, label_set, numbers)


def recounted(folder: Path, label_set, numbers: list[int]) -> dict[int, int]:
    """Label pixels of every concept, from the label_set's rows: a label counts once per pixel."""
    rows, cols = label_set.label_size
    areas = dict.fromkeys(numbers, 0)
    for row in label_set.rows:
        maps = []
        for _, name in row.maps:
            pixels = np.asarray(Image.open(folder / "images" / name)).astype(int)
            labels = pixels[..., 0] + 256 * pixels[..., 1]
            at = [
                ((2 * np.arange(n) + 1) * side // (2 * n)) for n, side in zip((rows, cols), labels.shape, strict=True)
            ]
            maps.append(labels[np.ix_(*at)])
        for number in numbers:
            if number in row.whole:
                areas[number] += rows * cols
            elif maps:
                areas[number] += int(np.any([one == number for one in maps], axis=0).sum())
    return areas


# --- images ---


def encoded(mode: str, size: tuple[int, int], kind: str) -> bytes:
    """A small image file."""
    data = io.BytesIO()
    Image.new(mode, size, 3 if mode in ("L", "P", "I", "I;16") else None).save(data, kind)
    return data.getvalue()


@st.composite
def files(draw):
    """An image file with bytes changed, cut, or put in; or any bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    mode = draw(st.sampled_from(["RGB", "L", "P", "I;16", "RGBA", "1"]))
    content = bytearray(encoded(mode, draw(st.sampled_from([(4, 4), (1, 9)])), "PNG"))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(content) - 1))
        match draw(st.integers(0, 3)):
            case 0:
                del content[place + 1 :]
            case 1:
                content[place:place] = draw(st.binary(max_size=8))
            case _:
                content[place] = draw(st.integers(0, 255))
    return bytes(content)


@share(0.17)
@given(files())
def test_image_files_are_refused_or_decoded(content):
    with stores.scratch() as folder:
        path = folder / "a.png"
        path.write_bytes(content)
        for decode in (decode_broden, decode_mask):
            with contextlib.suppress(DissectError):
                labels = decode(path)
                assert labels.dtype == np.uint16
                assert labels.ndim == 2
        with contextlib.suppress(DissectError), open_image(path) as image:
            assert image.convert("RGB").size == image.size


@share(0.05)
@given(files())
def test_images_of_the_model_are_refused_or_decoded(content):
    from dissect_xr.activations.images import read_image

    with stores.scratch() as folder:
        (folder / "a.png").write_bytes(content)
        with contextlib.suppress(DissectError):
            assert read_image(folder / "a.png", (5, 6)).shape == (5, 6, 3)


# --- recipes ---

SCALAR = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**12), st.floats(), st.text(max_size=8),
    st.sampled_from(["${out}", "${nowhere}", "${", "all", "digits", "float16", "*", "../..", "\x00", "[red]"]),
)  # fmt: skip
VALUE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)

FIELDS = yaml.safe_load(runs.RECIPE)


def places_in(value, path=()):
    """Paths of every field of a recipe."""
    yield path
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        yield from places_in(inner, (*path, step))


@st.composite
def recipes(draw):
    """The text of a recipe with fields changed, or any text."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.text(max_size=60))
    recipe = yaml.safe_load(runs.RECIPE)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([place for place in places_in(recipe) if place]))
        inner = recipe
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = draw(VALUE)
    return yaml.safe_dump(recipe, allow_unicode=True)


@share(0.18)
@given(
    recipes(), st.lists(st.sampled_from(["data=x", "layers=all", "a.b.c=1", "=", "layers.9=1", "model=[", "probe.x=1"]))
)
def test_recipes_are_refused_or_read(text, overrides):
    with stores.scratch() as folder:
        path = folder / "recipe.yaml"
        path.write_text(text, encoding="utf-8", errors="replace")
        with contextlib.suppress(DissectError):
            load_recipe(path, out=str(folder / "run"), overrides=["data=d", *overrides])


# --- commands ---

WORD = st.sampled_from(
    ["run", "probe", "extract", "dissect", "info", "verify", "export", "report", "--out", "--set", "--workers", "-1",
     "--memory", "1GiB", "many", "--dry-run", "--quiet", "--gpus", "--to", "--format", "csv", "--break-lock", "0",
     "--verify", "recipe.yaml", "missing.yaml", "x=y", "data=d", "", "--", "--help", "../..", "/dev/null", "run.zarr",
     "[/red]", "\x00"]
)  # fmt: skip


@share(0.1)
@given(st.lists(WORD, max_size=6))
def test_commands_end_with_a_message(words):
    with stores.scratch() as folder, contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        (folder / "recipe.yaml").write_text(runs.RECIPE)
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            code = runs.call(*words)
        assert code in (0, 2), f"{words}: {code}"
        assert "Traceback" not in said.getvalue()
