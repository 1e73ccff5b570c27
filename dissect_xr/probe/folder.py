"""The files of a probe: where they lie, which may be read, and by which orientation an image is turned.

Knows: links, Unicode forms of names, and the folder that no file may lie outside of.
Does not know: what is in a file.
"""

import os
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from dissect_xr.probe.faults import Fault


@dataclass(frozen=True)
class Folder:
    """A folder of images or label maps."""

    root: str
    follow_links: bool = False
    """whether links may lead outside: for folders of one's own, not for those of others"""
    turned: Mapping[str, int] = field(default_factory=dict)
    """image -> the EXIF orientation that its pixels are turned by; all others are read as they are stored"""
    within: Mapping[str, "Folder"] = field(default_factory=dict)
    """first part of a path -> the folder that the rest is relative to, if there are several; `root` is none then"""

    def of(self, names: Iterable[str]) -> "Folder":
        """The folder for a task that reads these images: it carries no orientations but theirs."""
        return replace(self, turned={name: self.turned[name] for name in names if name in self.turned})

    def orientation(self, name: str) -> int:
        """The EXIF orientation that an image is turned by, 1 where it is read as stored."""
        return self.turned.get(name, 1)

    @property
    def roots(self) -> tuple[str, ...]:
        """The folders that files lie in."""
        return tuple(root for one in self.within.values() for root in one.roots) if self.within else (self.root,)

    def path(self, name: str, where: str | None = None) -> Path:
        """The path of a file; `where` says in messages who names it.

        Raises
        ------
        Fault
            If it lies outside the folder, or a link on the way leads nowhere.
        """
        first, _, rest = name.partition("/")
        if self.within:
            return self.within[first].path(rest, where or name)
        return inside(self.root, name, where or name, follow_links=self.follow_links)


def inside(root: str, relative: str, where: str, *, follow_links: bool = False) -> Path:
    """The path `root / relative`; a name in another Unicode form than on disk is found, too.

    Links are resolved; with `follow_links` they stay, and only `relative` itself must not lead outside `root`.

    Raises
    ------
    Fault
        If the path lies outside `root`, is none, or leads through a link to nowhere.
    """
    base = Path(root).resolve()
    try:
        given = base / relative
        if not os.path.lexists(given):
            given = _in_another_form(base, Path(relative)) or given
        path = Path(os.path.normpath(given)) if follow_links else given.resolve()
        exists = path.exists()
    except (ValueError, OSError, RuntimeError) as error:  # a null character, a loop of links
        raise Fault(f"{where}: {relative!r} is no path: {error}. Correct it.", "its name is no path") from error
    if not exists and (broken := _broken_link(base, given)) is not None:
        raise Fault(
            f"{where}: '{relative}' is a broken link: {broken} leads to {os.readlink(broken)}, which is not there. "
            "Put the file there, or replace the link.",
            "it is a broken link",
        )
    if not path.is_relative_to(base):
        linked = follow_links is False and Path(os.path.normpath(given)).is_relative_to(base)
        raise Fault(
            f"{where}: '{relative}' lies outside {base}. Paths must stay inside the probe's folder."
            + (" To follow links in folders of your own, give `follow_links: true`." if linked else ""),
            "it lies outside the probe's folder",
            shared=linked,
        )
    return path


def same_name(text: str) -> str:
    """The text in the Unicode form in which names are compared: `é` is one character, not `e` and an accent.

    >>> same_name("e\\u0301.png") == "\\xe9.png"
    True
    """
    return unicodedata.normalize("NFC", text)


def slashed(path: str, folder: Path) -> str:
    """The path with / for the backslashes of Windows, unless a file has them in its name."""
    return path.replace("\\", "/") if "\\" in path and not os.path.lexists(folder / path) else path


def _in_another_form(base: Path, relative: Path) -> Path | None:
    """The path on disk whose name is `relative` in another Unicode form, None if there is none."""
    path = base
    for part in relative.parts:
        if not os.path.lexists(path / part):
            if not path.is_dir() or (found := _names(str(path), path.stat().st_mtime_ns).get(same_name(part))) is None:
                return None
            part = found
        path = path / part
    return path


@lru_cache(maxsize=64)
def _names(folder: str, changed: int) -> Mapping[str, str]:
    """Name in the form in which names are compared -> name on disk; `changed` is when the folder was changed last."""
    return {same_name(name): name for name in os.listdir(folder)}


def _broken_link(base: Path, path: Path) -> Path | None:
    """The first link below `base` on the way to `path` that leads nowhere."""
    steps = [step for step in (*reversed(path.parents), path) if step.is_relative_to(base)]
    return next((step for step in steps if step.is_symlink() and not step.exists()), None)
