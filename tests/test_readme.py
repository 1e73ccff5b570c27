"""The README's Python runs, in order, as one reads it."""

import re
from pathlib import Path

import pytest
from checkout import ROOT
from pages import blocks, run_python

README = ROOT / "README.md"


def test_python_blocks_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_python(README, tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    assert "layer5/12" in printed
    assert "of 8 random units detect anything" in printed
    assert len(blocks(README, "python")[0].strip().splitlines()) <= 13


def test_commands_are_those_of_the_makefile_and_the_program() -> None:
    from typer.main import get_command

    from dissect_xr.cli.main import app

    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    program = get_command(app)
    for line in filter(None, "\n".join(blocks(README, "console")).splitlines()):
        words = line.removeprefix("$ ").split("#")[0].split()
        if words[0] == "make":
            assert words[1] in targets
        else:
            assert words[0] == "dissect-xr"
            options = {option for parameter in program.commands[words[1]].params for option in parameter.opts}  # type: ignore[attr-defined]
            assert {word for word in words if word.startswith("--")} <= options
