"""The page on the published networks says what their tables say."""

import importlib.util
import re
from types import ModuleType

import numpy as np
import pytest
import xarray as xr
from checkout import ROOT
from published import FIGURES, PUBLISHED, published

from dissect_xr.analysis.detectors import best_concept, detected_concepts, detectors, unique_detectors

PAGE = (ROOT / "docs" / "published_networks.md").read_text(encoding="utf-8")
FIGURE = ROOT / "docs" / "published_networks.png"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "pipelines" / "published_networks.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def networks(script: ModuleType) -> dict[str, xr.Dataset]:
    for name in script.FILES.values():
        published(name)
    found: dict[str, xr.Dataset] = script.read(PUBLISHED)
    return found


@pytest.mark.data
def test_the_table_is_what_the_script_prints(script: ModuleType, networks: dict[str, xr.Dataset]) -> None:
    assert script.table(networks) in PAGE


@pytest.mark.data
def test_the_figure_draws_the_numbers_of_the_table(script: ModuleType, networks: dict[str, xr.Dataset]) -> None:
    rows = [line for line in PAGE.splitlines() if "`by_unit` |" in line or "`by_category` |" in line][
        : 2 * len(networks)
    ]
    panels = script.figure(networks).axes
    for panel, rows_of_count in zip(panels, (rows[::2], rows[1::2]), strict=True):
        for network, row in enumerate(rows_of_count):
            widths = [int(container[network].get_width()) for container in panel.containers]
            assert widths == [int(cell) for cell in row.split("|")[6:-1]]
            assert panel.texts[-len(networks) :][network].get_text() == row.split("|")[5].strip()


@pytest.mark.data
def test_what_is_published_is_what_is_said_to_agree(script: ModuleType, networks: dict[str, xr.Dataset]) -> None:
    for network, file in script.FILES.items():
        ds, (_, *numbers) = networks[network], FIGURES[file]
        counts = [int(unique_detectors(ds, count=count)) for count in script.COUNTS]
        assert [int(detectors(ds).sum()), *counts] == numbers
        assert f"{network.split()[0]} | {', '.join(map(str, numbers))} | the same |" in PAGE
    best = best_concept(networks["ResNet152-Places365 res5c"])
    lines = re.findall(r"units (.*) \| (.*) \| the same", PAGE)
    named = [pair for units, ious in lines for pair in zip(units.split(", "), ious.split(", "), strict=True)]
    assert len(named) == 5
    for unit, score in named:
        number, name = unit.split()
        found = best.sel(unit=f"res5c/{int(number) - 1}")
        assert (found["concept_name"].item(), f"{found['iou'].item():.3f}") == (name, score)


@pytest.mark.data
def test_what_is_seen_is_there(script: ModuleType, networks: dict[str, xr.Dataset]) -> None:
    deep, places, imagenet = networks.values()
    scenes, objects, textures = (
        [int(detected_concepts(ds).where(ds["concept_category"] == kind, drop=True).sum()) for ds in networks.values()]
        for kind in ("scene", "object", "texture")
    )
    assert f"{scenes[0]} of the {int(unique_detectors(deep))} concepts" in PAGE
    assert f"it is {scenes[1]} of {int(unique_detectors(places))}" in PAGE
    assert f"AlexNet-ImageNet {scenes[2]} of {int(unique_detectors(imagenet))}." in PAGE
    assert f"has {objects[1]} objects by unit, AlexNet-ImageNet {objects[2]};" in PAGE
    assert f"({textures[1]} and {textures[2]})" in PAGE
    near = int((abs(best_concept(deep)["iou"] - 0.04) <= 0.002).sum())
    assert f"{near} of ResNet-152's {deep.sizes['unit']:,} units" in PAGE
    assert f"{int(deep['unit_area'].sel(domain='texture').isnull().sum())} units have a texture without a name" in PAGE
    cutoffs = xr.DataArray(np.arange(20, 101) / 1000, dims="cutoff")
    for count in script.COUNTS:
        numbers = [unique_detectors(ds, count=count, cutoff=cutoffs).values for ds in networks.values()]
        assert numbers[0].shape == cutoffs.shape
        assert (np.diff(numbers, axis=0) < 0).all(), "at every cutoff fewer than the network before"


def test_the_page_shows_a_small_figure_and_is_linked() -> None:
    assert f"({FIGURE.name})" in PAGE
    assert FIGURE.stat().st_size < 200_000
    assert "(docs/published_networks.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
