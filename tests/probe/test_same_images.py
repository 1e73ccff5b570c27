"""Images of several sets are one where all their bytes are, and most files need not be read to know that."""

import builtins
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import scratch

from dissect_xr.probe.sources.same_images import HEAD, same_images

CONTENTS = [b"", b"a", b"b", b"a" * HEAD, b"a" * HEAD + b"a", b"a" * HEAD + b"b", b"b" + b"a" * HEAD]


@given(st.lists(st.lists(st.integers(0, len(CONTENTS) - 1), max_size=6), min_size=1, max_size=3))
def test_equal_bytes_and_nothing_else(sets):
    with scratch() as folder:
        files = [[folder / f"{n}_{m}" for m in range(len(one))] for n, one in enumerate(sets)]
        for paths, one in zip(files, sets, strict=True):
            for path, content in zip(paths, one, strict=True):
                path.write_bytes(CONTENTS[content])
        found = same_images(files)
    assert sorted(place for together in found for place in together) == [
        (n, m) for n, one in enumerate(sets) for m in range(len(one))
    ]
    assert found == sorted(found)
    for together in found:
        assert len({sets[n][m] for n, m in together}) == 1
        assert len({n for n, _ in together}) == len(together)  # two images of one set stay two
    for content in range(len(CONTENTS)):
        # The first of each set are one image, the second ones another: as many as the set that has it most often.
        assert sum(sets[n][m] == content for (n, m), *_ in found) == max(one.count(content) for one in sets)


def test_what_no_set_can_read_is_the_same_as_nothing(tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    files = [[tmp_path / "a", tmp_path / "missing", None], [tmp_path / "gone", None, tmp_path / "a"]]
    assert same_images(files) == [[(0, 0), (1, 2)], [(0, 1)], [(0, 2)], [(1, 0)], [(1, 1)]]


def test_a_file_of_two_sets_is_not_read(tmp_path):
    (tmp_path / "a").write_bytes(b"a" * 2 * HEAD)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with patch.object(builtins, "open", side_effect=AssertionError("a file is opened")):
        assert same_images([[tmp_path / "a"], [tmp_path / "link"]]) == [[(0, 0), (1, 0)]]


@pytest.mark.parametrize(
    ("first", "second", "opened"),
    [
        (b"a" * 9, b"a" * 8, 0),  # of different sizes
        (b"a" * 9, b"b" * 9, 2),  # told apart by their starts
        (b"a" * 9, b"a" * 9, 4),
    ],
)
def test_files_are_read_only_while_they_may_be_the_same(tmp_path, first, second, opened):
    paths = [tmp_path / "first", tmp_path / "second"]
    for path, content in zip(paths, (first, second), strict=True):
        path.write_bytes(content)
    seen = list[str]()
    real = builtins.open

    def counted(path, *arguments):
        seen.append(Path(path).name)
        return real(path, *arguments)

    with patch.object(builtins, "open", counted):
        assert len(same_images([[path] for path in paths])) == (1 if first == second else 2)
    assert len(seen) == opened


def test_files_of_one_set_are_never_read(tmp_path):
    for name in "ab":
        (tmp_path / name).write_bytes(b"a")
    with patch.object(builtins, "open", side_effect=AssertionError("a file is opened")):
        assert same_images([[tmp_path / "a", tmp_path / "b"], []]) == [[(0, 0)], [(0, 1)]]
