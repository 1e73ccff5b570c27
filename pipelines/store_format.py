"""Writes the tables of docs/store_format.md from `dissect_xr.schema`; a test holds the page against them.

python pipelines/store_format.py          # writes the page anew, between its two marks
"""

from collections.abc import Iterator
from pathlib import Path

from dissect_xr.schema import SCHEMA_VERSION, STORES, Group

PAGE = Path(__file__).resolve().parents[1] / "docs" / "store_format.md"

BEGIN, END = "<!-- tables: pipelines/store_format.py -->", "<!-- end of tables -->"


def tables() -> str:
    """The part of the page that lists every variable and attribute."""
    lines = [f"Layout version {SCHEMA_VERSION}."]
    for store, groups in STORES.items():
        for group in groups:
            lines += ["", f"### {store} `{group.path}`", "", *_rows(group)]
    return "\n".join(lines)


def _rows(group: Group) -> Iterator[str]:
    if group.variables:
        yield "| variable | dims | dtype | unit | meaning |"
        yield "|---|---|---|---|---|"
        for one in group.variables:
            yield f"| `{one.name}` | {', '.join(one.dims)} | {one.dtype} | {one.units} | {one.meaning} |"
        yield ""
    yield "| attribute | meaning |"
    yield "|---|---|"
    for name, meaning in group.attributes.items():
        yield f"| `{name}` | {meaning} |"


def page(text: str) -> str:
    """The page with its tables made anew."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{tables()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
