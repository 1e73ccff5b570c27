"""The stored result of an experiment: `experiments/<name>.zarr` of a run, and what of it is finished.

Knows: how a result is begun, computed block by block, finished, opened, and refused where its inputs are others.
Does not know: any experiment.

An experiment's store, an example of two passes over 64 images in blocks of 32:

    marker                        says that
    created                       the store was begun, and from which inputs (its note)
    single-val/created            the arrays of the pass `single-val` are there
    single-val/blocks/0-32        its images 0 to 31 are done
    single-val/blocks/32-64       and so are the others
    single-val/done               the pass is finished
    done                          the result stands at the root

Passes hold what is worth keeping when a run is killed, such as predictions of every image; the result is derived from
them. Where a later pass depends on an earlier one, what it was asked is part of its fingerprint: if the earlier pass
was damaged and, computed again, says something else, the later one is done again as well.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Pool, run_blocks
from dissect_xr.parallel.progress import track
from dissect_xr.schema import SCHEMA_VERSION, Variable, check_version
from dissect_xr.store import objects
from dissect_xr.store.seal import SEAL, seal
from dissect_xr.store.verify import EXPERIMENTS


class Block(Protocol):
    """A task that computes one block of a pass."""

    @property
    def key(self) -> str:
        """Key of its marker."""

    @property
    def images(self) -> Sequence[str]:
        """Its images."""


@dataclass(frozen=True)
class Result:
    """Where the result of an experiment lies, and all that determines it."""

    url: str
    kind: str
    inputs: Mapping[str, Any]
    """JSON; compared when the experiment is asked for again"""

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of all that determines the result."""
        return store.fingerprint(self._all)

    @property
    def _all(self) -> dict[str, Any]:
        return {"kind": self.kind, "schema_version": SCHEMA_VERSION, **self.inputs}

    def is_finished(self) -> bool:
        """Whether the result is there.

        Raises
        ------
        DissectError
            Where the store holds an experiment from other inputs; the message lists every difference.
        """
        created = store.marker(self.url, "created")
        if created is not None and created["fingerprint"] != self.fingerprint:
            was, wanted = (_flat(inputs) for inputs in (created["note"]["inputs"], json.loads(json.dumps(self._all))))
            changed = [
                f"{key} was {_short(was.get(key))}, is {_short(wanted.get(key))}"
                for key in dict.fromkeys([*was, *wanted])
                if was.get(key) != wanted.get(key)
            ]
            raise DissectError(
                f"{self.url}: holds an experiment from other inputs: {'; '.join(changed)}. Give the experiment "
                "another `name`, or delete this store and its markers."
            )
        done = store.marker(self.url, "done", fingerprint=self.fingerprint)
        return done is not None and store.markers(self.url).issuperset(done["depends_on"])

    def begin(self) -> None:
        """Create the store, unless it is there."""
        if self.is_finished() or store.marker(self.url, "created") is not None:
            return
        write = store.lay_out if store.markers(self.url) else store.create
        write(self.url, "", [], {"kind": self.kind, "schema_version": SCHEMA_VERSION})
        store.mark(self.url, "created", fingerprint=self.fingerprint, written={}, note={"inputs": self._all})

    def finish(
        self, ds: xr.Dataset, variables: Mapping[str, Variable], *, passes: Iterable[str], attrs: Mapping[str, Any]
    ) -> xr.Dataset:
        """Write the Dataset of the result to the root and mark it; the result, opened.

        `variables` declare everything that the Dataset holds; `passes` are those that it was derived from.
        """
        arrays = [_array(ds[name], variables[str(name)]) for name in ds.variables]
        coordinates = " ".join(str(name) for name in ds.coords if ds[name].dims != (name,))
        everything = self._all | {"coordinates": coordinates, **attrs}
        written = store.lay_out(self.url, "", [], everything, arrays)
        depends_on = ["created", *(f"{name}/done" for name in passes)]
        store.mark(self.url, "done", fingerprint=self.fingerprint, written=written, depends_on=depends_on)
        return open_result(self.url, self.kind)


def compute_pass(
    result: Result,
    name: str,
    content: Mapping[str, Any],
    make: Callable[[str], Sequence[Any]],
    function: Callable[[Any], None],
    *,
    arrays: Sequence[store.ArraySpec],
    tables: Sequence[tuple[store.ArraySpec, NDArray[Any]]] = (),
    pool: Pool,
    show: bool,
    gpu: int = 0,
) -> None:
    """Compute the blocks of a pass that are not finished. A pass of another content than this one is done anew.

    Parameters
    ----------
    content
        What this pass is asked, beside the inputs of the experiment.
    make
        The tasks (`Block`), given the pass's fingerprint. Each writes whole chunks of `arrays` in the group `name`, and
        marks them under its `key`.
    function
        Does a task.
    arrays
        What the tasks fill.
    tables
        What they read: written before the first of them.
    gpu
        Whether the tasks run a model.
    """
    fingerprint = store.fingerprint({"experiment": result.fingerprint, "pass": name, "content": dict(content)})
    marked = store.markers(result.url, name)
    done = store.marker(result.url, f"{name}/done")
    if done is not None and done["fingerprint"] == fingerprint and marked.issuperset(done["depends_on"]):
        return
    if any((store.marker(result.url, key) or {"fingerprint": ""})["fingerprint"] != fingerprint for key in marked):
        store.remove(result.url, name)
        marked = set()
    tasks = list(make(fingerprint))
    if f"{name}/created" not in marked:
        write = store.lay_out if marked else store.create
        written = write(result.url, name, arrays, {"schema_version": SCHEMA_VERSION}, tables)
        mine = {key: pair for key, pair in written.items() if key.startswith(f"{name}/")}
        store.mark(result.url, f"{name}/created", fingerprint=fingerprint, written=mine)
    missing = [task for task in tasks if task.key not in marked]
    with track(f"{result.kind} {name}", len(missing), show=show and bool(missing)) as bar:
        for task, _ in run_blocks(pool, function, missing, gpu=gpu):
            bar.advance(len(task.images))
    depends_on = [f"{name}/created", *(task.key for task in tasks)]
    note = {SEAL: seal(result.url, name)}
    store.mark(result.url, f"{name}/done", fingerprint=fingerprint, written={}, note=note, depends_on=depends_on)


def open_result(url: store.Url, kind: str) -> xr.Dataset:
    """The finished result of an experiment of this kind, lazy, as it is stored; coordinates in memory.

    Raises
    ------
    DissectError
        Where there is none, or one of another kind or of another version of this package.
    """
    url = store.as_url(url)
    if store.marker(url, "done") is None:
        raise DissectError(f"{url}: expected a finished experiment, found none. Run its recipe again.")
    ds = store.open_lazy(url)
    check_version(ds.attrs, url)
    if ds.attrs["kind"] != kind:
        raise DissectError(f"{url}: expected an experiment of the kind {kind}, found {ds.attrs['kind']}.")
    return ds


def finished_experiments(out: str) -> dict[str, str]:
    """Name -> kind of the finished experiments of the run directory `out`, sorted by name."""
    folder = store.join(out, EXPERIMENTS)
    found = {}
    for name in objects.children(folder, "markers/"):
        url = store.join(folder, name)
        if name.endswith(".zarr") and store.marker(url, "done") is not None:
            found[name.removesuffix(".zarr")] = str(store.read_attrs(url)["kind"])
    return found


def experiment_url(out: str, name: str) -> str:
    """The URL of the experiment `name` of a run directory."""
    return store.join(out, EXPERIMENTS, f"{name}.zarr")


def _array(values: xr.DataArray, variable: Variable) -> tuple[store.ArraySpec, NDArray[Any]]:
    """One array with a single chunk, checked against its declaration."""
    data, text = np.asarray(values.values), variable.dtype == "string"
    if values.dims != variable.dims or not (text or str(data.dtype) == variable.dtype):
        raise DissectError(
            f"{variable.name}: expected {variable.dims} {variable.dtype}, got {values.dims} {data.dtype}. This is an "
            "error of the experiment."
        )
    if text:
        data = np.asarray([str(value) for value in data.ravel()], dtype=object).reshape(data.shape)
    chunks = tuple(max(1, length) for length in data.shape)
    dtype = "str" if text else variable.dtype
    return store.ArraySpec(variable.name, variable.dims, data.shape, dtype, chunks, attrs=variable.attrs), data


def _flat(inputs: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Names with dots -> values that are no mappings."""
    found: dict[str, Any] = {}
    for name, value in inputs.items():
        found |= _flat(value, f"{above}{name}.") if isinstance(value, Mapping) else {f"{above}{name}": value}
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]} … {text[-12:]}"
