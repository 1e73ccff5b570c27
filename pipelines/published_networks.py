"""Compares the networks whose per-unit tables Network Dissection published in 2017: a figure, and a table in Markdown.

    python pipelines/published_networks.py FOLDER --out docs/published_networks.png

FOLDER holds the CSV files, one per network. The table is printed; `docs/published_networks.md` shows both.

Knows: which files are there, and what to call their networks.
Does not know: how a detector is found, or a figure drawn.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import xarray as xr
from matplotlib.figure import Figure

from dissect_xr.analysis.detectors import Count, detected_concepts, detectors, unique_detectors
from dissect_xr.io.netdissect_csv import read_netdissect_csv
from dissect_xr.plot.compare import networks_compared
from dissect_xr.plot.palette import in_order

FILES = {
    "ResNet152-Places365 res5c": "resnet152_places365_res5c.csv",
    "AlexNet-Places365 conv5": "alexnet_places365_conv5.csv",
    "AlexNet-ImageNet conv5": "alexnet_imagenet_conv5.csv",
}
"""Network and layer -> its file."""

COUNTS: tuple[Count, ...] = ("by_unit", "by_category")


def read(folder: Path) -> dict[str, xr.Dataset]:
    """Network and layer -> its dissection, read into memory."""
    return {network: read_netdissect_csv(folder / name) for network, name in FILES.items()}


def figure(networks: Mapping[str, xr.Dataset]) -> Figure:
    """Unique detectors of each network, in a panel per count; both panels have one scale."""
    drawn = Figure(figsize=(8.0, 4.2), layout="constrained")
    panels = drawn.subplots(len(COUNTS), 1, sharex=True)
    for panel, count in zip(panels, COUNTS, strict=True):
        networks_compared(networks, count=count, ax=panel)
    panels[0].tick_params(labelbottom=True)
    for panel in panels[1:]:
        panel.get_legend().remove()
    return drawn


def table(networks: Mapping[str, xr.Dataset]) -> str:
    """Markdown: a row per network and count, with units, detectors, and unique detectors in all and by category."""
    first, *_ = networks.values()
    categories = in_order(first["category"].values.tolist())
    rows = [["network, layer", "units", "detectors", "unique", "in all", *categories]]
    rows += [["---", *["---:"] * 2, "---", *["---:"] * (1 + len(categories))]]
    for network, ds in networks.items():
        found = int(detectors(ds).sum())
        head = [network, f"{ds.sizes['unit']:,}", f"{found:,} ({found / ds.sizes['unit']:.0%})"]
        for count in COUNTS:
            concepts = detected_concepts(ds, count=count)
            each = concepts.groupby("concept_category").sum()
            numbers = [int(each.sel(concept_category=category)) for category in categories]
            rows.append([*head, f"`{count}`", str(int(unique_detectors(ds, count=count))), *map(str, numbers)])
            head = ["", "", ""]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the published CSV files")
    parser.add_argument("--out", type=Path, default=Path("published_networks.png"), help="the figure; %(default)s")
    arguments = parser.parse_args()
    networks = read(arguments.folder)
    with mpl.rc_context():
        mpl.rcdefaults()
        figure(networks).savefig(arguments.out, dpi=120, metadata={"Software": None})
    print(table(networks))


if __name__ == "__main__":
    main()
