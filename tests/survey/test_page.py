"""The page of a survey as a file: the same bytes again, everything in it, nothing that tells what is expected."""

import base64
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import report_case
from survey_case import SMALL, written

from dissect_xr.errors import DissectError
from dissect_xr.exemplars.top_images import exemplars
from dissect_xr.report.source import Source
from dissect_xr.report.strips import jpeg
from dissect_xr.survey.page import _active
from dissect_xr.survey.write import write_survey

DATA = re.compile(r'<script type="application/json" id="([\w-]+)">(.*?)</script>', flags=re.DOTALL)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_case.write_run(tmp_path_factory.mktemp("run"))


def test_written_again_it_is_the_same_file_for_the_same_survey(run: Path, tmp_path: Path) -> None:
    _, page = written(run)
    first = page.read_bytes(), page.with_suffix(".json").read_bytes()
    assert write_survey(run, SMALL, show=False) == page
    assert (page.read_bytes(), page.with_suffix(".json").read_bytes()) == first
    assert write_survey(run, SMALL, to=tmp_path / "new" / "ask.html", show=False).read_bytes() == first[0]
    assert sorted(path.name for path in page.parent.glob(f"*{page.stem}*")) == [
        page.stem + ".html",
        page.stem + ".json",
    ]


def test_it_shows_the_exemplars_of_each_unit(run: Path) -> None:
    key, page = written(run)
    data = {name: json.loads(text) for name, text in DATA.findall(page.read_text(encoding="utf-8"))}
    assert [one["phrase"] for one in data["survey"]["questions"]] == [one.phrase for one in key.questions]
    source = Source(str(run))
    for one, shown in zip(key.questions, data["survey"]["questions"], strict=True):
        layer = source.layer("late", one.unit.partition("/")[0])
        (found,) = exemplars(layer, source.stores, [one.unit], k=3, size=160, show=False)
        wanted = [jpeg(picture) for n, picture in enumerate(found["picture"].values) if found["active"].values[n]]
        urls = data[f"pictures-{shown['pictures']}"]
        assert 1 <= len(urls) <= 3
        assert [base64.b64decode(url.removeprefix("data:image/jpeg;base64,")) for url in urls] == wanted


def test_it_tells_nobody_which_phrase_is_whose(run: Path) -> None:
    key, page = written(run)
    assert {one.origin for one in key.questions} == {"label", "decoy"}
    text = page.read_text(encoding="utf-8")
    told = json.loads(dict(DATA.findall(text))["survey"])
    assert {frozenset(one) for one in told.pop("questions")} == {frozenset(("phrase", "pictures"))}
    for secret in ("decoy", "origin", "conv1", "conv2", ".png", "seed"):
        assert secret not in json.dumps(told)
        assert secret not in DATA.sub("", text)


def test_nothing_in_it_comes_from_elsewhere_and_names_stay_text(run: Path) -> None:
    key, page = written(run, replace(SMALL, units=12, decoys=0))
    text = page.read_text(encoding="utf-8")
    assert report_case.SCRIPT in {one.phrase for one in key.questions}
    assert report_case.SCRIPT not in text
    assert "<img" not in text
    assert re.findall(r"(?:https?:)?//\w", DATA.sub("", text)) == []
    assert len(re.findall(r"<script(?! type=\"application/json\")", text)) == 1
    assert "default-src 'none'; script-src 'sha256-" in text


def test_a_crop_shows_other_pictures(run: Path) -> None:
    whole, cropped = (written(run, replace(SMALL, crop=crop))[1].read_text(encoding="utf-8") for crop in (None, 0.5))
    assert dict(DATA.findall(whole))["pictures-0"] != dict(DATA.findall(cropped))["pictures-0"]


def test_pictures_without_an_active_pixel_are_shown_only_where_there_is_no_other() -> None:
    import xarray as xr

    found = xr.Dataset({"active": ("rank", [0, 3, 0, 1])}, {"rank": np.arange(4)})
    assert _active(found)["rank"].values.tolist() == [1, 3]
    assert _active(found * 0)["rank"].values.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("activations.zarr", r"needs pictures of late/conv1, which are made from .*: the activations were not kept"),
        ("images", "the folder of the probe's images is not there"),
    ],
)
def test_without_images_or_activations_it_says_why_and_leaves_no_page(
    run: Path, tmp_path: Path, lost: str, message: str
) -> None:
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("survey"))
    shutil.rmtree(copy / lost)
    with pytest.raises(DissectError, match=message):
        write_survey(copy, SMALL, show=False)
    assert list(copy.rglob("*.html*")) == []


def test_a_damaged_image_leaves_no_page(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("survey"))
    for path in (copy / "images").iterdir():
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DissectError, match=r"\d+\.png"):
        write_survey(copy, SMALL, show=False)
    assert list(copy.rglob("*.html*")) == []


def test_a_page_that_cannot_be_written_is_named(run: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(DissectError, match=r"taken: cannot write there.*Name another file with --to"):
        write_survey(run, SMALL, to=tmp_path / "taken", show=False)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_run_on_an_object_store_needs_a_local_page(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dissect_xr.survey.write.objects.is_local", lambda url: False)
    with pytest.raises(DissectError, match=r"is a local file\. Name one: --to FILE"):
        write_survey(run, SMALL, show=False)
