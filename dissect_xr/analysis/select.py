"""Selects concepts by name or number, units by id, and the only snapshot or fraction of a Dataset.

Knows: coordinates, and which names are similar to one that is not there.
Does not know: what counts mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

import numpy as np
import xarray as xr

from dissect_xr.errors import DissectError
from dissect_xr.schema import PER_UNIT


def concept_index(ds: xr.Dataset, concept: str | int) -> int:
    """Index along ``concept`` of the concept with this name (in upper or lower case) or number.

    Raises
    ------
    DissectError
        If there is none; similar names are listed. If several have the name; their numbers are listed.

    Examples
    --------
    >>> ds = xr.Dataset(coords={"concept": [2, 5], "concept_name": ("concept", ["car", "sky"])})
    >>> concept_index(ds, "sky"), concept_index(ds, 2)
    (1, 0)
    """
    numbers = np.atleast_1d(ds["concept"].values)
    names = np.atleast_1d(ds["concept_name"].values).tolist()
    if isinstance(concept, str):
        found = [n for n, name in enumerate(names) if name == concept]
        found = found or [n for n, name in enumerate(names) if name.lower() == concept.lower()]
    else:
        found = np.flatnonzero(numbers == concept).tolist()
    if len(found) > 1:
        listed = ", ".join(f"{numbers[n]} ({np.atleast_1d(ds['concept_category'].values)[n]})" for n in found)
        raise DissectError(f"'{concept}' names {len(found)} concepts: give the number, one of {listed}.")
    if not found:
        raise DissectError(f"no concept '{concept}'{_near(str(concept), names)}.")
    return int(found[0])


def unit_index(ds: xr.Dataset, unit: str) -> int:
    """Index along ``unit`` of the unit with this id, ``<layer>/<channel>``.

    Raises
    ------
    DissectError
        If there is none; similar ids are listed.

    Examples
    --------
    >>> unit_index(xr.Dataset(coords={"unit": ["conv5/0", "conv5/1"]}), "conv5/1")
    1
    """
    units = np.atleast_1d(ds["unit"].values).tolist()
    if unit not in units:
        raise DissectError(f"no unit '{unit}'{_near(unit, units)}. Units are named <layer>/<channel>, channels from 0.")
    return int(units.index(unit))


def with_units(ds: xr.Dataset) -> xr.Dataset:
    """`ds` with the dimension ``unit``, also after ``ds.sel(unit=name)``, which drops it.

    Examples
    --------
    >>> ds = xr.Dataset({"intersection": ("concept", [3]), "concept_area": ("concept", [5])}, {"unit": "conv5/1"})
    >>> {name: values.dims for name, values in with_units(ds).data_vars.items()}
    {'intersection': ('unit', 'concept'), 'concept_area': ('concept',)}
    """
    if "unit" in ds.dims or "unit" not in ds.coords:
        return ds
    counts = [name for name in (*PER_UNIT, "iou") if name in ds]
    coords = {name: ("unit", np.atleast_1d(ds[name].values)) for name in ("layer", "channel") if name in ds.coords}
    rest = ds.drop_vars([*counts, "unit", *coords])
    found = ds[counts].expand_dims("unit").assign_coords(coords).assign(rest.data_vars)[list(ds.data_vars)]
    return found.assign_coords({name: rest[name] for name in ("category",) if name in rest.coords})


def category_names(ds: xr.Dataset) -> list[str]:
    """The categories in the order of the probe; of a selection of variables, which loses it, in that of its concepts.

    >>> category_names(xr.Dataset(coords={"concept_category": ("concept", ["part", "object", "part"])}))
    ['part', 'object']
    """
    if "category" in ds.variables:
        return [str(name) for name in np.atleast_1d(ds["category"].values)]
    return list(dict.fromkeys(np.atleast_1d(ds["concept_category"].values).tolist()))


def only(ds: xr.Dataset, *dims: str, of: str = "the Dataset") -> xr.Dataset:
    """`ds` without the dimensions `dims`, along which it must hold one value each; messages call it `of`.

    Raises
    ------
    DissectError
        If it holds several values of one of them.
    """
    for dim in dims:
        if ds.sizes.get(dim, 1) != 1:
            raise DissectError(f"expected one {dim}, {of} has {ds.sizes[dim]}: select with ds.isel({dim}=0).")
    return ds.squeeze([dim for dim in dims if dim in ds.dims])


def _near(wanted: str, names: Sequence[str]) -> str:
    """Up to five similar names, as the end of an error message."""
    lower = {name.lower(): name for name in names}
    near = [lower[name] for name in get_close_matches(wanted.lower(), lower, n=5)]
    near += [name for name in names if wanted.lower() in name.lower() and name not in near][: 5 - len(near)]
    return f"; near: {', '.join(near)}" if near else f" among {len(names)}"
