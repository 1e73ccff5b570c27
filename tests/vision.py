"""Libraries of models as tests use them: imported where they are there, a loud skip where they are not.

Knows: the operators that torchvision's wheel lacks beside a CPU build of torch.
Does not know: which models are tested.
"""

import importlib
import importlib.util
from types import ModuleType

import pytest
import torch


def library(name: str) -> ModuleType:
    """The library, ready to be used; skips the tests that need it where it cannot be imported."""
    if importlib.util.find_spec("torchvision") is not None:
        _declare_operators()
    try:
        return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"NOT RUN, NO LIBRARY {name} ({error}): pip install 'dissect-xr[models]'", allow_module_level=True)


_DECLARED: list[torch.library.Library] = []
"""Kept, since a declaration ends with its object."""


def _declare_operators() -> None:
    """torchvision declares `nms` in compiled code, which its wheel for CUDA cannot load beside a CPU build of torch.

    It registers more for the operator when it is imported. No model that is tested calls it.
    """
    if _DECLARED or _has_nms():
        return
    declared = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _DECLARED.append(declared)


def _has_nms() -> bool:
    """Whether torchvision can be imported as it is, or is already."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        return False
    return True
