"""Builds a model of a library by its name.

Knows: how torchvision, timm and transformers are asked for a model, with random weights or with their own.
Does not know: files of weights (`checkpoints`), seeds (`sources`), how images are given to a model (`preprocessing`).

Nothing is downloaded unless weights are asked for, or transformers is given the name of a model that is neither a
folder nor in its cache: then the library does it. Backbones inside torchvision's models stay random, too.
"""

import importlib
import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from types import ModuleType
from typing import Any

from torch import nn

from dissect_xr.activations.models.names import PRETRAINED, LibraryModel, missing
from dissect_xr.activations.references import shortlist
from dissect_xr.errors import DissectError


def build(model: LibraryModel, kwargs: Mapping[str, Any], named: str | None) -> nn.Module:
    """The model on the CPU; with `named`, the weights that the library has under this name.

    Raises
    ------
    DissectError
        If the library is not installed, or has no such model or weights.
    """
    if taken := sorted({"weights", "pretrained", "trust_remote_code"}.intersection(kwargs)):
        raise DissectError(
            f"{model.library}:{model.name}: the argument {taken[0]!r} is not taken. Weights are given by the "
            f"snapshot's `weights` ({PRETRAINED}, or a file); code from elsewhere needs a function of your own as the "
            "factory."
        )
    made = {"torchvision": _torchvision, "timm": _timm, "transformers": _transformers}[model.library]
    found: nn.Module = made(model, dict(kwargs), named)
    return found


def library_of(model: LibraryModel) -> ModuleType:
    """The library of a model, imported.

    Raises
    ------
    DissectError
        If it is not installed, or cannot be imported beside this build of torch.
    """
    wanted = f"{model.library}:{model.name}"
    try:
        return importlib.import_module(model.library)
    except ModuleNotFoundError as error:
        if error.name != model.library:
            raise DissectError(f"{wanted}: {model.library} needs {error.name}, which is not installed.") from error
        raise missing(model.library, wanted) from None
    except Exception as error:
        raise DissectError(
            f"{wanted}: {model.library} cannot be imported ({type(error).__name__}: {error}). Install builds of "
            "torch and torchvision that belong together."
        ) from error


def torchvision_weights(model: LibraryModel, named: str | None) -> Any:
    """The member of torchvision's enumeration of weights that is asked for; the default one for None.

    Raises
    ------
    DissectError
        If there is no such model or member.
    """
    models = library_of(model).models
    if model.name not in models.list_models():
        raise _no_such_model(model, models.list_models())
    members = models.get_model_weights(model.name)
    wanted = "DEFAULT" if named in (None, PRETRAINED) else named
    if wanted not in members.__members__:
        raise DissectError(
            f"torchvision:{model.name}: there are no weights {named}, only {shortlist(members.__members__)}."
        )
    return members[wanted]


def _torchvision(model: LibraryModel, kwargs: dict[str, Any], named: str | None) -> Any:
    weights = torchvision_weights(model, named)
    models = library_of(model).models
    # Its models for detection and segmentation fetch the weights of their backbone even if they get none themselves.
    if "weights_backbone" in inspect.signature(models.get_model_builder(model.name)).parameters:
        kwargs.setdefault("weights_backbone", None)
    return models.get_model(model.name, weights=None if named is None else weights, **kwargs)


def _timm(model: LibraryModel, kwargs: dict[str, Any], named: str | None) -> Any:
    timm = library_of(model)
    local = ":" not in model.name and "/" not in model.name  # others lie on the Hub or in a folder
    if local and not timm.is_model(model.name):
        raise _no_such_model(model, timm.list_models(pretrained=True) + timm.list_models())
    if local and named is not None and not timm.is_model_pretrained(model.name):
        raise DissectError(f"timm:{model.name}: timm has no pretrained weights of it. Give a file, or leave it random.")
    return timm.create_model(model.name, pretrained=named is not None, **kwargs)


def _transformers(model: LibraryModel, kwargs: dict[str, Any], named: str | None) -> Any:
    transformers = library_of(model)
    chosen = kwargs.pop("class", None)
    source = str(model.folder or model.name)
    config, unused = _asked(model, transformers.AutoConfig.from_pretrained, source, return_unused_kwargs=True, **kwargs)
    if unused:
        raise DissectError(f"transformers:{model.name}: its configuration has no {shortlist(unused)}. Correct kwargs.")
    if chosen is None and hasattr(config, "vision_config"):
        config = config.vision_config  # the image tower of a model of images and texts
    kind = getattr(transformers, chosen or "AutoModel", None)
    if kind is None:
        raise DissectError(f"transformers:{model.name}: transformers has no class {chosen!r}. Correct `class`.")
    # In float32 whatever the configuration or file says: images come as float32.
    if named is None:
        random = kind.from_config if hasattr(kind, "from_config") else kind._from_config
        return _of_images(model, random(config, dtype="float32"))
    found, report = _asked(
        model, kind.from_pretrained, source, config=config, output_loading_info=True, dtype="float32"
    )
    if lost := sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"]):
        raise DissectError(
            f"transformers:{model.name}: its weights lack {len(lost)} tensors of {type(found).__name__}, which would "
            f"stay random: {shortlist(lost, 4)}. Give the class that was trained: kwargs: {{class: NAME}}."
        )
    return _of_images(model, found)


def _asked(model: LibraryModel, function: Any, *args: Any, **kwargs: Any) -> Any:
    """What a function of transformers returns; its errors about files and the Hub in one line."""
    try:
        return function(*args, **kwargs)
    except (OSError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DissectError(
            f"transformers:{model.name}: {first} Give a local folder that model.save_pretrained(folder) has written, "
            "or a name that is on the Hub or in its cache."
        ) from error


def _of_images(model: LibraryModel, found: Any) -> Any:
    """The model, if it takes images as its first argument."""
    takes = getattr(found, "main_input_name", "pixel_values")
    if takes != "pixel_values":
        raise DissectError(
            f"transformers:{model.name}: {type(found).__name__} takes {takes}, expected a model of images. Name the "
            "class of its image tower: kwargs: {class: NAME}, such as CLIPVisionModel."
        )
    return found


def _no_such_model(model: LibraryModel, names: list[str]) -> DissectError:
    near = get_close_matches(model.name, names, n=6, cutoff=0.5) or names[:6]
    return DissectError(
        f"{model.library}:{model.name}: {model.library} {model.version} has no model of this name; near are "
        f"{shortlist(near)}."
    )
