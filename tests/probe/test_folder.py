"""Files are found by their names in any Unicode form, and nothing outside the folder is read unless one allows it."""

import os
import pickle
import unicodedata

import pytest

from dissect_xr.probe.faults import Fault
from dissect_xr.probe.folder import Folder, inside

COMPOSED = unicodedata.normalize("NFC", "é/ö.png")
APART = unicodedata.normalize("NFD", COMPOSED)


@pytest.fixture
def folder(tmp_path):
    """A folder with a file, a link to it, and links that lead out of it."""
    (tmp_path / "in/x").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    for path in ("in/x/a.png", "out/b.png"):
        (tmp_path / path).touch()
    (tmp_path / "in/same.png").symlink_to("x/a.png")
    (tmp_path / "in/b.png").symlink_to(tmp_path / "out/b.png")
    (tmp_path / "in/out").symlink_to("../out")
    (tmp_path / "in/broken.png").symlink_to("nowhere.png")
    (tmp_path / "in/gone").symlink_to(tmp_path / "unmounted")
    return tmp_path / "in"


def found(folder, name, **options):
    return inside(str(folder), name, "index.csv, line 3", **options)


@pytest.mark.parametrize("follow", [False, True])
def test_files_inside_are_found(folder, follow):
    assert found(folder, "x/a.png", follow_links=follow) == folder / "x/a.png"
    assert os.path.samefile(found(folder, "same.png", follow_links=follow), folder / "x/a.png")
    assert found(folder, "x/none.png", follow_links=follow) == folder / "x/none.png"


@pytest.mark.parametrize("name", ["b.png", "out/b.png"])
def test_links_lead_outside_only_where_that_is_allowed(folder, name):
    assert os.path.samefile(found(folder, name, follow_links=True), folder.parent / "out/b.png")
    with pytest.raises(Fault, match=rf"index\.csv, line 3: '{name}' lies outside.*give `follow_links: true`") as error:
        found(folder, name)
    assert error.value.shared


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("name", ["../out/b.png", "x/../../out/b.png", "/etc/passwd", "out/../../out/b.png"])
def test_paths_themselves_never_lead_outside(folder, name, follow):
    with pytest.raises(Fault, match="lies outside") as error:
        found(folder, name, follow_links=follow)
    if not name.startswith("out"):  # `out/..` is the parent of what `out` leads to
        assert "follow_links" not in str(error.value)
        assert not error.value.shared


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize(
    ("name", "link", "target"), [("broken.png", "broken.png", "nowhere.png"), ("gone/x/a.png", "gone", "unmounted")]
)
def test_a_broken_link_is_called_that(folder, name, link, target, follow):
    with pytest.raises(
        Fault, match=rf"'{name}' is a broken link: .*/in/{link} leads to .*{target}, which is not there"
    ):
        found(folder, name, follow_links=follow)


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize(("on_disk", "asked"), [(COMPOSED, APART), (APART, COMPOSED), (APART, APART)])
def test_names_are_found_in_another_unicode_form(tmp_path, on_disk, asked, follow):
    (tmp_path / on_disk).parent.mkdir()
    (tmp_path / on_disk).touch()
    assert found(tmp_path, asked, follow_links=follow) == (tmp_path / on_disk).resolve()


def test_files_that_come_later_are_found(tmp_path):
    assert not found(tmp_path, COMPOSED).exists()
    (tmp_path / APART).parent.mkdir()
    assert not found(tmp_path, COMPOSED).exists()
    (tmp_path / APART).touch()
    assert found(tmp_path, COMPOSED).exists()


def test_a_task_carries_the_orientations_of_its_own_images():
    folder = Folder("images", turned={f"{n}.jpg": 6 for n in range(1000)})
    mine = folder.of(["3.jpg", "x.jpg"])
    assert mine == Folder("images", turned={"3.jpg": 6})
    assert (mine.orientation("3.jpg"), mine.orientation("x.jpg")) == (6, 1)
    assert pickle.loads(pickle.dumps(mine)) == mine


def test_faults_travel():
    fault = pickle.loads(pickle.dumps(Fault("a.png: bad", "bad", shared=True, numbers=[7])))
    assert (str(fault), fault.reason, fault.shared, fault.numbers) == ("a.png: bad", "bad", True, (7,))
