"""What an extraction is asked for: a snapshot, its model, how its activations are recorded.

Knows: the fields, their defaults, and the fingerprint of all of them together.
Does not know: what the model turns out to be (`extract`). Torch is not imported: a run whose snapshots are finished
compares fingerprints and loads no model.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np

from dissect_xr import store
from dissect_xr.activations.checkpoints.files import weights_sha256
from dissect_xr.activations.layouts.layout import Layout
from dissect_xr.activations.models.names import LibraryModel, library_model, named_weights
from dissect_xr.activations.placement.asked import Placement
from dissect_xr.activations.references import reference_to, source_sha256
from dissect_xr.errors import DissectError, numbers_of, whole_number
from dissect_xr.probe.crop import Centre, Crop
from dissect_xr.probe.pixels import MAX_PIXELS
from dissect_xr.schema import RESULT, SCHEMA_VERSION
from dissect_xr.tail.sampling import SAMPLING, Sampling

if TYPE_CHECKING:
    from torch import nn

    from dissect_xr.activations.models.live import LiveModule

DTYPES = ("float16", "float32")
"""The dtypes that activations may be stored as."""

AUTOCASTS = ("bfloat16", "float16")
"""The dtypes that torch.autocast may compute in."""

Keep = Literal["dense", "tail", "both"]
"""What is stored of a layer's maps: all cells, the tail, or all cells and the tail beside them."""

Interpolation = Literal["bilinear", "bicubic", "nearest", "lanczos"]
"""Pillow's filters by which an image is resized."""


@dataclass(frozen=True)
class SnapshotInfo:
    """The name, step and metrics of a snapshot."""

    name: str
    step: int = 0
    metrics: Mapping[str, float] | None = None
    """accuracy, loss, ...; they become coordinates of the results"""

    def __post_init__(self) -> None:
        store.check_name("snapshot", self.name)
        if not -(2**63) <= self.step < 2**63:
            raise DissectError(f"snapshot '{self.name}': step {self.step} does not fit 64 bits. Use a smaller number.")
        if taken := sorted(RESULT.intersection(self.metrics or ())):
            raise DissectError(
                f"snapshot '{self.name}': the results already have a variable '{taken[0]}'. Rename the metric."
            )


@dataclass(frozen=True)
class ModelSpec:
    """What a worker needs to build a model: a few strings, hashable and cheap to pickle."""

    factory: str
    """Reference to the function that builds the model on the CPU, see `references.resolve`."""
    kwargs: str = "{}"
    """Keyword arguments of the factory, a JSON object with sorted keys."""
    weights: str | None = None
    """Path of a file of weights: safetensors, the index of its shards, or what torch.save wrote; None keeps the random
    weights."""
    seed: int | None = None
    """Seed of the random weights; None means 0."""
    key: str | None = None
    """Where the state dict lies in the file, such as ``ema.module``; None finds the one that fits the model."""
    named: str | None = None
    """Weights that a library has for its model: ``pretrained``, or a name of torchvision's; None asks for none."""
    live: "LiveModule | None" = None
    """A module of this process that is the model itself; then nothing else decides its weights."""
    placement: Placement | None = None
    """Where the weights lie while the model runs; None: all of them on the device."""

    def __post_init__(self) -> None:
        if self.key is not None and self.weights is None:
            raise DissectError(f"key {self.key!r}: says where in a file weights lie. Name the file (weights), too.")

    @property
    def gpus(self) -> int:
        """How many GPUs of one worker the model runs on, where there are GPUs."""
        return 1 if self.placement is None else self.placement.gpus_per_worker

    @property
    def library(self) -> LibraryModel | None:
        """The model of a library that the factory names, None for a function or a module."""
        return None if self.live is not None else library_model(self.factory)

    @classmethod
    def of(
        cls,
        factory: "str | Callable[..., Any] | nn.Module",
        kwargs: Mapping[str, Any] | None = None,
        weights: str | Path | None = None,
        seed: int | None = None,
        key: str | None = None,
        placement: Placement | None = None,
    ) -> Self:
        """Spec from ordinary arguments.

        Parameters
        ----------
        factory
            A reference such as ``file.py:make`` or ``timm:vit_tiny_patch16_224``; a class or function that workers can
            import by its name; or a module of this process, which only threads of it can run.
        weights
            A file, or the weights that a library has for its model: ``pretrained``, or a name of torchvision's.

        Raises
        ------
        DissectError
            If the arguments are not plain, `factory` is something that no worker could import, or a module is given
            together with what it has itself.

        Examples
        --------
        >>> ModelSpec.of("networks:resnet", {"width": 8, "depth": 18}).kwargs
        '{"depth": 18, "width": 8}'
        """
        if _is_module(factory):
            return cls._of_module(factory, (kwargs, weights, seed, key, placement))
        try:
            text = json.dumps(dict(kwargs or {}), sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise DissectError(
                f"arguments of {factory} must be plain numbers, strings and lists, and finite: {error}"
            ) from error
        reference = factory if isinstance(factory, str) else reference_to(factory)
        named = None if weights is None else named_weights(reference, str(weights))
        file = None if weights is None or named is not None else str(weights)
        return cls(reference, text, file, seed, key, named, None, placement)

    @classmethod
    def _of_module(cls, module: Any, others: tuple[Any, ...]) -> Self:
        from dissect_xr.activations.models.live import LiveModule

        if any(other is not None for other in others):
            raise DissectError(
                f"{LiveModule.name_of(module)}: kwargs, weights, seed, key and placement say how a model is made, and "
                "this one is made already. Leave them out."
            )
        return cls(LiveModule.name_of(module), live=LiveModule(module))


def _is_module(found: object) -> bool:
    """Whether something is a torch module; torch is not imported to tell."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(found, torch.nn.Module)


OWN_PROPORTIONS = (
    "images at their own proportions give maps of other sizes for every image, which are not recorded. Give one size "
    "for all, such as input_size: 224; with preprocess.resize: 256 the shorter side is resized and the centre cropped, "
    "so that nothing is distorted."
)
"""Why a size that varies is refused, and what to do."""

_NOT_ALWAYS = {"resize": None, "interpolation": "bilinear", "centre": "nearest"}
"""Fields that are not stored where they have these values, since older fingerprints lack them."""


@dataclass(frozen=True)
class Preprocess:
    """How 8-bit RGB pixels become a model's input: ``(pixel / scale - mean) / std`` per channel, in float32."""

    size: tuple[int, int]
    """(H, W) of the input, or one number for both. Without `resize` the whole image is resized to it, not cropped."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Subtracted after dividing by `scale`, in the channel order of `channels`."""
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Divides the result of that, in the channel order of `channels`."""
    scale: float = 255.0
    """Divides the values 0 to 255 first; use 1.0 for means given in 0 to 255."""
    channels: Literal["RGB", "BGR"] = "RGB"
    """Channel order that the model expects."""
    callable: str | None = None
    """Reference to a function that replaces the arithmetic: uint8 (n, H, W, 3) RGB -> float (n, channel, H, W)."""
    resize: int | tuple[int, int] | None = None
    """The shorter side is resized to this, or the whole image to this (H, W); then the central `size` is cropped."""
    interpolation: Interpolation = "bilinear"
    """Pillow's filter by which images are resized."""
    centre: Centre = "nearest"
    """Where the crop lies if what surrounds it cannot be halved, see `Centre`."""

    def __post_init__(self) -> None:
        size: Any = self.size
        if isinstance(size, Mapping):
            raise DissectError(f"input size {dict(size)}: {OWN_PROPORTIONS}")
        size = _pixels("input size", size)
        object.__setattr__(self, "size", (size, size) if isinstance(size, int) else size)
        if self.resize is not None:
            object.__setattr__(self, "resize", _pixels("resize", self.resize))
        if self.interpolation not in get_args(Interpolation):
            known = ", ".join(get_args(Interpolation))
            raise DissectError(f"interpolation {self.interpolation!r}: expected one of {known}.")
        for name in ("mean", "std"):
            given = numbers_of(name, getattr(self, name))
            object.__setattr__(self, name, given * 3 if np.ndim(getattr(self, name)) == 0 else given)
        scales = numbers_of("scale", self.scale)
        if len(scales) != 1:
            raise DissectError(f"scale: expected one number, got {self.scale}.")
        object.__setattr__(self, "scale", scales[0])
        if len(self.size) != 2 or min(self.size) < 1:
            raise DissectError(f"input size must be (height, width), both at least 1, not {self.size}")
        if self.size[0] * self.size[1] > MAX_PIXELS:
            raise DissectError(f"input size {self.size}: more than {MAX_PIXELS:,} pixels")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise DissectError(f"mean and std need one number per channel (3), not {self.mean} and {self.std}")
        if self.scale == 0 or 0 in self.std:
            raise DissectError(f"scale and std divide and must not be 0: scale {self.scale}, std {self.std}")
        if self.channels not in ("RGB", "BGR"):
            raise DissectError(f"channels must be 'RGB' or 'BGR', not {self.channels!r}")
        _ = self.crop  # raises where `resize` is smaller than the input

    @property
    def crop(self) -> Crop | None:
        """The part of an image that the model sees, None for all of it."""
        return None if self.resize is None else Crop(self.resize, self.size, self.centre)

    @property
    def parameters(self) -> dict[str, Any]:
        """The fields as they are stored with the activations."""
        found = asdict(self) | {"size": list(self.size)}
        if isinstance(self.resize, tuple):
            found["resize"] = list(self.resize)
        return {name: value for name, value in found.items() if name not in _NOT_ALWAYS or value != _NOT_ALWAYS[name]}


def _pixels(what: str, given: Any) -> int | tuple[int, ...]:
    """A number of pixels, or several."""
    if np.ndim(given) == 0:
        return whole_number(what, given)
    return tuple(whole_number(what, one) for one in given)


@dataclass(frozen=True)
class LayerChoice:
    """Layers that are named with their layout, because it cannot be found out or is wanted otherwise."""

    layer: str
    """a name, a pattern, or a tap (`tapping.name`)"""
    layout: Layout

    @property
    def parameters(self) -> dict[str, Any]:
        """As JSON."""
        return {"layer": self.layer, "layout": self.layout.parameters}


@dataclass(frozen=True)
class Recording:
    """How activations are recorded, the same for every snapshot."""

    preprocess: Preprocess
    layers: tuple[str | LayerChoice, ...] = ("*",)
    """module names, globs or taps; a single text is one, and so is a mapping of `layer` and `layout`"""
    dtype: str = "float16"
    batch: int = 32
    """images of one forward pass"""
    memory: int = 512 * 2**20
    """bytes of one image block's maps of all layers; it determines the blocks, so a resumed run must not change it"""
    budget: int = 500 * 2**30
    """largest allowed size of a snapshot's activations, in raw bytes"""
    device: str | None = None
    """None: cuda if there is a GPU, else cpu"""
    threads: int | None = None
    """torch threads of a task; None leaves torch's own choice"""
    autocast: str | None = None
    """dtype of torch.autocast in the forward pass, one of `AUTOCASTS`; None: no autocast"""
    keep: Keep = "dense"
    """what is stored of the maps: all cells, the tail (docs/method.md, section 1.10), or both; in no fingerprint"""
    sampling: Sampling = SAMPLING
    """how the bounds of tails are chosen"""
    allow_nondeterministic: bool = False
    """whether the model may draw random numbers, or compute an image in another way beside other images; every image
    block is then seeded, and a resumed run must not change `batch` either"""

    def __post_init__(self) -> None:
        if not isinstance(self.preprocess, Preprocess):
            raise DissectError(
                f"preprocess: expected how images become the model's input, such as Preprocess(224), got "
                f"{self.preprocess!r}."
            )
        for name in ("batch", "memory", "budget"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name)))
        given: Any = self.layers
        listed = (given,) if isinstance(given, (str, Mapping, LayerChoice)) else tuple(given)
        object.__setattr__(self, "layers", tuple(_choice(one) for one in listed))
        if self.autocast is not None and self.autocast not in AUTOCASTS:
            raise DissectError(f"autocast '{self.autocast}': expected one of {', '.join(AUTOCASTS)}, or nothing.")
        if self.dtype not in DTYPES:
            raise DissectError(f"dtype '{self.dtype}': expected one of {', '.join(DTYPES)}.")
        if self.keep not in get_args(Keep):
            raise DissectError(f"keep '{self.keep}': expected one of {', '.join(get_args(Keep))}.")
        if self.batch < 1:
            raise DissectError(f"batch must be at least 1, got {self.batch}.")


def _choice(given: Any) -> str | LayerChoice:
    if isinstance(given, (str, LayerChoice)):
        return given
    if not isinstance(given, Mapping) or set(given) != {"layer", "layout"}:
        raise DissectError(
            f"layers: expected names, or mappings of `layer` and `layout`, got {given!r}. For example "
            "{layer: blocks.*, layout: {kind: tokens, prefix: 1}}."
        )
    return LayerChoice(str(given["layer"]), Layout.of(given["layout"]))


def request_sha256(spec: ModelSpec, recording: Recording, images_sha256: str) -> str:
    """Fingerprint of all that decides a snapshot's activations, as far as it is known without loading the model.

    Weights count by the bytes of their file, or by the seed, and code by the bytes of the files that are named.
    """
    inputs = {
        "factory": spec.factory.rpartition("/")[2],
        "kwargs": json.loads(spec.kwargs),
        "weights": spec.seed or 0 if spec.weights is None else weights_sha256(spec.weights),
        "code_sha256": [source_sha256(spec.factory), source_sha256(recording.preprocess.callable)],
        "preprocess": recording.preprocess.parameters,
        "layers": [one if isinstance(one, str) else one.parameters for one in recording.layers],
        "dtype": recording.dtype,
        "autocast": recording.autocast,
        "memory": recording.memory,
        "images_sha256": images_sha256,
        "schema_version": SCHEMA_VERSION,
    }
    return store.fingerprint(inputs | optional_inputs(spec, recording))


def optional_inputs(spec: ModelSpec, recording: Recording) -> dict[str, Any]:
    """What decides a snapshot's activations beside the inputs that every snapshot has."""
    found: dict[str, Any] = {} if spec.key is None else {"weights_key": spec.key}
    if spec.library is not None:
        found["library"] = spec.library.inputs(spec.named)
    if spec.live is not None:
        found["live"] = {"weights": spec.live.weights_sha256, "code": spec.live.code_sha256}
    if spec.placement is not None and spec.placement.dtype is not None:
        found["weights_dtype"] = spec.placement.dtype
    if recording.allow_nondeterministic:
        found |= {"allow_nondeterministic": True, "batch": recording.batch}
    return found
