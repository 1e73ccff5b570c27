"""Pages of the documentation as tests see them: their code blocks, and the files that they name.

Knows: Markdown's fences, backticks and links.
Does not know: which pages there are, or what their code must print.
"""

import re
from pathlib import Path

import pytest
from checkout import ROOT

FOLDERS = ("dissect_xr", "docs", "notebooks", "pipelines", "tests")

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
_IN_BACKTICKS = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[^`\s]*)`")
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks in this language, in order."""
    return [code for name, code in _FENCED.findall(page.read_text(encoding="utf-8")) if name == language]


def run_python(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run all Python blocks of a page in order, with one set of names, in a folder that has the project's pipelines."""
    (folder / "pipelines").symlink_to(ROOT / "pipelines")
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    text = page.read_text(encoding="utf-8")
    for match in _FENCED.finditer(text):
        if match[1] == "python":
            above = text[: match.start(2)].count("\n")  # so that a traceback names the page's own line
            exec(compile("\n" * above + match[2], str(page), "exec"), names)


def paths_named(page: Path) -> set[str]:
    """Paths in backticks that start with a folder of the project."""
    return set(_IN_BACKTICKS.findall(_FENCED.sub("", page.read_text(encoding="utf-8"))))


def links(page: Path) -> set[Path]:
    """Files that relative links lead to."""
    found = _LINK.findall(_FENCED.sub("", page.read_text(encoding="utf-8")))
    return {(page.parent / link).resolve() for link in found if "://" not in link}
