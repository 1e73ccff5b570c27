"""The documentation is true where a test can see it: its Python runs, what it names is there."""

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from checkout import ROOT
from longest import LONGEST
from pages import blocks, links, paths_named, run_python
from pydantic import TypeAdapter
from test_rooms import ROOMS

from dissect_xr.cli.fields.experiments import Experiment

PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]
EXPERIMENTS = sorted((ROOT / "docs" / "experiments").glob("*.md"))
METHOD, ARCHITECTURE = ROOT / "docs" / "method.md", ROOT / "docs" / "architecture.md"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

SLOW = {"training", "ablation", "networks", "rotation", "cam", "classes", "grad_cam", "explanation"}
"""Pages whose Python takes seconds: it trains networks or dissects."""

every_page = pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.stem)


def with_python() -> list[Any]:
    """The pages that have Python, marked `slow` where it takes seconds."""
    marks = dict.fromkeys(SLOW, pytest.mark.slow)
    found = {page.stem: page for page in PAGES if blocks(page, "python")}
    assert found.keys() >= SLOW
    return [pytest.param(page, id=stem, marks=marks.get(stem, ())) for stem, page in found.items()]


@pytest.mark.parametrize("page", with_python())
def test_python_blocks_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_python(page, tmp_path, monkeypatch)


def test_the_method_has_an_example_in_python() -> None:
    assert len(blocks(METHOD, "python")) >= 3


@pytest.mark.parametrize("page", EXPERIMENTS, ids=lambda page: page.stem)
def test_recipes_of_experiments_are_valid_and_say_every_field(page: Path) -> None:
    kinds = {part.model_fields["kind"].annotation.__args__[0]: part for part in get_args(get_args(Experiment)[0])}
    (recipe,) = blocks(page, "yaml")
    parts = TypeAdapter(list[Experiment]).validate_python(yaml.safe_load(recipe)["experiments"])
    assert page.stem in [part.kind for part in parts]
    text = page.read_text(encoding="utf-8")
    assert [
        name for name in kinds[page.stem].model_fields if name not in ("kind", "name") and f"`{name}`" not in text
    ] == []
    assert set(kinds) == {other.stem for other in EXPERIMENTS}


@every_page
def test_every_path_in_backticks_is_there(page: Path) -> None:
    assert [path for path in sorted(paths_named(page)) if not (ROOT / path).exists()] == []


@every_page
def test_every_link_leads_to_a_file(page: Path) -> None:
    assert [path for path in sorted(links(page)) if not path.exists()] == []


def test_the_readme_leads_to_every_page() -> None:
    assert set(PAGES) <= links(ROOT / "README.md")


def test_sections_that_the_code_cites_are_there() -> None:
    sections = set(re.findall(r"^#+ (\d(?:\.\d+)?)\.? ", METHOD.read_text(encoding="utf-8"), flags=re.MULTILINE))
    cited = set[str]()
    for folder in ("dissect_xr", "tests", "pipelines"):
        for path in (ROOT / folder).rglob("*.py"):
            for text in re.findall(r"method\.md, sections? ([\d.]+(?:(?:, | and | to )\d[\d.]*)*)", path.read_text()):
                cited |= set(re.findall(r"\d(?:\.\d+)?", text))
    assert {"1.2", "1.5", "3"} <= cited
    assert cited <= sections


def test_rooms_are_explained_in_the_order_of_imports() -> None:
    rows = re.findall(r"^\| `dissect_xr/([\w/.]+)` \|", ARCHITECTURE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    rooms = [row.removesuffix("/").removesuffix(".py") for row in rows]
    assert rooms == [room for room in ROOMS if room]


def test_every_make_target_is_explained() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)
    assert phony is not None
    assert [target for target in phony[1].split() if f"`make {target}`" not in contributing] == []


def test_the_files_that_are_begun_first_are_there() -> None:
    assert [name for name in LONGEST if not (ROOT / "tests" / name).is_file()] == []


def test_hooks_are_what_make_lint_runs() -> None:
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", MAKEFILE, flags=re.MULTILINE)
    assert recipe is not None
    commands = [line.strip().removeprefix("$(BIN)/") for line in recipe[1].splitlines()]
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local"
    assert [hook["entry"] for hook in repository["hooks"]] == commands
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        assert hook["pass_filenames"] is False
        assert hook["always_run"] is True


def test_the_citation_names_this_version_and_both_papers() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["cff-version"] == "1.2.0"
    assert (citation["title"], citation["type"]) == ("dissect_xr", "software")
    assert (str(citation["version"]), citation["license"]) == (project["version"], project["license"])
    assert all(author["name"] in (ROOT / "LICENSE").read_text(encoding="utf-8") for author in citation["authors"])
    assert [(paper["authors"][0]["family-names"], paper["year"]) for paper in citation["references"]] == [
        ("Bau", 2017),
        ("Bau", 2020),
    ]
