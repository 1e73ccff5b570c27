"""Indices as other programs write them: paths of Windows, numbers with a point, links of one's own."""

from pathlib import Path

import numpy as np
import pytest
import stores
from PIL import Image

from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.ingest import open_probe, write_probe
from dissect_xr.probe.readers.broden import read_broden

INDEX = "image,split,ih,iw,sh,sw,object,scene\nx/0.png,train,4,3,4,3,x/0_map.png,2\nx/1.png,val,4,3,4,3,,0\n"
LABELS = "number,name,category,coverage\n1,sky,object,0.5\n2,street,scene,\n"
MAP = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]])


@pytest.fixture
def folder(tmp_path):
    """Two images, of which one has a label map, both a scene."""
    stores.save_labels(tmp_path / "images/x/0_map.png", MAP)
    for n in range(2):
        Image.new("RGB", (3, 4), (n, 0, 0)).save(tmp_path / f"images/x/{n}.png")
    write(tmp_path, INDEX, LABELS)
    return tmp_path


def write(folder: Path, index: str, labels: str) -> None:
    (folder / "index.csv").write_text(index)
    (folder / "label.csv").write_text(labels)
    (folder / "category.csv").write_text("name\nobject\nscene\n")


def areas(folder: Path, label_set=None) -> list[int]:
    """Pixels of both concepts."""
    url = str(folder / "probe.zarr")
    write_probe(label_set or read_broden(folder), url, pool=Threads(1), show=False)
    return open_probe(url)["concept_area"].values.tolist()


WANTED = [4, 12]

SAME = {
    "as it is": (INDEX, LABELS),
    "paths of Windows": (INDEX.replace("x/", "x\\"), LABELS),
    "numbers with a point": (
        INDEX.replace(",4,3,", ",4.0,3.0,").replace("png,2", "png,2.0").replace(",0\n", ",0.0\n"),
        LABELS.replace("1,sky", "1.0,sky").replace("2,street", "2.0,street"),
    ),
    "semicolons": (INDEX.replace(",", ";"), LABELS.replace(",", ";")),
    "spaces": (INDEX.replace(",", ", "), LABELS.replace(",", " , ")),
    "the numbers of rows": (
        "\n".join(f"{n},{line}" if n else f",{line}" for n, line in enumerate(INDEX.splitlines())),
        LABELS,
    ),
    "commas at the ends": (INDEX.replace("\n", ",,\n"), LABELS.replace("\n", ",\n")),
}


@pytest.mark.parametrize("case", SAME)
def test_tables_of_other_programs_say_the_same(folder, case):
    write(folder, *SAME[case])
    assert areas(folder) == WANTED
    assert [row.image for row in read_broden(folder).rows] == ["x/0.png", "x/1.png"]


def test_a_file_may_have_a_backslash_in_its_name(folder):
    (folder / "images/x/0.png").rename(folder / "images/x\\0.png")
    write(folder, INDEX.replace("x/0.png", "x\\0.png"), LABELS)
    assert read_broden(folder).rows[0].image == "x\\0.png"
    assert areas(folder) == WANTED


def test_lists_in_a_table_with_semicolons_need_quotes(folder):
    write(folder, INDEX.replace(",", ";").replace("x/0_map.png", '"x/0_map.png;2"'), LABELS)
    assert areas(folder) == WANTED
    write(folder, INDEX.replace(",", ";").replace("x/0_map.png", "x/0_map.png;2"), LABELS)
    with pytest.raises(DissectError, match=r"index\.csv, line 2: expected 8 cells, got 9"):
        read_broden(folder)


def test_links_out_of_the_folder_are_followed_where_that_is_allowed(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name in ("0.png", "0_map.png"):
        (folder / "images/x" / name).rename(elsewhere / name)
        (folder / "images/x" / name).symlink_to(elsewhere / name)
    with pytest.raises(DissectError, match=r"index\.csv, line 2: 'x/0\.png' lies outside.*`follow_links: true`"):
        areas(folder)
    assert areas(folder / "..", read_broden(folder).following_links()) == WANTED
    (elsewhere / "0_map.png").unlink()
    with pytest.raises(DissectError, match=r"'x/0_map\.png' is a broken link: .* leads to .*elsewhere.*0_map\.png"):
        areas(elsewhere, read_broden(folder).following_links())
