"""Kinds of probes in recipes for the formats of published sets, and for tags.

Knows: the fields of each kind, and which reader it is for.
Does not know: formats.
"""

from abc import abstractmethod
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from dissect_xr import store
from dissect_xr.cli.fields.probe import FolderProbe
from dissect_xr.errors import DissectError
from dissect_xr.probe.label_set import LabelSet
from dissect_xr.probe.readers.masks import MaskFormat
from dissect_xr.probe.readers.pairs import Names
from dissect_xr.probe.readers.scenes.ade20k import read_ade20k
from dissect_xr.probe.readers.scenes.ade20k_full import read_ade20k_full
from dissect_xr.probe.readers.scenes.broden_plus import read_broden_plus
from dissect_xr.probe.readers.scenes.cityscapes import read_cityscapes
from dissect_xr.probe.readers.scenes.colored import read_colored
from dissect_xr.probe.readers.scenes.pascal_context import read_pascal_context
from dissect_xr.probe.readers.scenes.pascal_part import read_pascal_part
from dissect_xr.probe.readers.scenes.vistas import read_vistas
from dissect_xr.probe.readers.scenes.voc import read_voc
from dissect_xr.probe.readers.tags import TAG, read_dtd, read_image_folders, read_tags
from dissect_xr.probe.readers.unpacked.huggingface import Columns, read_huggingface
from dissect_xr.store import objects


class SceneProbe(FolderProbe):
    """A probe of one of these formats."""

    @abstractmethod
    def read(self, out: str) -> LabelSet:
        """The label set; `out` is the output directory, for sources whose images have to be written somewhere."""

    def _given(self, *without: str) -> dict[str, Any]:
        """The fields that are arguments of the reader, under the same names."""
        return self.model_dump(exclude={"kind", "images", "colors", "orientation", *without})


class Ade20kProbe(SceneProbe):
    """ADE20K, the 150 classes of the scene parsing challenge."""

    kind: Literal["ade20k"]
    folder: str
    """ADEChallengeData2016"""

    def read(self, out: str) -> LabelSet:
        """See `SceneProbe`."""
        return read_ade20k(**self._given())


class Ade20kFullProbe(SceneProbe):
    """ADE20K, all classes and parts."""

    kind: Literal["ade20k_full"]
    folder: str
    """ADE20K_2021_17_01"""

    def read(self, out: str) -> LabelSet:
        """See `SceneProbe`."""
        return read_ade20k_full(**self._given())


class VocProbe(SceneProbe):
    """PASCAL VOC."""

    kind: Literal["voc"]
    folder: str
    """VOCdevkit/VOC2012"""
    masks: str = "SegmentationClass"
    splits: list[str] = ["train", "val"]

    def read(self, out: str) -> LabelSet:
        """See `SceneProbe`."""
        return read_voc(**self._given())


class PascalPartProbe(SceneProbe):
    """Pascal-Part."""

    kind: Literal["pascal_part"]
    folder: str
    """holds Annotations_Part"""
    image_folder: str
    """VOC2010/JPEGImages"""
    sides: bool = False
    """whether the left and the right arm are two concepts"""
    lists: str | None = None
    """folder of train.txt and val.txt"""

    def read(self, out: str) -> LabelSet:
        """See `SceneProbe`."""
        return read_pascal_part(**self._given())


class PascalContextProbe(SceneProbe):
    """PASCAL-Context."""

    kind: Literal["pascal_context"]
    folder: str
    """holds trainval and labels.txt"""
    image_folder: str
    """VOC2010/JPEGImages"""
    classes: str | None = None
    """a list of fewer classes, such as 59_labels.txt"""
    lists: str | None = None
    """folder of train.txt and val.txt"""

    def read(self, out: str) -> LabelSet:
        """See `SceneProbe`."""
        return read_pascal_context(**self._given())


class CityscapesProbe(SceneProbe):
    """Cityscapes."""

    kind: Literal["cityscapes"]
    folder: str
    """holds leftImg8bit and gtFine"""
    ids: Literal["labelIds", "labelTrainIds"] = "labelIds"
    annotations: Literal["gtFine", "gtCoarse"] = "gtFine"
    evaluated_only: bool = True

    def read(self, out: str) -> LabelSet:
        """See `SceneProbe`."""
        return read_cityscapes(**self._given())


class VistasProbe(SceneProbe):
    """Mapillary Vistas."""

    kind: Literal["vistas"]
    folder: str
    version: Literal["v1.2", "v2.0"] | None = None
    evaluated_only: bool = True

    def read(self, out: str) -> LabelSet:
        """See `SceneProbe`."""
        return read_vistas(**self._given())


class ColoredProbe(SceneProbe):
    """Label maps in colours, as those of CamVid."""

    kind: Literal["colored"]
    image_folder: str
    mask_folder: str
    colors_table: str
    """label_colors.txt, or CSV with name, r, g, b"""
    void: list[str] = []
    """names of classes that mean an ignored pixel"""
    unlabelled: list[str] = []
    """names of classes that mean no label"""
    image_name: str = Names.image
    mask_name: str = Names.mask

    def read(self, out: str) -> LabelSet:
        """See `SceneProbe`."""
        names = Names(self.image_name, self.mask_name, self.follow_links)
        return read_colored(**self._given("image_name", "mask_name", "follow_links"), names=names)


class TagsProbe(SceneProbe):
    """A table of tags of whole images."""

    kind: Literal["tags"]
    image_folder: str
    table: str
    """CSV with image, tag and optionally category and split"""

    def read(self, out: str) -> LabelSet:
        """See `SceneProbe`."""
        return read_tags(**self._given("follow_links"))


class ImageFoldersProbe(SceneProbe):
    """Folders of images, whose names are tags."""

    kind: Literal["image_folders"]
    image_folder: str
    category: str = TAG
    splits: bool | None = None
    """whether the first level of folders are splits"""

    def read(self, out: str) -> LabelSet:
        """See `SceneProbe`."""
        return read_image_folders(**self._given())


class DtdProbe(SceneProbe):
    """The Describable Textures Dataset."""

    kind: Literal["dtd"]
    folder: str
    partition: int = Field(default=1, ge=1, le=10)

    def read(self, out: str) -> LabelSet:
        """See `SceneProbe`."""
        return read_dtd(**self._given())


class BrodenPlusProbe(SceneProbe):
    """Broden+, of unified perceptual parsing."""

    kind: Literal["broden_plus"]
    folder: str
    """broden_dataset"""
    meta: str
    """meta_file"""

    def read(self, out: str) -> LabelSet:
        """See `SceneProbe`."""
        return read_broden_plus(**self._given())


class HuggingFaceProbe(SceneProbe):
    """A dataset of Hugging Face on disk."""

    kind: Literal["huggingface"]
    source: str
    folder: str | None = None
    """where images are written; None: `images` in the output directory"""
    image_column: str = Columns.image
    mask_column: str | None = None
    tag_columns: dict[str, str] = {}
    """column -> category of its tags"""
    concepts: str | None = None
    offset: int = MaskFormat.offset
    unlabelled: int | list[int] = []
    void: list[int] = []

    def read(self, out: str) -> LabelSet:
        """See `SceneProbe`."""
        if self.folder is None and not objects.is_local(out):
            raise DissectError(f"probe.folder: give a local folder for the images, since {out} is not local.")
        return read_huggingface(
            self.source,
            folder=Path(self.folder or store.join(out, "images")),
            columns=Columns(self.image_column, self.mask_column, self.tag_columns),
            concepts=self.concepts,
            format=MaskFormat(offset=self.offset, unlabelled=self.unlabelled, void=self.void),
            categories=self.categories,
            label_size=self.label_size,
        )


Scenes = (
    Ade20kProbe | Ade20kFullProbe | VocProbe | PascalPartProbe | PascalContextProbe | CityscapesProbe | VistasProbe
    | ColoredProbe | TagsProbe | ImageFoldersProbe | DtdProbe | BrodenPlusProbe | HuggingFaceProbe
)  # fmt: skip
"""Any of these kinds."""
