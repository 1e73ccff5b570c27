"""Files of the report: HTML from templates, data as scripts, styles. All links are relative, none leads to a network.

Knows: Jinja, how data is written so that a browser can read it from file://, and file names that every system allows.
Does not know: what the numbers mean.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from dissect_xr.errors import DissectError

OURS = ("data", "images", "pages", "static")
"""Folders of a report. A new report replaces them and `PAGES`, and nothing else."""

PAGES = ("index.html", "concepts.html", "experiments.html")
"""Pages at the top of a report."""


def prepare_folder(folder: Path) -> None:
    """Make the folder if it is missing, and delete an earlier report in it.

    Raises
    ------
    DissectError
        Where it holds files of no report, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise DissectError(f"{folder}: expected a folder to write the report to, found a file. Choose another.")
    if folder.is_dir() and (others := sorted({p.name for p in folder.iterdir()} - {*OURS, *PAGES})):
        raise DissectError(f"{folder}: holds {others[0]}, which is no part of a report. Choose another folder.")
    try:
        for name in OURS:
            shutil.rmtree(folder / name, ignore_errors=True)
            (folder / name).mkdir(parents=True)
    except OSError as error:
        raise DissectError(f"{folder}: cannot write there: {error}. Choose another folder.") from error
    for name in PAGES:
        (folder / name).unlink(missing_ok=True)
    for source in (files("dissect_xr.report") / "templates" / "static").iterdir():
        (folder / "static" / source.name).write_bytes(source.read_bytes())


def write_page(path: Path, template: str, root: str, values: Mapping[str, Any]) -> None:
    """Write a page from a template; `root` is the relative path from the page to the report's folder."""
    path.write_text(templates("report").get_template(template).render(root=root, **values), encoding="utf-8")


def templates(room: str) -> Environment:
    """The templates of a room: every text is escaped, and a value that is missing is an error."""
    return Environment(
        loader=PackageLoader("dissect_xr", f"{room}/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_data(path: Path, kind: str, key: str, value: Any) -> None:
    """Write data as a script that hands it to the page: pages from file:// may load scripts, but not fetch data."""
    path.write_text(f"dissect.give({script_json(kind)},{script_json(key)},{script_json(value)});\n", encoding="ascii")


def script_json(value: Any) -> str:
    r"""JSON that is also safe inside JavaScript and HTML.

    >>> script_json("</script>")
    '"\\u003c/script\\u003e"'
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def slugs(names: Sequence[str]) -> list[str]:
    """A file name for each name, distinct also on systems that ignore upper and lower case.

    >>> slugs(["layer/1", "layer 1", "LAYER_1"])
    ['layer_1', 'layer_1-2', 'LAYER_1-3']
    """
    taken: set[str] = set()
    found = []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", name).strip(".")[:80] or "_"
        slug, number = plain, 1
        while slug.lower() in taken:
            number += 1
            slug = f"{plain}-{number}"
        taken.add(slug.lower())
        found.append(slug)
    return found
