"""Kinds of probes in recipes for COCO and the sets in its formats.

Knows: the fields of each kind, and which reader it is for.
Does not know: formats.
"""

from typing import Literal

from dissect_xr.cli.fields.scenes import SceneProbe
from dissect_xr.probe.label_set import LabelSet
from dissect_xr.probe.readers.coco.instances import read_coco
from dissect_xr.probe.readers.coco.lvis import read_lvis
from dissect_xr.probe.readers.coco.paco import read_paco
from dissect_xr.probe.readers.coco.panoptic import read_coco_panoptic
from dissect_xr.probe.readers.coco.part_imagenet import read_part_imagenet
from dissect_xr.probe.readers.coco.stuff import read_coco_stuff, read_coco_stuff_maps

ANNOTATED = {
    "coco": read_coco,
    "coco_stuff": read_coco_stuff,
    "lvis": read_lvis,
    "paco": read_paco,
    "part_imagenet": read_part_imagenet,
}
"""Kind -> what reads a JSON file of polygons and run-length codes."""


class CocoProbe(SceneProbe):
    """Images, and a JSON file of polygons and run-length codes."""

    kind: Literal["coco", "coco_stuff", "lvis", "paco", "part_imagenet"]
    image_folder: str
    annotations: str

    def read(self, out: str) -> LabelSet:
        """See `SceneProbe`."""
        read = ANNOTATED[self.kind]
        return read(self.image_folder, self.annotations, label_size=self.label_size, categories=self.categories)


class CocoPanopticProbe(SceneProbe):
    """Images, PNGs of segments, and a JSON file that names them."""

    kind: Literal["coco_panoptic"]
    image_folder: str
    mask_folder: str
    annotations: str

    def read(self, out: str) -> LabelSet:
        """See `SceneProbe`."""
        return read_coco_panoptic(
            self.image_folder,
            self.mask_folder,
            self.annotations,
            label_size=self.label_size,
            categories=self.categories,
        )


class CocoStuffMapsProbe(SceneProbe):
    """Images, label maps of COCO-Stuff, and its table of labels."""

    kind: Literal["coco_stuff_maps"]
    image_folder: str
    mask_folder: str
    labels: str

    def read(self, out: str) -> LabelSet:
        """See `SceneProbe`."""
        return read_coco_stuff_maps(
            self.image_folder,
            self.mask_folder,
            self.labels,
            label_size=self.label_size,
            categories=self.categories,
            follow_links=self.follow_links,
        )


CocoFamily = CocoProbe | CocoPanopticProbe | CocoStuffMapsProbe
