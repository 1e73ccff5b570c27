"""Zarr stores in which nothing is lost: what is here is the room's face, used as `store.read(url, path)`.

Knows: the names that whoever reads or writes a store needs.
Does not know: how any of them works: `writer` creates and writes, `reader` opens, `markers` say what is finished.
"""

from dissect_xr.store.markers import Written, drop, drop_below, mark, marker, markers
from dissect_xr.store.objects import join
from dissect_xr.store.reader import StoredArray, exists, groups, open_lazy, read, read_attrs
from dissect_xr.store.writer import (
    ArraySpec,
    Writer,
    coordinate,
    create,
    fingerprint,
    lay_out,
    marked,
    remove,
    update_attrs,
    write_group,
)

__all__ = [
    "ArraySpec",
    "StoredArray",
    "Writer",
    "Written",
    "coordinate",
    "create",
    "drop",
    "drop_below",
    "exists",
    "fingerprint",
    "groups",
    "join",
    "lay_out",
    "mark",
    "marked",
    "marker",
    "markers",
    "open_lazy",
    "read",
    "read_attrs",
    "remove",
    "update_attrs",
    "write_group",
]  # fmt: skip
