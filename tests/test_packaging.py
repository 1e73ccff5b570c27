"""One list of dependencies: pyproject.toml, environment.yml and constraints.txt agree."""

import re
import tomllib

import yaml
from checkout import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"torch": "pytorch"}


def split(requirement: str) -> tuple[str, str]:
    """Name and lower bound of a requirement."""
    match = re.fullmatch(r"\s*([A-Za-z0-9_.-]+)(?:\[[a-z]+\])?\s*>=\s*([0-9.]+)\s*", requirement)
    assert match, f"{requirement} has no lower bound"
    return match.group(1), match.group(2)


def test_conda_environment_carries_the_same_dependencies() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = dict(split(item) for item in environment if isinstance(item, str) and item != "pip")
    assert conda.pop("python") == PROJECT["requires-python"].removeprefix(">=")
    assert conda == {CONDA_NAMES.get(name, name): bound for name, bound in map(split, PROJECT["dependencies"])}


def test_every_dependency_is_pinned_at_or_above_its_bound() -> None:
    pinned: dict[str, list[str]] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split(";")[0].strip().split("==")
            pinned.setdefault(name.lower().replace("_", "-"), []).append(version)
    assert pinned["torch"] == ["2.13.0"]
    for requirement in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]:
        name, bound = split(requirement)
        assert name.lower() in pinned, f"{name} is not in constraints.txt"
        for version in pinned[name.lower()]:
            assert [*map(int, re.findall(r"\d+", version))] >= [*map(int, bound.split("."))], name


def test_the_libraries_of_models_are_tested_and_torchvision_never_brings_another_torch() -> None:
    extras = PROJECT["optional-dependencies"]
    assert [split(item)[0] for item in extras["models"]] == ["accelerate", "timm", "torchvision", "transformers"]
    assert set(extras["models"]) <= set(extras["dev"])
    install = (ROOT / "Makefile").read_text().partition("$(INSTALLED): pyproject.toml")[2]
    assert install.index(" torch\n") < install.index("--no-deps torchvision\n") < install.index("'.[dev]'")


def test_ci_calls_what_the_readme_names() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    for command in ("make lint", "make test", "make demo"):
        assert command in ci
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme
    assert "make test" in readme
