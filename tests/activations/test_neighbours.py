"""A file of code finds the files beside it, those of its own folder, and an edit of any of them is another model."""

import hashlib
import json
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from dissect_xr.activations.neighbours import code_sha256, neighbours
from dissect_xr.activations.references import resolve, source_sha256
from dissect_xr.activations.request import ModelSpec
from dissect_xr.activations.sources import cached_model, load_model
from dissect_xr.errors import DissectError

IMPORTS = {
    "absolute": "import blocks\nUNITS = blocks.UNITS\n",
    "from": "from blocks import UNITS\n",
    "relative": "from .blocks import UNITS\n",
    "relative module": "from . import blocks\nUNITS = blocks.UNITS\n",
    "package": "from layers.sizes import UNITS\n",
    "relative package": "from .layers.sizes import UNITS\n",
    "namespace package": "import plain.sizes\nUNITS = plain.sizes.UNITS\n",
    "through another": "from other import UNITS\n",
    "relative through another": "from .other2 import UNITS\n",
    "up in a package": "from layers.deep.up import UNITS\n",
    "late": "def units():\n    from blocks import UNITS\n    return UNITS\n",
}

BUILD = """
from torch import nn

def build():
    return nn.Conv2d(3, units() if "units" in globals() else UNITS, 1)
"""


def write_project(folder: Path, statement: str, units: int) -> Path:
    """A model file that takes its number of units from a file beside it, by this statement."""
    for name in ("layers/deep", "plain"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for file in ("blocks.py", "layers/sizes.py", "plain/sizes.py"):
        (folder / file).write_text(f"UNITS = {units}\n")
    for file in ("layers/__init__.py", "layers/deep/__init__.py"):
        (folder / file).write_text("")
    (folder / "other.py").write_text("from blocks import UNITS\n")
    (folder / "other2.py").write_text("from .blocks import UNITS\n")
    (folder / "layers/deep/up.py").write_text("from ..sizes import UNITS\n")
    (folder / "net.py").write_text(statement + BUILD)
    return folder / "net.py"


def units_of(path: Path) -> int:
    return load_model(ModelSpec.of(f"{path}:build")).out_channels


@pytest.mark.parametrize("statement", IMPORTS.values(), ids=IMPORTS)
def test_a_neighbour_is_found_and_belongs_to_the_code(tmp_path, statement):
    path = write_project(tmp_path, statement, 4)
    before, modules = source_sha256(f"{path}:build"), set(sys.modules)
    assert units_of(path) == 4
    assert str(tmp_path) not in sys.path
    assert not {"blocks", "other", "layers", "plain"} & set(sys.modules)
    assert all(name.startswith("_dissect_xr_net_") for name in set(sys.modules) - modules)
    write_project(tmp_path, statement, 5)  # of the same size, in the same second
    assert source_sha256(f"{path}:build") != before
    assert units_of(path) == 5
    assert not list(tmp_path.rglob("__pycache__"))


@pytest.mark.parametrize("statement", [IMPORTS["from"], IMPORTS["relative"], IMPORTS["late"]])
def test_two_folders_have_modules_of_the_same_name(tmp_path, statement):
    """The second model must not be built from the first one's blocks."""
    one, two = (write_project(tmp_path / name, statement, units) for name, units in (("a", 2), ("b", 3)))
    assert [units_of(path) for path in (one, two, one)] == [2, 3, 2]
    assert source_sha256(f"{one}:build") != source_sha256(f"{two}:build")


def test_a_module_of_another_with_the_same_name_stays(tmp_path, monkeypatch):
    mine = type(sys)("blocks")
    monkeypatch.setitem(sys.modules, "blocks", mine)
    assert units_of(write_project(tmp_path, IMPORTS["from"], 7)) == 7
    assert sys.modules["blocks"] is mine


def test_the_standard_library_and_torch_are_nobodys_neighbours(tmp_path):
    for name in ("json", "random", "torch", "numpy", "dissect_xr"):
        (tmp_path / f"{name}.py").write_text("raise AssertionError('taken for the real one')\n")
    path = tmp_path / "net.py"
    path.write_text(
        "import json, random, numpy, torch, dissect_xr\nfrom torch import nn\n" + BUILD.replace("UNITS", "6")
    )
    assert neighbours(path) == {}
    assert units_of(path) == 6
    assert sys.modules["json"] is json
    assert sys.modules["torch"] is torch


def test_code_without_neighbours_has_the_digest_of_its_bytes(tmp_path):
    (tmp_path / "net.py").write_text("import math\n")
    (tmp_path / "unused.py").write_text("")
    assert code_sha256(tmp_path / "net.py") == hashlib.sha256(b"import math\n").hexdigest()


def test_files_that_import_each_other_are_found_once(tmp_path):
    (tmp_path / "net.py").write_text("import a\ndef build(): return a.build()\n")
    (tmp_path / "a.py").write_text(
        "import b\ndef build():\n    from torch import nn\n    return nn.Conv2d(3, b.N, 1)\n"
    )
    (tmp_path / "b.py").write_text("import a\nN = 2\n")
    assert neighbours(tmp_path / "net.py") == {("a",): tmp_path / "a.py", ("b",): tmp_path / "b.py"}
    assert units_of(tmp_path / "net.py") == 2


def test_a_neighbour_that_fails_is_named_and_leaves_nothing(tmp_path):
    (tmp_path / "net.py").write_text("from .broken import x\n")
    (tmp_path / "broken.py").write_text("import not_there_at_all\n")
    modules = set(sys.modules)
    with pytest.raises(DissectError, match=r"net\.py cannot be imported: ModuleNotFoundError: .*not_there_at_all"):
        resolve(f"{tmp_path / 'net.py'}:build")
    assert set(sys.modules) - modules == set()


def test_threads_that_build_models_of_two_folders_do_not_mix_them(tmp_path):
    paths = [write_project(tmp_path / str(n), IMPORTS["late"], n + 1) for n in range(4)]
    found: dict[int, list[int]] = {n: [] for n in range(4)}

    def build(n: int) -> None:
        found[n] += [units_of(paths[n]) for _ in range(5)]

    threads = [threading.Thread(target=build, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: [n + 1] * 5 for n in range(4)}


def test_a_cached_model_is_built_again_after_an_edit_of_a_neighbour(tmp_path):
    path = write_project(tmp_path, IMPORTS["from"], 4)
    spec = ModelSpec.of(f"{path}:build")
    assert cached_model(spec, "cpu") is cached_model(spec, "cpu")
    write_project(tmp_path, IMPORTS["from"], 5)
    model = cached_model(spec, "cpu")
    assert isinstance(model, nn.Conv2d)
    assert model.out_channels == 5


# --- code that ends the program ---


ENDINGS = {
    "exit": "import sys\nsys.exit(3)\n",
    "exit with a text": "import sys\nsys.exit('no data folder')\n",
    "quit": "raise SystemExit\n",
    "arguments": "import argparse\np = argparse.ArgumentParser()\np.add_argument('data')\np.parse_args()\n",
}


@pytest.mark.parametrize("text", ENDINGS.values(), ids=ENDINGS)
def test_a_file_that_ends_the_program_is_an_error(tmp_path, text):
    (tmp_path / "net.py").write_text(text + BUILD)
    modules = set(sys.modules) | {"argparse"}
    with pytest.raises(DissectError, match=r"net\.py ends the program when it is imported \(exit code .*__name__"):
        resolve(f"{tmp_path / 'net.py'}:build")
    assert set(sys.modules) - modules == set()


def test_a_module_that_ends_the_program_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "that_ends.py").write_text(ENDINGS["exit"])
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DissectError, match=r"module that_ends ends the program when it is imported \(exit code 3\)"):
        resolve("that_ends:build")


def test_a_factory_that_ends_the_program_is_an_error(tmp_path):
    (tmp_path / "net.py").write_text("import sys\ndef build(): sys.exit(4)\n")
    with pytest.raises(DissectError, match=r"net\.py:build\(\) failed: SystemExit: 4"):
        load_model(ModelSpec.of(f"{tmp_path / 'net.py'}:build"))


def test_a_file_sees_none_of_our_arguments(tmp_path, monkeypatch):
    """Its optional arguments get their defaults, whatever this program was called with."""
    given = ["dissect-xr", "run", "recipe.yaml", "--units", "9"]
    monkeypatch.setattr(sys, "argv", given)
    parser = "import argparse\np = argparse.ArgumentParser()\np.add_argument('--units', type=int, default=4)\n"
    (tmp_path / "net.py").write_text(parser + "UNITS = p.parse_args().units\n" + BUILD)
    assert units_of(tmp_path / "net.py") == 4
    assert sys.argv is given


def test_an_interrupt_is_no_error_of_the_file(tmp_path):
    (tmp_path / "net.py").write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        resolve(f"{tmp_path / 'net.py'}:build")
