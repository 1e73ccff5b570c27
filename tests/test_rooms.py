"""The house: rooms import downward only, and each outside library has its rooms."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dissect_xr

PACKAGE = Path(dissect_xr.__file__).parent

ROOMS = (
    "errors", "schema", "floats", "parallel", "store", "probe", "tail", "activations", "segmenters", "dissection",
    "bases", "analysis", "exemplars", "experiments", "io", "plot", "report", "survey", "accessor", "cli", "training",
    "",
)  # fmt: skip
"""From the ground up; files at the package's root are rooms of one file, the last is the package's own face."""

ONLY_IN = {
    "zarr": {"store"},
    "obstore": {"store"},
    "fsspec": {"store"},
    "google_crc32c": {"store"},
    "psutil": {"store"},
    "dask": {"parallel"},
    "distributed": {"parallel"},
    "numba": {
        "floats",
        "tail/kernels",
        "dissection/kernels",
        "dissection/levels/histograms",
        "dissection/derived/product",
    },
    "torch": {"activations", "experiments", "segmenters", "training"},
    "torchvision": {"activations/models"},
    "timm": {"activations/models"},
    "transformers": {"activations/models"},
    "accelerate": {"activations/placement"},
    "captum": {"experiments/localisation"},
    "safetensors": {"activations", "bases/matrix_file", "training"},
    "sklearn": {"probe/digits", "bases/linear_probe", "experiments"},
    "scipy": {"bases/matrices", "experiments/localisation/boxes", "probe/readers/scenes/matlab"},
    "threadpoolctl": {"bases"},
    "pyarrow": {"probe/readers/unpacked", "io"},
    "PIL": {"probe", "activations", "segmenters", "exemplars", "report"},
    "matplotlib": {"plot"},
    "jinja2": {"report"},
    "pandas": {"accessor", "io"},
    "pydantic": {"cli", "survey"},
    "typer": {"cli"},
    "yaml": {"probe/readers", "cli", "training"},
}
"""Library -> rooms, or modules of a room, that may import it."""

MODULES = sorted(path.relative_to(PACKAGE).as_posix().removesuffix(".py") for path in PACKAGE.rglob("*.py"))


def imports(module: str) -> set[str]:
    """Names of all modules a file imports, wherever the statement stands, but for the sake of types."""
    found = set()
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(module: str) -> int:
    """The floor of a module given by its path below the package, such as probe/ingest."""
    first = module.split("/")[0].removeprefix("__init__").removeprefix("__main__")
    return ROOMS.index(first)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_its_room_and_those_below(module: str) -> None:
    for name in imports(module):
        if name.startswith("dissect_xr."):
            other = name.removeprefix("dissect_xr.").replace(".", "/")
            assert room(other) <= room(module), f"{module} imports {name}, which lies above it"


@pytest.mark.parametrize("module", MODULES)
def test_a_library_is_imported_only_where_it_belongs(module: str) -> None:
    for library in {name.split(".")[0] for name in imports(module)} & set(ONLY_IN):
        homes = ONLY_IN[library]
        assert any(f"{module}/".startswith(f"{home}/") for home in homes), (
            f"{module} imports {library}, which only {sorted(homes)} may"
        )


def test_dissection_needs_only_the_store_of_activations() -> None:
    for module in MODULES:
        if module.startswith("dissection/"):
            assert not any(name.startswith("dissect_xr.activations") for name in imports(module)), module


def test_the_root_is_a_handful_of_files_and_a_room_a_dozen() -> None:
    for folder in {PACKAGE, *(path.parent for path in PACKAGE.rglob("*.py"))}:
        files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(files) <= (5 if folder == PACKAGE else 13), f"{folder} holds {len(files)} modules: make a room"


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


def test_numba_is_not_imported_by_the_package_itself() -> None:
    code = "import sys, dissect_xr; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def stub() -> dict[str, str]:
    """Public name -> module below the package that it comes from, as `__init__.pyi` says."""
    found = {}
    for node in ast.parse((PACKAGE / "__init__.pyi").read_text()).body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, f"{alias.name}: a stub hands a name on as `import name as name`"
            found[alias.name] = str(node.module)
    return found


def test_every_public_name_is_there() -> None:
    assert dir(dissect_xr) == sorted(stub()) == dissect_xr.__all__
    for name, module in stub().items():
        if not module.startswith("activations"):  # those may need torch
            assert callable(getattr(dissect_xr, name))
    with pytest.raises(AttributeError, match="no_such_name"):
        dissect_xr.no_such_name  # noqa: B018
