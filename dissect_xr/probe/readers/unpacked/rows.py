"""The rows of datasets of Hugging Face on disk: Parquet files of the Hub, and what `save_to_disk` writes.

Knows: pyarrow, how the files of a split are found, and where features are stored.
Does not know: what a column means.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dissect_xr.errors import DissectError
from dissect_xr.probe.folder import inside

if TYPE_CHECKING:
    from pyarrow import Schema

ROWS = 64
"""Rows of a file that are handed on at once."""

_SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}(-[0-9a-f]+)?")
"""Names of the files of a split on the Hub, such as train-00000-of-00002."""


def dataset_files(source: Path) -> Iterator[tuple[str, Path]]:
    """(split, file) of a dataset, in order."""
    if source.is_file():
        yield _split(source), source
    elif (path := source / "dataset_dict.json").is_file():
        for split in _names(_json(path).get("splits"), path):
            folder = inside(str(source), split, str(path))
            yield from ((split, file) for file in _saved(folder))
    elif (source / "state.json").is_file():
        yield from (("all", file) for file in _saved(source))
    elif shards := sorted(source.rglob("*.parquet")):
        yield from ((_split(file), file) for file in shards)
    else:
        raise DissectError(
            f"{source}: expected a dataset on disk: what `save_to_disk` wrote, or Parquet files; found neither."
        )


def _split(file: Path) -> str:
    found = _SHARD.fullmatch(file.stem)
    return found[1] if found else file.stem


def _saved(folder: Path) -> list[Path]:
    """The files of a dataset that `save_to_disk` wrote."""
    path = folder / "state.json"
    state = _json(path)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise DissectError(f"{folder}: holds a selection of rows as indices. Save it with `flatten_indices()`.")
    files = state.get("_data_files")
    names = (
        [one.get("filename") if isinstance(one, dict) else one for one in files] if isinstance(files, list) else None
    )
    return [inside(str(folder), name, str(path)) for name in _names(names, path)]


def _names(value: Any, path: Path) -> list[str]:
    """The value if it is a list of texts."""
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise DissectError(f"{path}: expected names of splits or files, as `save_to_disk` writes them, got {value!r}.")
    return value


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise TypeError(f"got {type(content).__name__}")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DissectError(f"{path}: expected fields as JSON, cannot read it: {error}.") from error
    return content


def batches(file: Path, columns: list[str]) -> Iterator[tuple["Schema", list[dict[str, Any]]]]:
    """The wanted columns of a file, some rows at a time, with its schema.

    Raises
    ------
    DissectError
        If pyarrow is not installed, the file is damaged, or a column is missing.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise DissectError(
            "Datasets of Hugging Face need the package pyarrow, which is not installed: pip install "
            "'dissect-xr[parquet]'."
        ) from error
    read = _of_parquet if file.suffix == ".parquet" else _of_arrow
    try:
        yield from read(file, columns)
    except DissectError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: a text that is no UTF-8
        raise DissectError(f"{file}: damaged, or no Parquet or Arrow file: {error}. Replace it.") from error


def _of_parquet(file: Path, columns: list[str]) -> Iterator[tuple["Schema", list[dict[str, Any]]]]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(file) as opened:
        _check_columns(opened.schema_arrow.names, columns, file)
        for batch in opened.iter_batches(batch_size=ROWS, columns=columns):
            yield opened.schema_arrow, batch.to_pylist()


def _of_arrow(file: Path, columns: list[str]) -> Iterator[tuple["Schema", list[dict[str, Any]]]]:
    import pyarrow as pa

    with pa.memory_map(str(file)) as mapped, pa.ipc.open_stream(mapped) as stream:
        _check_columns(stream.schema.names, columns, file)
        for batch in stream:
            batch.validate(full=True)
            wanted = batch.select(columns)
            yield from ((stream.schema, wanted.slice(n, ROWS).to_pylist()) for n in range(0, batch.num_rows, ROWS))


def _check_columns(there: Iterable[str], wanted: Iterable[str], file: Path) -> None:
    if missing := [name for name in wanted if name not in there]:
        raise DissectError(f"{file}: columns {', '.join(missing)} are missing; there are {', '.join(there)}.")


def features_of(schema: "Schema", file: Path) -> Mapping[str, Any]:
    """The features that Hugging Face stores in a schema; empty where there are none."""
    stored = (schema.metadata or {}).get(b"huggingface")
    if stored is None:
        return {}
    try:
        features = json.loads(stored)["info"]["features"]
    except (ValueError, KeyError, TypeError) as error:
        raise DissectError(f"{file}: its features are not readable: {type(error).__name__}: {error}.") from error
    return features if isinstance(features, dict) else {}
