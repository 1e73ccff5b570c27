"""The page of a checked probe: every text escaped, tables complete, pictures of concepts, nothing else overwritten."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dissect_xr.errors import DissectError
from dissect_xr.probe.check.findings import check_probe
from dissect_xr.probe.readers.unpacked.arrays import About, probe_from_arrays
from dissect_xr.report.check_page import SIDE, write_check

EVIL = "<script>alert(1)</script>"


def probe(folder: Path, concepts: dict) -> str:
    """Three images: red on the left, and labels there; the third has a label of the whole image."""
    images = np.zeros((3, 8, 8, 3), np.uint8)
    images[:, :, :4, 0] = 200
    images[1] += 1
    images[2] += 2
    labels = np.zeros((3, 8, 8), int)
    labels[:2, :, :4] = 1
    url = folder / "probe.zarr"
    probe_from_arrays(images, labels, concepts, url, about=About(whole=[[], [], [2]]), show=False)
    return str(url)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_tables_are_complete_and_texts_escaped(tmp_path):
    url = probe(tmp_path, {1: EVIL, 2: {"name": "room", "category": "scene"}, 3: 'never, "quoted"'})
    check = check_probe(url, show=False)
    page = write_check(check, tmp_path / "check", show=False)
    html = page.read_text(encoding="utf-8")
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    rows = table(tmp_path / "check/concepts.csv")
    assert [(row["name"], row["number"], row["pixels"], row["share"], row["finding"]) for row in rows] == [
        ("room", "2", "64", "1.0", "too common"), (EVIL, "1", "64", "0.5", "too common"),
        ("never, \"quoted\"", "3", "0", "0.0", "no pixel"),
    ]  # fmt: skip
    findings = table(tmp_path / "check/findings.csv")
    assert [row["kind"] for row in findings] == [one.kind for one in check.findings]
    assert len(findings) == 3


def test_a_picture_shows_where_the_concept_is(tmp_path):
    url = probe(tmp_path, {1: "left", 2: {"name": "room", "category": "scene"}, 3: "never"})
    write_check(check_probe(url, show=False), tmp_path / "check", show=False)
    assert sorted(path.name for path in (tmp_path / "check/thumbnails").iterdir()) == ["1.jpg", "2.jpg"]
    with Image.open(tmp_path / "check/thumbnails/1.jpg") as picture:
        pixels = np.asarray(picture).astype(int)
    assert pixels.shape == (SIDE, SIDE, 3)
    middle = pixels[SIDE // 2]
    assert abs(middle[SIDE // 4] - [200, 0, 0]).max() < 12  # inside the mask as it is
    assert middle[3 * SIDE // 4].max() < 12
    assert middle[SIDE // 2 - 1, 1] > 150  # the yellow line between


def test_fewer_pictures_can_be_asked_for(tmp_path):
    url = probe(tmp_path, {1: "left", 2: {"name": "room", "category": "scene"}})
    write_check(check_probe(url, show=False), tmp_path / "check", pictures=1, show=False)
    assert [path.name for path in (tmp_path / "check/thumbnails").iterdir()] == ["2.jpg"]


def test_an_earlier_page_is_replaced_and_nothing_else(tmp_path):
    url = probe(tmp_path, {1: "left", 2: {"name": "room", "category": "scene"}})
    check = check_probe(url, show=False)
    write_check(check, tmp_path / "check", show=False)
    write_check(check, tmp_path / "check", pictures=0, show=False)
    assert list((tmp_path / "check/thumbnails").iterdir()) == []
    (tmp_path / "check/mine.txt").write_text("x")
    with pytest.raises(DissectError, match=r"holds mine\.txt, which is no part of such a page"):
        write_check(check, tmp_path / "check", show=False)
    assert (tmp_path / "check/index.html").exists()
    with pytest.raises(DissectError, match="expected a folder to write the page to, found a file"):
        write_check(check, tmp_path / "check/mine.txt", show=False)


def test_everything_the_page_links_to_is_there(tmp_path):
    import re

    url = probe(tmp_path, {1: "left", 2: {"name": "room", "category": "scene"}})
    page = write_check(check_probe(url, show=False), tmp_path / "check", show=False)
    links = re.findall(r'(?:src|href)="([^"#:]+)"', page.read_text(encoding="utf-8"))
    assert len(links) == 3
    assert [link for link in links if not (page.parent / link).exists()] == []
