"""Reads stores: what is damaged or missing is an error that says so, never data.

Knows: how a group, an array and a Dataset are opened through the checks of `guard`.
Does not know: how they were written, or what they mean.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.errors import GroupNotFoundError

from dissect_xr import places
from dissect_xr.errors import DissectError
from dissect_xr.guard import MEND, METADATA, CheckedStore
from dissect_xr.lazy import lazily


def exists(url: str, path: str = "") -> bool:
    """Whether a Zarr group stands at `path`."""
    return places.read(url, places.key(path, METADATA)) is not None and _group(url, path) is not None


def _group(url: str, path: str) -> Any:
    """The group, None where there is none."""
    try:
        return zarr.open_group(_checked(url), path=path, mode="r", zarr_format=3)
    except (GroupNotFoundError, FileNotFoundError):
        return None
    except DissectError:
        raise
    except Exception as error:
        raise _damaged(url, path, error) from error


def _checked(url: str) -> CheckedStore:
    return CheckedStore(places.open_store(url), url)


def _damaged(url: str, path: str, error: Exception) -> DissectError:
    return DissectError(
        f"{places.join(url, path) if path else url}: cannot be read ({type(error).__name__}: {error}). {MEND}"
    )


def read_attrs(url: str, path: str = "") -> dict[str, Any]:
    """The attributes of a group."""
    group = _group(url, path)
    if group is None:
        raise DissectError(f"{url}: expected a Zarr group at '{path or '/'}', found none.")
    return dict(group.attrs.asdict())


class StoredArray:
    """An array of a store, for slicing: the slice is what is read."""

    def __init__(self, url: str, path: str) -> None:
        self.url, self.path = url, path
        try:
            self._array: Any = zarr.open_array(_checked(url), path=path, mode="r", zarr_format=3)
        except (DissectError, FileNotFoundError):
            raise
        except Exception as error:
            raise _damaged(url, path, error) from error
        self.shape: Any = self._array.shape
        self.dtype: np.dtype[Any] = self._array.dtype
        self.chunks: tuple[int, ...] = self._array.chunks
        self.shards: tuple[int, ...] | None = self._array.shards

    def __getitem__(self, key: Any) -> Any:
        return self._read(lambda: self._array[key])

    def outer(self, key: tuple[Any, ...]) -> Any:
        """Values of an outer product of slices, numbers and lists of places."""
        return self._read(lambda: self._array.oindex[key])

    def _read(self, function: Any) -> Any:
        try:
            return function()
        except (DissectError, IndexError):
            raise
        except Exception as error:
            raise _damaged(self.url, self.path, error) from error


def read(url: str, path: str) -> StoredArray:
    """The array at `path`, for slicing: the slice is what is read.

    Raises
    ------
    DissectError
        On opening or slicing, where what is stored is not what was written.
    """
    return StoredArray(url, path)


def groups(url: str, path: str = "") -> list[str]:
    """Names of the groups directly below `path`, sorted."""
    return sorted(name for name, _ in zarr.open_group(_checked(url), path=path, mode="r").groups())


def open_lazy(url: str, path: str = "", *, chunks: Mapping[str, int] | None = None) -> xr.Dataset:
    """The group at `path` as a Dataset whose coordinates are in memory and whose variables are lazy."""
    if not exists(url, path):
        raise DissectError(f"{url}: expected a Zarr group at '{path or '/'}', found none.")
    try:
        data: xr.Dataset = xr.open_zarr(_checked(url), group=path or None, consolidated=False, chunks=None)
        coords = {name: (coord.dims, _plain(coord), coord.attrs) for name, coord in data.coords.items()}
    except DissectError:
        raise
    except Exception as error:
        raise _damaged(url, path, error) from error
    arrays = {str(name): read(url, places.key(path, str(name))) for name in data.data_vars}
    return lazily(data, arrays, dict(chunks or {})).assign_coords(coords)


def _plain(coord: xr.DataArray) -> NDArray[Any]:
    """Values; text with the fixed length that NumPy compares fastest."""
    return coord.values if coord.dtype.kind in "iufbM" else np.asarray(coord.values.tolist(), dtype=str)
