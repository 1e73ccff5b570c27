"""The examples in docstrings give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import dissect_xr

MODULES = sorted(
    module.name for module in pkgutil.walk_packages(dissect_xr.__path__, "dissect_xr.") if "__main__" not in module.name
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        pytest.skip(f"NOT RUN: {name} needs torch")
    assert doctest.testmod(module).failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [finder.find(importlib.import_module(f"dissect_xr.analysis.{name}")) for name in ("scores", "detectors")]
    assert sum(bool(test.examples) for tests in found for test in tests) > 10
