"""The summary's numbers are visible, however long the names are and however narrow the terminal."""

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from dissect_xr.cli.summary import Row, concepts, summary, summary_rows

NAMES = [f"door, double-door, double door, entrance, gateway number {n}" for n in range(3)]
LAYER = "backbone.encoder.layers.11.feed_forward.intermediate"


def results() -> xr.Dataset:
    """Four units of one layer: three detect concept 0, 1 and 2, each with IoU 1; the last detects nothing."""
    intersection = np.zeros((1, 1, 4, 3), np.int64)
    intersection[0, 0, [0, 1, 2], [0, 1, 2]] = 1234
    area = np.full((1, 1, 4, 1), 1234)
    return xr.Dataset(
        {
            "intersection": (("snapshot", "fraction", "unit", "concept"), intersection),
            "unit_area": (("snapshot", "fraction", "unit", "domain"), area),
            "concept_area": ("concept", np.full(3, 1234)),
        },
        {
            "snapshot": ["a-snapshot-with-a-name-of-its-own"], "fraction": [0.005],
            "unit": [f"{LAYER}/{n}" for n in range(4)], "layer": ("unit", [LAYER] * 4),
            "concept": [1, 2, 3], "concept_name": ("concept", NAMES), "category": ["object"],
            "concept_category": ("concept", ["object"] * 3), "concept_domain": ("concept", ["object"] * 3),
            "domain": ["object"],
        },
    )  # fmt: skip


@pytest.mark.parametrize("width", [60, 80, 120])
def test_numbers_are_visible_beside_long_names(width: int) -> None:
    console = Console(width=width)
    with console.capture() as captured:
        for table in summary(summary_rows(results())):
            console.print(table)
    lines = captured.get().splitlines()
    row = next(line for line in lines if line.lstrip().startswith("a") and "…" in line)
    assert max(map(len, lines)) <= width
    assert [word for word in row.split() if word.isdigit()][:4] == ["4", "3", "3", "3"]
    assert len([line for line in lines if line.strip()]) == 5  # title, two lines of names, a rule, one row


def test_concepts_of_a_probe_keep_their_numbers() -> None:
    probe = xr.Dataset(
        {
            "concept_images": ("concept", [7, 8, 9]),
            "concept_area": ("concept", [50, 30, 20]),
            "domain_area": ("domain", [100]),
        },
        {
            "concept": [1, 2, 3],
            "concept_name": ("concept", NAMES),
            "concept_category": ("concept", ["object"] * 3),
            "concept_domain": ("concept", ["object"] * 3),
            "category": ["object"],
            "domain": ["object"],
        },
    )
    console = Console(width=44)
    with console.capture() as captured:
        for table in concepts(probe):
            console.print(table)
    rows = [line for line in captured.get().splitlines() if "door" in line]
    assert [row.replace("│", " ").split()[-2:] for row in rows] == [
        ["7", "50.000%"],
        ["8", "30.000%"],
        ["9", "20.000%"],
    ]


def test_of_many_rows_the_last_snapshots_are_shown() -> None:
    rows = [Row(f"s{n}", f"layer{k}", ("1", "1", "1", "1", "sky 1")) for n in range(5) for k in range(3)]

    def shown(most: int | None) -> tuple[list[str], str | None]:
        (table,) = summary({0.005: rows}, most=most)
        return [str(cell) for cell in table.columns[0].cells], table.caption  # type: ignore[return-value]

    assert shown(None) == ([row.snapshot for row in rows], None)
    assert shown(15) == shown(None)
    assert shown(8) == (["s3"] * 3 + ["s4"] * 3, "3 earlier snapshots are not shown; `dissect-xr info` shows them")
    assert shown(1)[0] == ["s4"] * 3
