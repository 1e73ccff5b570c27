"""Models that a library makes by name, such as `torchvision:resnet50`, and what is known of them without the library.

Knows: which references name one, which of its weights are asked for, the library's version, files of a local folder.
Does not know: torch; how a library builds a model (`torchvision_models`, `timm_models`, `transformers_models`).
"""

import hashlib
import importlib.metadata
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dissect_xr.activations.references import file_sha256, shortlist
from dissect_xr.errors import DissectError

LIBRARIES = ("torchvision", "timm", "transformers")

PRETRAINED = "pretrained"
"""Asks for the weights that the library has for a model."""

_FUNCTIONS = ("timm:create_model",)
"""References that look like a model of a library and name a function."""

_MEMBER = re.compile(r"(?:\w+_Weights\.)?([A-Z][A-Z0-9_]*)")
"""How torchvision names its weights."""

_WEIGHTS = (".safetensors", ".bin", ".index.json")
"""Ends of the names of files in a local folder that hold weights, or say where they lie."""


@dataclass(frozen=True)
class LibraryModel:
    """A model by the name that a library gives it."""

    library: str
    name: str

    @property
    def version(self) -> str:
        """The version of the library.

        Raises
        ------
        DissectError
            If the library is not installed.
        """
        try:
            return importlib.metadata.version(self.library)
        except importlib.metadata.PackageNotFoundError:
            raise missing(self.library, f"{self.library}:{self.name}") from None

    @property
    def folder(self) -> Path | None:
        """The local folder that the name means, with a configuration and perhaps weights; None for other names.

        Raises
        ------
        DissectError
            If the name is a path of a folder that is not there, or holds no configuration.
        """
        if self.library != "transformers":
            return None
        path = Path(self.name).expanduser()
        if (path / "config.json").is_file():
            return path
        if not path.is_dir() and not self.name.startswith((".", "/", "~")):
            return None
        held = shortlist(sorted(other.name for other in path.iterdir())) if path.is_dir() else "there is no such folder"
        raise DissectError(
            f"transformers:{self.name}: expected a folder with a config.json, as model.save_pretrained(folder) writes "
            f"it; it holds {held}. Correct the path."
            if path.is_dir()
            else f"transformers:{self.name}: {held}. Correct the path, or give the name of a model of the Hub."
        )

    def inputs(self, named: str | None) -> dict[str, Any]:
        """What decides the model beside the arguments, as far as it is known without building it."""
        folder = self.folder
        found = {
            "name": self.library,
            "version": self.version,
            "model": self.name if folder is None else _files_sha256([folder / "config.json"]),
        }
        if named is None:
            return found
        return found | {"weights": named} | ({} if folder is None else {"files": _files_sha256(_weights_of(folder))})


def library_model(reference: str) -> LibraryModel | None:
    """The model of a library that a reference names; None for a reference to a function.

    >>> library_model("transformers:facebook/dinov2-base")
    LibraryModel(library='transformers', name='facebook/dinov2-base')
    >>> library_model("timm:create_model") is library_model("networks.py:resnet") is None
    True
    """
    library, _, name = reference.partition(":")
    if library not in LIBRARIES or not name or reference in _FUNCTIONS:
        return None
    return LibraryModel(library, name)


def named_weights(reference: str, weights: str) -> str | None:
    """The name of the library's own weights that `weights` asks for; None where it is the path of a file.

    >>> named_weights("torchvision:resnet50", "ResNet50_Weights.IMAGENET1K_V2")
    'IMAGENET1K_V2'
    >>> named_weights("torchvision:resnet50", "snapshots/last.pt") is None
    True

    Raises
    ------
    DissectError
        If pretrained weights are asked for of a function.
    """
    model = library_model(reference)
    if model is None:
        if weights == PRETRAINED and not Path(weights).exists():
            raise DissectError(
                f"weights {PRETRAINED}: asks a library for its weights, but {reference} names a function. Give a file "
                f"of weights, or one of {', '.join(f'{library}:NAME' for library in LIBRARIES)} as the factory."
            )
        return None
    member = _MEMBER.fullmatch(weights) if model.library == "torchvision" else None
    return PRETRAINED if weights == PRETRAINED else member and member[1]


def missing(library: str, wanted: str) -> DissectError:
    """The error for a library that is not installed."""
    return DissectError(
        f"{wanted} needs the library {library}, which is not installed. Install it: pip install 'dissect-xr[models]' "
        f"(or: pip install {library}), on all workers."
    )


def _weights_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.endswith(_WEIGHTS))


def _files_sha256(files: list[Path]) -> str:
    """sha256 over the names and bytes of files."""
    lines = [f"{file.name} {file_sha256(file)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
