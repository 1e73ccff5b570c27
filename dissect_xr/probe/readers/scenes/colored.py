"""Reads label maps in which a colour means a class: CamVid, and any set with a table of colours.

Knows: tables of colours, as `label_colors.txt` of CamVid and as CSV, and label maps as RGB or with a palette.
Does not know: how files are found (`pairs`).

Traps
-----
- A colour that is not in the table is refused. Colours near one are what a resize or JPEG leaves along every border;
  taking the nearest would invent a class there (grey-blue between sky and road is a car in CamVid).
- In a file with a palette the colour counts, not its index, which programs number as they like.
- A class may mean that there is none: CamVid's `Void`, black, is what nobody could tell. Say so with `void`, for
  ignored pixels, or `unlabelled`; otherwise it is a concept like any other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dissect_xr.errors import DissectError
from dissect_xr.probe.faults import Fault
from dissect_xr.probe.label_set import Concept, LabelSet
from dissect_xr.probe.pixels import open_labels
from dissect_xr.probe.readers.completed import completed, kept_categories, paired_rows
from dissect_xr.probe.readers.concepts import CATEGORY
from dissect_xr.probe.readers.lists import read_lines
from dissect_xr.probe.readers.pairs import Names, paired
from dissect_xr.probe.readers.tables import read_table

MODES = ("RGB", "P", "L", "1")
"""Pillow modes whose pixels have one colour each; with an alpha channel, all must be opaque."""

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Meaning:
    """What a colour means."""

    name: str
    category: str
    where: str
    """file and line"""


def read_colored(
    *,
    image_folder: str | Path,
    mask_folder: str | Path,
    colors_table: str | Path,
    void: Sequence[str] = (),
    unlabelled: Sequence[str] = (),
    names: Names | None = None,
    categories: Sequence[str] | None = None,
    label_size: tuple[int, int] | None = None,
) -> LabelSet:
    """The label set of images and label maps in colours. The n-th class of the table is concept n.

    Parameters
    ----------
    colors_table
        Lines such as ``64 128 64  Animal``, or CSV with the columns name, r, g, b and optionally category.
    void, unlabelled
        Names of classes that mean an ignored pixel, or an unlabelled one.
    names
        How images and label maps are called; the map of `a/b.png` is `a/b.png` in its folder where it is not given.

    Raises
    ------
    DissectError
        If a label map is missing, or the table malformed or ambiguous.
    """
    image_folder, mask_folder, names = Path(image_folder), Path(mask_folder), names or Names()
    if not image_folder.is_dir():
        raise DissectError(f"{image_folder}: expected a folder of images, found none.")
    table = read_colors(Path(colors_table))
    numbers = {color: n for n, color in enumerate(table, 1)}
    known = {meaning.name for meaning in table.values()}
    for field, given in (("void", void), ("unlabelled", unlabelled)):
        if unknown := [name for name in given if name not in known]:
            raise DissectError(f"{field}: {', '.join(unknown)} not in {colors_table}; there are {sorted(known)}.")
    if both := sorted(set(void) & set(unlabelled)):
        raise DissectError(f"void: '{both[0]}' is among `unlabelled`, too. Leave it out of one of the two.")
    none = {numbers[color] for color, meaning in table.items() if meaning.name in unlabelled}
    hidden = {numbers[color] for color, meaning in table.items() if meaning.name in void}
    concepts = [
        Concept(numbers[color], meaning.name, meaning.category)
        for color, meaning in table.items()
        if numbers[color] not in none | hidden
    ]
    there = list(dict.fromkeys(concept.category for concept in concepts))
    kept = kept_categories(there, categories, colors_table)
    pairs, notes = paired(image_folder, mask_folder, names)
    found = LabelSet(
        images=str(image_folder),
        maps=str(mask_folder),
        rows=paired_rows(pairs, image_folder),
        concepts=tuple(concepts),
        categories=tuple(there),
        planes=(kept[0],),
        decode=Colored(tuple(table)),
        label_size=(0, 0),
        ignored=frozenset(none),
        void=frozenset(hidden),
        parameters={"layout": "colored", "colors": [[*color, one.name] for color, one in table.items()]}
        | ({"void": sorted(void)} if void else {})
        | ({"image_name": names.image} if names.image != Names.image else {})
        | ({"mask_name": names.mask} if names.mask != Names.mask else {}),
        notes=notes,
    )
    found = found.following_links() if names.follow_links else found
    return completed(found, categories=kept, label_size=label_size, where=colors_table)


@dataclass(frozen=True)
class Colored:
    """Decodes label maps by a table of colours."""

    colors: tuple[Color, ...]
    """the n-th is concept n, from 1"""
    __name__ = "colored"

    def __call__(self, path: Path) -> NDArray[np.uint16]:
        """Concept numbers (row, col)."""
        pixels = _rgb(path).astype(np.int64) @ _PACK
        packed = np.array(self.colors, np.int64) @ _PACK
        order = np.argsort(packed)
        place = np.searchsorted(packed[order], pixels).clip(max=len(order) - 1)
        numbers: NDArray[np.int64] = order[place] + 1
        if (strange := packed[numbers - 1] != pixels).any():
            colors = np.unique(pixels[strange])
            shown = ", ".join(str((c >> 16, c >> 8 & 255, c & 255)) for c in colors[:3].tolist())
            raise Fault(
                f"{path}: holds {len(colors)} colours that are not in the table: {shown}{', ...' * (len(colors) > 3)}. "
                "Colours along borders come from resizing or JPEG: use the original file, or resize by nearest "
                "neighbour. Others have to be added to the table.",
                "label map: it holds colours that are not in the table",
                shared=True,
            )
        return numbers.astype(np.uint16)


_PACK = np.array([1 << 16, 1 << 8, 1], np.int64)


def read_colors(path: Path) -> Mapping[Color, Meaning]:
    """Colour -> what it means, in the order of the table.

    Raises
    ------
    DissectError
        If the table is malformed, or gives a colour, or a name in its category, twice.
    """
    rows = _of_csv(path) if path.suffix.lower() in (".csv", ".tsv") else _of_text(path)
    found: dict[Color, Meaning] = {}
    for color, meaning in rows:
        if max(color) > 255 or min(color) < 0:
            raise DissectError(f"{meaning.where}: expected red, green and blue from 0 to 255, got {list(color)}.")
        if color in found:
            raise DissectError(
                f"{meaning.where}: the colour {list(color)} is '{found[color].name}' already, {found[color].where}. "
                "Keep one of the two."
            )
        found[color] = meaning
    if not found:
        raise DissectError(f"{path}: expected a table of colours, found no row.")
    return found


def _of_text(path: Path) -> list[tuple[Color, Meaning]]:
    rows = []
    for entry in read_lines(path, "a table of colours: red, green, blue and a name in each line"):
        if entry.text.startswith("#"):
            continue
        *cells, name = entry.text.split(maxsplit=3)
        if len(cells) != 3 or not all(cell.isdecimal() for cell in cells):
            raise DissectError(f"{entry.where}: expected red, green, blue and a name, got '{entry.text}'.")
        rows.append(((int(cells[0]), int(cells[1]), int(cells[2])), Meaning(name, CATEGORY, entry.where)))
    return rows


def _of_csv(path: Path) -> list[tuple[Color, Meaning]]:
    rows = []
    for line in read_table(path, ["name", "r", "g", "b"]).lines:
        color = line.number("r"), line.number("g"), line.number("b")
        rows.append((color, Meaning(line.cells["name"], line.cells.get("category") or CATEGORY, line.where)))
    return rows


def _rgb(path: Path) -> NDArray[np.uint8]:
    """The colours of a label map, (row, col, 3)."""
    with open_labels(path) as image:
        opaque = image.mode in ("RGBA", "LA") and image.getchannel("A").getextrema() == (255, 255)
        if (image.mode not in MODES and not opaque) or "transparency" in image.info:
            raise Fault(
                f"{path}: expected a label map in opaque colours with 8 bits per channel, got Pillow mode {image.mode}"
                f"{' with transparency' * (image.mode in ('RGBA', 'LA') or 'transparency' in image.info)}.",
                f"label map: its colours are not opaque with 8 bits, but {image.mode}",
                shared=True,
            )
        return np.asarray(image.convert("RGB"))
