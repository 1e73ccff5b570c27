"""The report's page of experiments: numbers are those of the results, names never become tags, pictures are there."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
from PIL import Image
from planted import network, write_run
from test_report import Page
from test_report_browser import MISSING, Reader, chromium  # noqa: F401  a fixture

from dissect_xr.experiments.ablation import Ablation, ablation
from dissect_xr.experiments.cam import Cam, cam
from dissect_xr.experiments.class_labels import class_table
from dissect_xr.experiments.classes import Head, head_classes
from dissect_xr.experiments.explanation import Explanation, explanation
from dissect_xr.experiments.results import experiment_url
from dissect_xr.report.strips import PIXELS
from dissect_xr.report.write import write_report

CLASSES = ("<b>red</b>", "gr & een", "blue")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an experiment of each kind, of classes whose names try to break out of the page."""
    folder = tmp_path_factory.mktemp("run")
    run, table = write_run(folder)
    text = table.read_text().replace("val-green-1.png,green", "val-green-1.png,blue")
    for plain, name in zip(planted.CLASSES, CLASSES, strict=True):
        text = text.replace(f",{plain},", f",{name},")
    table.write_text(text)
    labelled = class_table(table, probe=run.probe, outputs=CLASSES)
    urls = {name: experiment_url(str(folder), name) for name in ("causal", "uses", "where", "why")}
    ablation(urls["causal"], run, labelled, network(), Ablation("relu", "s", sizes=(1, 2)), show=False)
    head_classes(urls["uses"], run, labelled, network(), Head("head", "relu", "s"), show=False)
    explanation(urls["why"], run, urls["uses"], Explanation(right=2, wrong=1, units=2), show=False)
    concepts = dict(zip(CLASSES, planted.CLASSES, strict=True))
    cam(urls["where"], run, urls["uses"], Cam(concepts), show=False)
    return folder


@pytest.fixture(scope="module")
def report(out: Path) -> Path:
    return write_report(str(out), out / "report", exemplars=2, show=False).parent


def test_every_page_leads_to_the_experiments(report: Path) -> None:
    for page in (report / "index.html", report / "concepts.html", *(report / "pages").iterdir()):
        assert any(str(a["href"]).endswith("experiments.html") for a in Page(page).named("a"))


def test_numbers_are_those_of_the_results(report: Path) -> None:
    text = " ".join(Page(report / "experiments.html").text.split())
    # 4 red, 2 green and 3 blue images are measured; one of the blue ones is green, and called so.
    assert "<b>red</b>4 1.000 1.000 1.000 1.000 0.500" in text
    assert "gr & een2 0.889 0.929 0.667 1.000" in text
    assert "blue3 0.889 0.833 1.000 0.667" in text
    assert "relu/0 red 0.500" in text, "the unit that red rests on, its concept, and what is lost"
    assert "relu/0 1 red 1.000 relu/1 0 green 1.000" in text, "weight, concept and IoU of the units of a class"
    assert "Wrongly predicted blue, predicted as gr & een score 0.500 · val-green-1.png" in text
    assert "relu/1 green +0.500" in text
    assert "what follows the layer" in text
    # Maps and objects cover whole images, but the green one that is labelled blue shows no object of its class.
    assert "8 of 9 show an object of their class" in text
    assert "gr & eengreen2 1.000 1.000 1.000" in text
    assert "blueblue2 1.000 1.000 1.000" in text
    assert "right class and place1.000" in text


def test_names_never_become_tags(report: Path) -> None:
    page = Page(report / "experiments.html")
    assert not page.named("b")
    assert "<b>red</b>" in page.text


def test_units_lead_to_their_pages_and_pictures_are_there(report: Path) -> None:
    page = Page(report / "experiments.html")
    links = [str(a["href"]) for a in page.named("a")]
    assert "pages/s--relu.html#unit=relu/0" in links
    for link in links:
        assert link == "#main" or (report / link.split("#")[0]).is_file()
    images = [str(image["src"]) for image in page.named("img")]
    assert "images/experiments/causal.png" in images
    assert "images/experiments/where.png" in images
    assert "images/s--relu/0.jpg" in images, "the strip that the unit's page shows"
    assert [image for image in images if "why-" in image] == [f"images/experiments/why-{n}.jpg" for n in range(3)]
    for image in images:
        assert (report / image).is_file()
    assert all(image["alt"] for image in page.named("img"))


def test_an_explained_image_is_shown_plain_and_with_each_unit(report: Path) -> None:
    with Image.open(report / "images/experiments/why-0.jpg") as opened:
        assert opened.size == (3 * PIXELS, PIXELS)
        pixels = np.asarray(opened).astype(int)
    middles = [pixels[PIXELS // 2, n * PIXELS + PIXELS // 2].max() for n in range(3)]
    assert middles[0] > 110, "the image"
    assert middles[1] > 110, "bright where the first unit is active"
    assert middles[2] < 80, "dimmed where the second is not"


def test_without_its_images_the_page_says_so(out: Path, tmp_path: Path) -> None:
    moved = tmp_path / "run"
    shutil.copytree(out, moved)
    shutil.rmtree(moved / "images")
    with pytest.warns(UserWarning, match="lacks the pictures"):
        page = write_report(str(moved), tmp_path / "report", exemplars=2, show=False).parent / "experiments.html"
    text = Page(page).text
    assert "No pictures: " in text
    assert "relu/1" in text


def test_a_run_without_experiments_has_no_such_page(out: Path, tmp_path: Path) -> None:
    shutil.copytree(out, tmp_path / "run", ignore=shutil.ignore_patterns("experiments", "report"))
    first = write_report(str(tmp_path / "run"), tmp_path / "report", exemplars=0, show=False)
    assert not (first.parent / "experiments.html").exists()
    assert "Experiments" not in Page(first).text


@pytest.fixture
def reader(chromium: Any, report: Path) -> Iterator[Reader]:  # noqa: F811
    found = Reader(chromium, report)
    chromium.get("about:blank")  # rather than the browser's own first page
    found.take("browser"), found.take("performance")
    yield found
    assert found.take("browser") == []
    assert found.outside() == []


@pytest.mark.skipif(bool(MISSING), reason=f"REPORT NOT TESTED IN A BROWSER: no {', no '.join(MISSING)}")
@pytest.mark.parametrize("width", [1400, 400])
def test_no_serious_violation_and_no_sideways_scrolling(reader: Reader, width: int) -> None:
    reader.resize(width)
    reader.open("experiments.html")
    assert reader.violations() == []
    assert reader.js("return document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    loaded = (
        "return [...document.images].map((one) => (one.loading = 'eager', one.decode().then(() => one.naturalWidth)))"
    )
    assert reader.js(f"{loaded}.length") == len(reader.all("img")) > 5
