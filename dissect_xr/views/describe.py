"""What a store holds, said in a few lines or tables.

Knows: how to tell the three kinds of store apart.
Does not know: how tables look (`tables`).
"""

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table

from dissect_xr import storage
from dissect_xr.analysis.results import open_dissection
from dissect_xr.errors import DissectError
from dissect_xr.views.tables import concepts, summary


def describe_store(url: str) -> Iterator[str | Table]:
    """Lines and tables about the store at `url`.

    Raises
    ------
    DissectError
        Where there is no store of this package.
    """
    if not storage.exists(url):
        raise DissectError(f"{url}: expected a store (probe.zarr, activations.zarr or dissection.zarr), found none.")
    keys = storage.markers(url)
    if "plan" in keys:
        yield from _probe(url)
    elif any(key.endswith("/threshold") for key in keys):
        yield from summary(open_dissection(url))
        yield from anchoring_notes(url)
    elif any(key.endswith("/done") for key in keys):
        yield _activations(url, keys)
    else:
        raise DissectError(f"{url}: holds nothing that this package finished.")


def anchoring_notes(url: str) -> list[str]:
    """A line for each reason why layers are anchored otherwise than asked for."""
    reasons: dict[str, list[str]] = {}
    for key in sorted(storage.markers(url)):
        if key.endswith("/done"):
            path = key.removesuffix("/done")
            if reason := storage.read_attrs(url, path)["anchoring_reason"]:
                reasons.setdefault(reason, []).append(path)
    return [
        f"anchoring half_pixel instead of receptive_field for {escape(', '.join(paths))}: {escape(reason)}"
        for reason, paths in reasons.items()
    ]


def _probe(url: str) -> Iterator[str | Table]:
    if storage.marker(url, "done") is None:
        raise DissectError(f"{url}: the probe is not complete. Run the recipe again: it resumes.")
    data = storage.open_lazy(url)
    sizes = data.sizes
    yield (
        f"probe: {sizes['image']} images, {sizes['plane']} planes of {sizes['row']} x {sizes['col']}, "
        f"{sizes['concept']} concepts in {sizes['category']} categories"
    )
    if skipped := data.attrs["parameters"].get("skipped"):
        yield f"{len(skipped)} images skipped: {escape(', '.join(image for image, _ in skipped[:10]))}"
    yield from concepts(data)


def _activations(url: str, keys: set[str]) -> Table:
    table = Table(title="activations", title_justify="left")
    for name in ("snapshot", "layer"):
        table.add_column(name)
    for name in ("images", "units", "map", "dtype"):
        table.add_column(name, justify="right")
    for key in sorted(key for key in keys if key.endswith("/done")):
        path = key.removesuffix("/done")
        array = storage.read(url, f"{path}/activation")
        images, units, height, width = array.shape
        snapshot, _, layer = path.partition("/")
        table.add_row(escape(snapshot), escape(layer), str(images), str(units), f"{height} x {width}", str(array.dtype))
    return table
