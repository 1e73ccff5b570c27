"""The preprocessing that a library has for a model, as fields of `Preprocess`.

Knows: torchvision's transforms of weights, timm's `resolve_data_config`, the image processors of transformers; which of
their ways of resizing and cropping `Preprocess` can say.
Does not know: how images are read (`images`).

Pixels equal those of torchvision and timm bit for bit; tests hold that. An image processor of transformers is tried on
two pictures each time: its Pillow form has to give the same numbers up to the rounding of float32. Its torchvision form
resizes with other arithmetic, which differs by one of 255 levels at most.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from dissect_xr.activations.images import pixels_of, to_input
from dissect_xr.activations.models.build import library_of, torchvision_weights
from dissect_xr.activations.models.names import LibraryModel
from dissect_xr.activations.request import Preprocess
from dissect_xr.errors import DissectError

_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of the filters that a `Preprocess` may have."""

_GIVE = "Give model.input_size, and mean and std in model.preprocess, as the model was trained with."


def library_preprocess(
    model: LibraryModel, kwargs: Mapping[str, Any], named: str | None, given: Mapping[str, Any]
) -> Preprocess:
    """The library's preprocessing for a model, with the fields that are given in place of its own.

    A size that is given alone keeps the share of the image that the library crops: its `resize` is scaled alike.

    Parameters
    ----------
    named
        The library's weights; None takes the preprocessing of its default ones.
    given
        Fields of `Preprocess`.

    Raises
    ------
    DissectError
        If the library has none, or one that cannot be said, and the fields given are too few to do without it.
    """
    find = {"torchvision": _torchvision, "timm": _timm, "transformers": _transformers}[model.library]
    try:
        found = find(model, kwargs, named, given)
    except DissectError:
        if "size" not in given or not ("callable" in given or {"mean", "std"} <= set(given)):
            raise
        found = {}
    if found and given.get("channels") == "BGR" and not {"mean", "std"} <= set(given):
        raise DissectError(
            f"preprocess.channels: BGR, while {model.library}:{model.name} has mean and std for RGB. Give both, too."
        )
    return Preprocess(**(found | dict(given)))


def _torchvision(model: LibraryModel, kwargs: Mapping[str, Any], named: str | None, given: Mapping[str, Any]) -> Any:
    transform = torchvision_weights(model, named).transforms()
    kind = type(transform).__name__
    if kind not in ("ImageClassification", "SemanticSegmentation"):
        raise DissectError(f"torchvision:{model.name}: has no preprocessing of one size, but {kind}. {_GIVE}")
    found = {
        "mean": tuple(transform.mean),
        "std": tuple(transform.std),
        "interpolation": transform.interpolation.value,
    }
    if kind == "SemanticSegmentation":  # images at their own proportions
        if "size" not in given:
            raise DissectError(
                f"torchvision:{model.name}: it resizes the shorter side to {transform.resize_size[0]} and crops "
                "nothing, so every image gives maps of its own size. Give model.input_size."
            )
        return found
    (resize,), (crop,) = transform.resize_size, transform.crop_size
    size = _pair(given.get("size", crop))
    return found | _centre_crop(size, lambda side: round(side * resize / crop))


def _timm(model: LibraryModel, kwargs: Mapping[str, Any], named: str | None, given: Mapping[str, Any]) -> Any:
    timm = library_of(model)
    if ":" in model.name or "/" in model.name:
        raise DissectError(
            f"timm:{model.name}: the preprocessing of models from the Hub or a folder is not looked up. {_GIVE}"
        )
    try:
        config = timm.models.get_pretrained_cfg(model.name)
    except RuntimeError as error:
        raise DissectError(f"timm:{model.name}: {error} Correct the name.") from error
    if config is None:
        raise DissectError(f"timm:{model.name}: timm has no preprocessing of it. {_GIVE}")
    data = timm.data.resolve_data_config({}, pretrained_cfg=config.to_dict())
    size = _pair(given.get("size", kwargs.get("img_size", data["input_size"][1:])))
    found = {"mean": tuple(data["mean"]), "std": tuple(data["std"]), "interpolation": data["interpolation"]}
    share = data["crop_pct"]
    if data["crop_mode"] == "squash":
        height, width = size
        resized = (math.floor(height / share), math.floor(width / share))
        return found | {"size": size, "resize": None if resized == size else resized}
    if data["crop_mode"] != "center" and "resize" not in given:
        raise DissectError(
            f"timm:{model.name}: it pads images to a square (crop_mode {data['crop_mode']}), and labels of a border "
            "are not known. Choose preprocess.resize: null resizes the whole image, a number crops."
        )
    if size[0] != size[1] and "resize" not in given:
        raise DissectError(
            f"timm:{model.name}: timm fits images to {size} before it crops. Say what is resized: preprocess.resize: "
            "null for the whole image, or the length of the shorter side."
        )
    return found | _centre_crop(size, lambda side: math.floor(side / share))


def _transformers(model: LibraryModel, kwargs: Mapping[str, Any], named: str | None, given: Mapping[str, Any]) -> Any:
    library = library_of(model)
    source = str(model.folder or model.name)
    try:
        processor = library.AutoImageProcessor.from_pretrained(source)
        processor = _pillow_form(library, processor)
    except (OSError, ValueError, ImportError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DissectError(f"transformers:{model.name}: no image processor is found: {first} {_GIVE}") from error
    found = _of_processor(model, processor)
    _check_same(model, processor, found)
    if "size" not in given:
        return found
    size, (height, width), resize = _pair(given["size"]), found["size"], found.get("resize")
    if resize is None or isinstance(resize, tuple) or height != width:
        return found | {"resize": None}
    return found | _centre_crop(size, lambda side: round(side * resize / height))


def _pillow_form(library: Any, processor: Any) -> Any:
    """The form of an image processor that computes with Pillow, where there is one."""
    kind = getattr(library, f"{type(processor).__name__}Pil", None)
    if kind is None:
        return processor
    given = processor.to_dict()
    return kind(**{name: value for name, value in given.items() if name != "image_processor_type"})


def _of_processor(model: LibraryModel, processor: Any) -> dict[str, Any]:
    def has(name: str) -> bool:
        return bool(getattr(processor, name, None))

    what = f"transformers:{model.name}: its {type(processor).__name__}"
    other_scale = has("do_rescale") and not math.isclose(processor.rescale_factor, 1 / 255)
    if has("do_pad") or not has("do_resize") or other_scale:
        raise DissectError(f"{what} pads, does not resize, or scales pixels in another way. {_GIVE}")
    size, filter_ = dict(processor.size), _FILTERS.get(int(processor.resample or 0))
    if filter_ is None:
        raise DissectError(f"{what} resizes by filter {processor.resample}, which is not offered. {_GIVE}")
    found: dict[str, Any] = {"interpolation": filter_, "scale": 255.0 if has("do_rescale") else 1.0}
    if has("do_normalize"):
        found |= {"mean": tuple(processor.image_mean), "std": tuple(processor.image_std)}
    crop = dict(processor.crop_size) if has("do_center_crop") else None
    side, whole = size.get("shortest_edge"), (size.get("height"), size.get("width"))
    share = getattr(processor, "crop_pct", None)
    if crop is None and share is not None and side is not None:  # as ConvNeXt's below 384 pixels
        return found | {"size": (side, side), "resize": int(side / share) if side < 384 else None, "centre": "floor"}
    if crop is not None and side is not None:
        return found | {"size": (crop["height"], crop["width"]), "resize": side, "centre": "floor"}
    if None not in whole and (crop is None or (crop["height"], crop["width"]) == whole):
        return found | {"size": whole}
    if None not in whole and crop is not None:
        return found | {"size": (crop["height"], crop["width"]), "resize": whole, "centre": "floor"}
    raise DissectError(f"{what} resizes to {size} and crops {crop}, so images have sizes of their own. {_GIVE}")


def _check_same(model: LibraryModel, processor: Any, found: Mapping[str, Any]) -> None:
    """Raise unless an image processor gives the numbers of the fields found, for a wide and for a high picture."""
    preprocess = Preprocess(**found)
    allowed = 1e-5 if type(processor).__name__.endswith("Pil") else 1.01 / 255
    for size in ((197, 283, 3), (331, 230, 3)):
        height, width = np.ogrid[: size[0], : size[1]]
        waves = (height * (1 + np.arange(3)[:, None, None]) + width * 2) % 256
        picture = Image.fromarray(np.ascontiguousarray(np.moveaxis(waves.astype(np.uint8), 0, 2)))
        theirs = np.asarray(processor(picture, return_tensors="np")["pixel_values"][0])
        mine = to_input(preprocess, pixels_of(picture, preprocess, "picture")[None])[0].numpy()
        limit = allowed / np.min(preprocess.std)
        if theirs.shape == mine.shape and np.abs(theirs - mine).max() <= limit:
            continue
        got = f"differences up to {np.abs(theirs - mine).max():.3g}" if theirs.shape == mine.shape else theirs.shape
        raise DissectError(
            f"transformers:{model.name}: {type(processor).__name__} computes something else than its fields say: "
            f"expected {mine.shape} that is equal, got {got}. {_GIVE}"
        )


def _centre_crop(size: tuple[int, int], resized: Any) -> dict[str, Any]:
    return {"size": size, "resize": max(resized(max(size)), max(size))}


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
