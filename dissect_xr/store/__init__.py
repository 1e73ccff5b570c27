"""Zarr stores whose damaged or missing objects are noticed, and in which finished work is never lost.

Knows: the functions that other rooms call, as in `store.read(url, path)`.
Does not know: how they work. `writer` creates and writes arrays, `reader` opens them, `markers` records finished work.
"""

from dissect_xr.store.ahead import Ahead, Rows, in_blocks
from dissect_xr.store.markers import (
    Written,
    drop,
    drop_below,
    drop_if_gone,
    mark,
    marked_groups,
    marker,
    markers,
    unmark,
)
from dissect_xr.store.names import check_name
from dissect_xr.store.objects import Url, as_url, join
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
    "Ahead", "ArraySpec", "Rows", "StoredArray", "Url", "Writer", "Written", "as_url", "check_name", "coordinate",
    "create", "drop", "drop_below", "drop_if_gone", "exists", "fingerprint", "groups", "in_blocks", "join", "lay_out",
    "mark", "marked", "marked_groups", "marker", "markers", "open_lazy", "read", "read_attrs", "remove", "unmark",
    "update_attrs", "write_group",
]  # fmt: skip
