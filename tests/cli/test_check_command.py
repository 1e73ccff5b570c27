"""`dissect-xr check`: what is printed, where the page goes, which path is a probe."""

import numpy as np
import pytest
from runs import call

from dissect_xr.probe.readers.unpacked.arrays import About, probe_from_arrays


@pytest.fixture
def run(tmp_path):
    """The output directory of a run that has a probe."""
    labels = np.zeros((2, 10, 10), int)
    labels[0, :5] = 1
    probe_from_arrays(
        np.stack([np.zeros((10, 10), np.uint8)] * 2), labels, {1: "sea", 2: "gull"}, tmp_path / "run/probe.zarr",
        about=About(splits=["train", "val"]), show=False,
    )  # fmt: skip
    return tmp_path / "run"


@pytest.mark.parametrize("inside", ["", "probe.zarr"])
def test_a_run_or_its_probe_is_checked_and_the_page_lies_beside(run, capsys, inside):
    assert call("check", str(run / inside), "--quiet") == 0
    printed = capsys.readouterr().out
    assert "2 images (train 1, val 1) of 1 sizes, 2 concepts in 1 categories" in printed
    assert "75.00% unlabelled, 0.00% ignored" in printed
    assert "the same image in two splits" in printed
    assert "gull (object) has no pixel" in printed
    assert (run / "check/index.html").exists()


def test_the_page_may_go_elsewhere(run, tmp_path):
    assert call("check", str(run), "--quiet", "--to", str(tmp_path / "page"), "--pictures", "0", "--edges", "0") == 0
    assert (tmp_path / "page/index.html").exists()
    assert not (run / "check").exists()


@pytest.mark.parametrize("fraction", ["0", "1", "-0.1"])
def test_a_fraction_is_a_share(run, capsys, fraction):
    assert call("check", str(run), "--fraction", fraction) == 2
    assert "expected a share between 0 and 1" in capsys.readouterr().err


def test_what_is_no_probe_is_said(tmp_path, capsys):
    assert call("check", str(tmp_path)) == 2
    assert "expected a complete probe, found none" in capsys.readouterr().err
