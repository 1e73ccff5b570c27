"""Where the files of this checkout lie, and the test data beside it."""

import os
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
PIPELINES = ROOT / "pipelines"

DATA = Path(os.environ.get("DISSECT_XR_DATA") or ROOT.parent / "shared" / "data")
"""The folder of the test data; it may not exist."""


needs_data = pytest.mark.skipif(
    not (DATA / "camvid_broden" / "index.csv").is_file(),
    reason=f"NO TEST DATA: {DATA} has no camvid_broden/index.csv",
)


def shared(name: str) -> Path:
    """A folder of the test data; skips loudly where it is missing."""
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"NOT RUN, NO TEST DATA: {folder}; set DISSECT_XR_DATA to the folder that holds {name}")
    return folder


needs_data = pytest.mark.skipif(
    not (DATA / "camvid_broden" / "index.csv").is_file(),
    reason=f"NO TEST DATA: {DATA} has no camvid_broden/index.csv",
)
