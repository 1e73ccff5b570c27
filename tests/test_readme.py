"""The README's Python runs, in order, as one reads it."""

import re
from pathlib import Path

import pytest
from checkout import ROOT

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_python_blocks_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pipelines").symlink_to(ROOT / "pipelines")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "layer5/12" in printed
    assert "of 8 random units detect anything" in printed
    assert len(blocks("python")[0].strip().splitlines()) <= 13


def test_commands_are_those_of_the_makefile_and_the_program() -> None:
    from typer.main import get_command

    from dissect_xr.cli.main import app

    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    program = get_command(app)
    for line in filter(None, "\n".join(blocks("console")).splitlines()):
        words = line.removeprefix("$ ").split("#")[0].split()
        if words[0] == "make":
            assert words[1] in targets
        else:
            assert words[0] == "dissect-xr"
            options = {option for parameter in program.commands[words[1]].params for option in parameter.opts}  # type: ignore[attr-defined]
            assert {word for word in words if word.startswith("--")} <= options


def test_every_module_named_exists() -> None:
    for path in re.findall(r"`((?:dissect_xr|pipelines|tests)/[\w/]*(?:\.py|\.yaml)?)`", README):
        assert (ROOT / path).exists(), path
