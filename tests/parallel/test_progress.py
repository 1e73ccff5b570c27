"""Progress in a terminal, in a notebook, and silenced."""

import pytest
from rich import console

from dissect_xr.parallel.progress import track


def watched(*, show: bool = True) -> None:
    with track("stage", 2, show=show) as bar:
        bar.advance(16)
        bar.expect(1)
        bar.advance(16)
        bar.advance(16)


def test_a_finished_stage_leaves_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    watched()
    out, err = capsys.readouterr()
    assert out == ""
    assert "stage" in err
    assert "3/3" in err


def test_silenced_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    watched(show=False)
    assert capsys.readouterr() == ("", "")


def test_a_notebook_without_widgets_draws_on_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_is_jupyter", lambda: True)
    monkeypatch.setattr("dissect_xr.parallel.progress.find_spec", lambda name: None)
    watched()
    err = capsys.readouterr().err
    assert "3/3" in err
    assert "\x1b[1A" not in err  # notebooks know no way up
    watched(show=False)
    assert capsys.readouterr() == ("", "")
