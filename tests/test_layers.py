"""Who may import whom: the house's table, checked against the code's own imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "dissect_xr"

ROOMS = ["foundations", "probe", "activations", "dissection", "analysis", "views", "front"]
"""Rooms import downward only: each may import itself and those before it."""

FOUNDATIONS = {
    "errors", "schema", "places", "markers", "guard", "lazy", "reading", "storage", "integrity", "lock", "attempts",
    "workers", "cluster", "progress", "mending", "floats",
}  # fmt: skip
FRONT = {"recipe", "stages", "plans", "safety", "starting", "outcome", "cli", "__main__", "__init__"}

ONLY_IN = {
    "numba": {"dissection/kernels.py", "dissection/histograms.py", "floats.py"},
    "zarr": {"storage.py", "places.py", "guard.py", "reading.py"},
    "dask": {"workers.py"},
    "distributed": {"cluster.py", "workers.py"},
    "google_crc32c": {"places.py"},
    "obstore": {"places.py"},
    "torch": {"activations/"},
    "safetensors": {"activations/"},
    "matplotlib": {"views/"},
    "jinja2": {"views/"},
    "pandas": {"views/"},
    "sklearn": {"probe/digits.py", "analysis/"},
    "PIL": {"probe/", "activations/images.py", "views/report_images.py"},  # a report's strips are JPEG files
    "yaml": {"recipe.py", "starting.py", "probe/masks.py"},
    "pydantic": {"recipe.py"},
    "typer": {"cli.py"},
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Names of all modules a file imports, wherever the statement stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(name: str) -> str:
    """The room of a module given by its path below the package, such as probe/broden or storage."""
    first = name.split("/")[0]
    if first in FOUNDATIONS:
        return "foundations"
    return "front" if first in FRONT else first


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_module_imports_only_what_its_room_may(path: Path) -> None:
    name = path.relative_to(PACKAGE).as_posix()
    mine = ROOMS.index(room(name.removesuffix(".py")))
    for module in imports(path):
        if module.startswith("dissect_xr."):
            theirs = module.removeprefix("dissect_xr.").replace(".", "/")
            assert ROOMS.index(room(theirs)) <= mine, f"{name} imports {module}, which lies above it"
        for library, homes in ONLY_IN.items():
            if module.split(".")[0] == library:
                assert any(name == home or (home.endswith("/") and name.startswith(home)) for home in homes), (
                    f"{name} imports {library}, which only {sorted(homes)} may"
                )


def test_dissection_needs_only_the_store_of_activations() -> None:
    for path in (PACKAGE / "dissection").glob("*.py"):
        assert not any(module.startswith("dissect_xr.activations") for module in imports(path)), path


@pytest.mark.parametrize(
    "statement",
    [
        "import dissect_xr",
        "import dissect_xr; dissect_xr.read_broden, dissect_xr.write_probe, dissect_xr.open_pool",
        "import dissect_xr; dissect_xr.dissect, dissect_xr.write_activations, dissect_xr.open_dissection",
        "import dissect_xr; dissect_xr.unique_detectors, dissect_xr.read_netdissect_csv",
    ],
)
def test_torch_is_not_imported_by(statement: str) -> None:
    code = f"import sys; {statement}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there() -> None:
    import dissect_xr

    torch_free = [name for name in dissect_xr.__all__ if not dissect_xr._HOMES[name].startswith("activations")]
    for name in torch_free:
        assert callable(getattr(dissect_xr, name))
    with pytest.raises(AttributeError, match="no_such_name"):
        dissect_xr.no_such_name  # noqa: B018
