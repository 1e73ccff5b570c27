"""Draw what emerges in the eight variants, and print the table of docs/networks.md. After `dissect-xr run`:

    python pipelines/compare_variants.py demo/networks/dissection.zarr --out docs/networks.png

Knows: which fraction is shown, and how the two figures stand beside each other.
Does not know: how networks are compared (`analysis.networks`) or trained (`train_variants`).
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
from train_variants import VARIANTS

import dissect_xr as dx

FRACTION = 0.005


def main() -> None:
    """Write the figure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dissection")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    plt.switch_backend("Agg")
    ds = dx.open_dissection(given.dissection).sel(fraction=FRACTION)
    networks = {name: ds.sel(snapshot=name) for name in VARIANTS}
    found = dx.compare_networks(networks)
    figure, axes = plt.subplots(1, 2, figsize=(13, 5.6), width_ratios=(1, 1.1), layout="constrained")
    dx.networks_compared(networks, ax=axes[0])
    dx.shared_vocabularies(found, ax=axes[1])
    figure.savefig(given.out, dpi=90)
    table = found["unique_detectors"].to_pandas()
    table["all"], table["own"] = table.sum(axis=1), found["own"].sum("category").to_series()
    table["detectors"] = found["detectors"].to_series()
    print(table.to_string())
    print(found["unique_detectors_of_layer"].to_pandas().to_string())


if __name__ == "__main__":
    main()
