"""The report without a browser: files, links, numbers, escaping, what it says when images are missing."""

import json
import re
import shutil
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_case
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dissect_xr.analysis.detectors import best_concept, detectors, unique_detectors
from dissect_xr.analysis.results import open_dissection
from dissect_xr.analysis.scores import iou
from dissect_xr.errors import DamagedError, DissectError
from dissect_xr.report.numbers import CUTOFFS
from dissect_xr.report.pages import script_json, slugs
from dissect_xr.report.write import write_report


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_case.write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def report(run: Path) -> Path:
    return write_report(str(run), run / "report", exemplars=3, show=False).parent


class Page(HTMLParser):
    """Tags with attributes, and the text, of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def data(path: Path) -> Any:
    """What a data file hands over."""
    match = re.fullmatch(r'dissect\.give\("[a-z]+","([^"]*)",(.*)\);\n', path.read_text(encoding="ascii"), re.DOTALL)
    assert match
    return json.loads(match.group(2))


def selected(run: Path, snapshot: int, layer: str, fraction: float = report_case.FRACTIONS[0]) -> xr.Dataset:
    ds = report_case.results(run, fraction).isel(snapshot=snapshot)
    return ds.isel(unit=ds["layer"].values == layer)


def test_a_page_per_snapshot_and_layer_that_there_is(report: Path) -> None:
    assert sorted(path.name for path in (report / "pages").iterdir()) == [
        "early--conv1.html",
        "late--conv1.html",
        "late--conv2.html",
        "mid__i___amp___way_--conv1.html",
        "mid__i___amp___way_--conv2.html",
    ]
    assert "not in this snapshot" in Page(report / "index.html").text


def test_every_link_leads_to_a_file_of_the_report(report: Path) -> None:
    for path in report.rglob("*.html"):
        page = Page(path)
        links = [tag[key] for tag in page.named("a") if (key := "href") in tag]
        links += [tag["src"] for tag in page.named("script")] + [tag["href"] for tag in page.named("link")]
        links += [f"{tag['value']}.html" for tag in page.named("option") if "--" in (tag["value"] or "")]
        for link in links:
            assert link is not None
            assert "://" not in link
            if not link.startswith(("#", "data:,")):
                target = (path.parent / link.split("#")[0]).resolve()
                assert target.is_relative_to(report.resolve())
                assert target.is_file(), f"{path.name}: {link}"


def test_nothing_in_the_report_names_a_network_address(report: Path) -> None:
    for path in [*report.rglob("*.html"), *report.rglob("*.js"), *report.rglob("*.css")]:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")  # a name, never fetched
        assert not re.search(
            r"https?:|\bfetch\(|XMLHttpRequest|\bimport\b.*\bfrom\b|innerHTML|insertAdjacentHTML", text
        )


def test_names_are_shown_and_never_become_tags(report: Path) -> None:
    index = Page(report / "index.html")
    assert report_case.SNAPSHOTS[1][0] in index.text
    for path in report.rglob("*.html"):
        page = Page(path)
        assert all("src" in script for script in page.named("script"))
        assert not page.named("img")
        assert not page.named("i")
        assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)
    site = data(report / "data" / "site.js")
    assert site["concepts"]["name"] == [name for name, _ in report_case.NAMES.values()]
    assert [category["name"] for category in site["categories"]] == ["object", "part", "<b>stuff</b>"]
    for path in (report / "data").iterdir():
        assert not set(path.read_text(encoding="ascii")) & set("<>&")


@given(st.text() | st.sampled_from(["</script>", "<!--", "\u2028\u2029", "]]>", "&lt;", "\x00"]))
def test_any_text_survives_a_script(text: str) -> None:
    written = script_json({"name": text})
    assert json.loads(written) == {"name": text}
    assert written.isascii()
    assert not set(written) & set("<>&")


@given(st.lists(st.text(min_size=1), unique=True, max_size=8))
def test_any_names_become_distinct_plain_file_names(names: list[str]) -> None:
    found = slugs(names)
    assert len({slug.lower() for slug in found}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", slug) for slug in found)


def test_counts_of_the_overview_are_the_packages(run: Path, report: Path) -> None:
    curves = data(report / "data" / "curves.js")
    cutoffs = xr.DataArray(list(CUTOFFS), dims="cutoff")
    text = Page(report / "index.html").text
    for snapshot, layers in ((0, ["conv1"]), (1, ["conv1", "conv2"]), (2, ["conv1", "conv2"])):
        for place, layer in enumerate(layers):
            ds, found = selected(run, snapshot, layer), curves[snapshot][place]
            assert found["detectors"] == detectors(ds, cutoff=cutoffs).sum("unit").values.tolist()
            for count in ("by_unit", "by_category"):
                wanted = unique_detectors(ds, count=count, cutoff=cutoffs)
                assert found[count] == wanted.values.tolist()
            assert f"{layer}{ds.sizes['unit']}{int(detectors(ds).sum())}" in re.sub(r"\s", "", text)
    assert curves[0][1] is None


def test_scores_follow_from_the_counts_of_a_layer(run: Path, report: Path) -> None:
    ds, site = selected(run, 2, "conv2"), data(report / "data" / "site.js")
    page = data(report / "data" / "late--conv2.js")
    scores, best = iou(ds).transpose("unit", "concept").values, best_concept(ds)
    assert page["dead"] == ds["dead"].values.astype(int).tolist()
    assert page["dead"][-1] == 1
    for unit, top in enumerate(page["top"]):
        assert bool(top) != bool(page["dead"][unit])
        derived = []
        for concept, count, area in top:
            assert area == page["area"][unit][site["concepts"]["category"][concept]]
            derived.append(count / (area + site["concepts"]["area"][concept] - count))
            assert derived[-1] == scores[unit, concept]
        assert derived == sorted(derived, reverse=True)
        if top:
            assert site["concepts"]["number"][top[0][0]] == int(best["concept"][unit])


def test_trajectories_and_concepts_name_every_unit(run: Path, report: Path) -> None:
    path = data(report / "data" / "trajectory-1.js")
    assert path["iou"][0] is None
    np.testing.assert_allclose(
        np.array(path["iou"][2]), best_concept(selected(run, 2, "conv2"))["iou"].fillna(-1), atol=1e-5
    )
    best = best_concept(report_case.results(run).isel(snapshot=2))
    concepts = data(report / "data" / "concepts-2.js")
    assert sum(map(len, concepts.values())) == int((best["iou"] > 0).sum())
    for units in concepts.values():
        assert [unit[2] for unit in units] == sorted((unit[2] for unit in units), reverse=True)


def test_a_strip_shows_as_many_images_as_the_page_says(report: Path) -> None:
    page = data(report / "data" / "late--conv2.js")
    for channel, images in zip(page["channel"], page["exemplars"], strict=True):
        path = report / "images" / "late--conv2" / f"{channel}.jpg"
        assert path.exists() == bool(images)
        if images:
            with Image.open(path) as strip:
                assert strip.width == 3 * strip.height
            assert len(images) <= 3
    assert not (report / "images" / "late--conv2" / "11.jpg").exists()  # dead
    assert all((report.parent / "images" / name).exists() for name in page["images"])


def test_another_fraction_is_another_report(run: Path, tmp_path: Path) -> None:
    write_report(str(run), tmp_path / "report", fraction=report_case.FRACTIONS[1], exemplars=0, show=False)
    found = data(tmp_path / "report" / "data" / "late--conv2.js")
    area = selected(run, 2, "conv2", report_case.FRACTIONS[1])["unit_area"].transpose("unit", "domain")
    assert found["area"] == area.values.astype(int).tolist()
    with pytest.raises(DissectError, match=r"there are 0\.05, 0\.2"):
        write_report(str(run), tmp_path / "other", fraction=0.5, show=False)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda run: shutil.rmtree(run / "activations.zarr"), "keep: none"),
        (lambda run: shutil.rmtree(run / "images"), "the folder of the probe's images is not there"),
        (lambda run: [path.unlink() for path in (run / "images").iterdir()], "expected an image, found no file"),
    ],
)
def test_what_is_missing_is_said_and_the_rest_is_written(run: Path, tmp_path: Path, change: Any, reason: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("report"))
    change(copy)
    with pytest.warns(UserWarning, match=f"the report lacks the pictures of .*{reason}"):
        folder = write_report(str(copy), tmp_path / "report", show=False).parent
    assert reason in Page(folder / "index.html").text
    assert reason in Page(folder / "pages" / "late--conv2.html").text
    assert not list((folder / "images").rglob("*.jpg"))
    assert "exemplars" not in data(folder / "data" / "late--conv2.js")


def test_damage_is_no_reason_to_leave_exemplars_out(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("report"))
    path = next((copy / "activations.zarr/late/conv2/activation").glob("c.*"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    said = r"late/conv2/activation: cannot be read .* `run --verify` computes all damaged"
    with pytest.raises(DamagedError, match=said):
        write_report(str(copy), tmp_path / "report", show=False)


def test_a_report_replaces_a_report_and_nothing_else(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    write_report(str(run), folder, exemplars=0, show=False)
    (folder / "pages" / "old--page.html").write_text("old")
    before = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    write_report(str(run), folder, exemplars=0, show=False)
    after = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert after == {path: content for path, content in before.items() if path.name != "old--page.html"}
    (folder / "thesis.tex").write_text("mine")
    with pytest.raises(DissectError, match=r"thesis\.tex"):
        write_report(str(run), folder, show=False)
    assert (folder / "index.html").exists()


def test_no_run_is_one_clear_message(tmp_path: Path) -> None:
    with pytest.raises(DissectError, match="expected a dissection"):
        write_report(str(tmp_path), tmp_path / "report", show=False)
    assert not (tmp_path / "report").exists()


def test_nothing_of_the_machine_is_in_the_report(run: Path, report: Path) -> None:
    for path in report.rglob("*"):
        if path.is_file():
            assert str(run).encode() not in path.read_bytes()


def test_the_command_writes_beside_the_stores(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dissect_xr.cli.main import main

    copy = tmp_path / "copy"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("report", "activations.zarr"))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "probe: {kind: digits}\nmodel: {factory: 'net.py:Net', input_size: 8, snapshots: [{name: early}]}\n"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # as outside of tests
        with pytest.raises(SystemExit) as stop:
            main(["report", str(recipe), "--out", str(copy), "--fraction", "0.2", "--quiet"])
    assert not stop.value.code
    said = capsys.readouterr()
    assert "index.html" in said.out.replace("\n", "")
    assert said.err.startswith("warning: the report lacks the pictures of 5 layers (early/conv1 ...): the activations")
    assert (copy / "report" / "concepts.html").exists()
    with pytest.raises(SystemExit) as stop:
        main(["report", str(recipe), "--out", "s3://bucket/run"])
    assert stop.value.code == 2
    assert "--to FOLDER" in capsys.readouterr().err
    assert open_dissection(str(copy / "dissection.zarr")).sizes["snapshot"] == 3
