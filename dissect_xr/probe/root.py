"""The folders of a probe's images: how they are stored, and what happens when the images have moved.

Knows: the attribute `root` of a probe, one folder or those of the sets that were merged, and the digests of the images
in the markers of its blocks.
Does not know: label maps, or what is read of an image.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Pool, run_tasks
from dissect_xr.parallel.progress import track
from dissect_xr.probe.folder import Folder
from dissect_xr.probe.label_set import LabelSet
from dissect_xr.store import objects


def image_root(url: str) -> str:
    """The folder that the image paths of the probe at `url` are relative to; of a merged probe, see `image_folder`."""
    return _full(str(store.read_attrs(url)["root"]), url)


def image_folder(url: str) -> Folder:
    """The folder of the probe's images, and how they are read: all that shows pixels reads them through it."""
    attrs = store.read_attrs(url)
    root, parameters = attrs["root"], attrs["parameters"]
    if isinstance(root, str):
        return Folder(_full(root, url), bool(parameters.get("follow_links", False)), attrs["turned"])
    within = {
        name: Folder(_full(one, url), bool(parameters["sets"][name].get("follow_links", False)))
        for name, one in root.items()
    }
    return Folder("", turned=attrs["turned"], within=within)


def _full(root: str, url: str) -> str:
    """The path of a folder that is stored relative to that of the probe."""
    return root if Path(root).is_absolute() else str(Path(url).parent / root)


def root_attrs(folder: Folder, url: str) -> str | dict[str, str]:
    """The folder of images as it is stored; of a merged set the folder of each set in it, by name."""
    if not folder.within:
        return root_attr(folder.root, url)
    return {name: root_attr(one.root, url) for name, one in folder.within.items()}


def root_attr(images: str, url: str) -> str:
    """The folder `images` as it is stored: relative if it lies beside or below the probe, so that a run can be moved.

    >>> root_attr("/data/run/digits", "/data/run/probe.zarr"), root_attr("/data/digits", "/data/run/probe.zarr")
    ('digits', '/data/digits')
    """
    folder = Path(images).resolve()
    parent = Path(url).resolve().parent if objects.is_local(url) else None
    return folder.relative_to(parent).as_posix() if parent and folder.is_relative_to(parent) else str(folder)


@dataclass(frozen=True)
class DigestTask:
    """One image block whose files are compared with those that the probe was made from."""

    folder: Folder
    images: tuple[str, ...]
    """relative to the folder"""
    sha256: str
    """over the bytes of all of them"""

    @property
    def what(self) -> str:
        """The task's name in messages."""
        return f"moved images {self.images[0]} to {self.images[-1]} ({len(self.images)})"


def follow_images(label_set: LabelSet, url: str, *, pool: Pool, show: bool) -> None:
    """Make a finished probe name the label set's folders of images, where it names others.

    The images there must be the same, byte for byte: all of them are read, once.

    Raises
    ------
    DissectError
        If an image is missing or another one; the probe then stays as it is.
    """
    tasks, folder, named = [], label_set.folder, image_folder(url)
    if {Path(root).resolve() for root in named.roots} == {Path(root).resolve() for root in folder.roots}:
        return
    for key in sorted(store.markers(url, "blocks")):
        first, stop = map(int, key.removeprefix("blocks/").split("-"))
        block = store.marker(url, key)
        if block is not None:
            images = tuple(row.image for row in label_set.rows[first:stop])
            tasks.append(DigestTask(folder, images, block["note"]["pixels_sha256"]))
    with track("moved images", len(label_set.rows), show=show) as bar:
        for task, found in run_tasks(pool, digest_block, tasks):
            if found != task.sha256:
                raise DissectError(
                    f"{', '.join(folder.roots)}: of the images {task.images[0]} to {task.images[-1]} at least one is "
                    f"not that which {url} was made from, in {', '.join(named.roots)}. Name the folder of the same "
                    "images, or use another --out."
                )
            bar.advance(len(task.images))
    store.update_attrs(url, {"root": root_attrs(folder, url)})


def digest_block(task: DigestTask) -> str:
    """sha256 over the files of one image block, as an ingest takes it."""
    digest = hashlib.sha256()
    for name in task.images:
        path = task.folder.path(name, task.what)
        try:
            digest.update(path.read_bytes())
        except OSError as error:
            raise DissectError(
                f"{path}: cannot be read ({error.strerror}), an image that the probe was made from. Name the folder "
                "that holds all of them."
            ) from error
    return digest.hexdigest()
