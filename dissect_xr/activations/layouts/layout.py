"""A layout: what the axes of a tap's tensor are, and where its tokens lie on the map.

Knows: the kinds, their parameters, how they are read from a recipe and written into a store, the order of tokens.
Does not know: models or torch: `maps` turns tensors, `recognise` finds the layout of a tap.

=============  =======================  =========================================================================
kind           axes                     example
=============  =======================  =========================================================================
`nchw`         image unit y x           convolutions; what a layer is where nothing else is said
`nhwc`         image y x unit           blocks of torchvision's and timm's Swin, `mlp.*` of ConvNeXt
`tokens`       image token unit         blocks of a ViT, with `prefix` tokens before those of the grid
`heads`        image head token unit    `attn.q_norm` of timm; units are head x channel
`windows`      window token unit        `attn` of Swin: windows of all images one after another
`mask_units`   image token unit         Hiera: tokens in the order in which they are pooled
`token`        image token unit         one of the tokens, as a map of one cell
`cell`         image unit               a pooled vector, as a map of one cell
=============  =======================  =========================================================================

`axes` may be given in another order, or with `head` among them: ``axes: [token, image, unit]``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from dissect_xr.errors import DissectError

Kind = Literal["nchw", "nhwc", "tokens", "heads", "windows", "mask_units", "token", "cell"]

KINDS: tuple[str, ...] = get_args(Kind)

AXES: Mapping[str, tuple[str, ...]] = {
    "nchw": ("image", "unit", "y", "x"),
    "nhwc": ("image", "y", "x", "unit"),
    "tokens": ("image", "token", "unit"),
    "heads": ("image", "head", "token", "unit"),
    "windows": ("window", "token", "unit"),
    "mask_units": ("image", "token", "unit"),
    "token": ("image", "token", "unit"),
    "cell": ("image", "unit"),
}
"""Kind -> what the axes of its tensors are, where `axes` does not say something else."""

GRIDDED = ("tokens", "heads", "windows", "mask_units")
"""The kinds whose tokens make a grid."""

_PAIRS = ("grid", "window", "shift")


@dataclass(frozen=True)
class Layout:
    """What the axes of a tensor are; small and hashable. A `grid` of None is filled in when the model is known."""

    kind: Kind
    grid: tuple[int, int] | None = None
    """rows and columns of the map, for kinds that have tokens"""
    prefix: int = 0
    """tokens before those of the grid: class token, distillation token, registers"""
    suffix: int = 0
    """tokens after those of the grid"""
    axes: tuple[str, ...] = ()
    """what the axes are, in order; empty for those of the kind"""
    window: tuple[int, int] = (0, 0)
    """rows and columns of a window"""
    shift: tuple[int, int] = (0, 0)
    """how far the map was rolled up and to the left before it was cut into windows"""
    padded: Literal["after", "before"] = "after"
    """whether the map was filled up to whole windows after it was rolled, or before"""
    levels: int = 0
    """how often mask units can still be pooled, by 2 along each axis"""
    index: int = 0
    """the token that is taken alone"""

    def __post_init__(self) -> None:
        for name in _PAIRS:
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, _pair(name, given))
        object.__setattr__(self, "axes", tuple(self.axes) or AXES.get(self.kind, ()))
        if problem := self._problem():
            raise DissectError(f"layout {self.kind!r}: {problem}")

    def _problem(self) -> str | None:
        if self.kind not in KINDS:
            return f"expected one of {', '.join(KINDS)}."
        needed, optional = set(AXES[self.kind]), {"head"} if "token" in AXES[self.kind] else set()
        if self.kind == "heads":
            needed, optional = needed, set()
        if len(set(self.axes)) < len(self.axes) or not needed <= set(self.axes) <= needed | optional:
            more = ", and `head` if there is one" if optional else ""
            return f"axes {list(self.axes)}: expected {', '.join(AXES[self.kind])}, in any order{more}."
        if min(self.prefix, self.suffix, self.levels, self.index, *self.shift, *self.window) < 0:
            return "expected numbers from 0."
        if self.grid is not None and (min(self.grid) < 1 or self.kind not in GRIDDED):
            return f"grid {list(self.grid)}: expected rows and columns from 1, of one of {', '.join(GRIDDED)}."
        if self.kind == "windows" and min(self.window) < 1:
            return "expected `window`, its rows and columns, such as window: [7, 7]."
        if self.kind == "mask_units" and self.grid and any(n % 2**self.levels for n in self.grid):
            return f"grid {list(self.grid)}: expected multiples of 2 to the power of levels ({self.levels})."
        return None

    @classmethod
    def of(cls, given: "Layout | str | Mapping[str, Any]") -> Self:
        """The layout that a recipe gives, as a kind alone or with its parameters.

        Raises
        ------
        DissectError
            If a parameter is not known.

        Examples
        --------
        >>> Layout.of({"kind": "tokens", "prefix": 5, "grid": [16, 16]}).grid
        (16, 16)
        """
        if isinstance(given, Layout):
            return given  # type: ignore[return-value]
        if isinstance(given, str):
            return cls(given)  # type: ignore[arg-type]  # checked when it is made
        known = [field.name for field in fields(cls)]
        if wrong := [name for name in given if name not in known]:
            raise DissectError(f"layout {dict(given)}: expected the fields {', '.join(known)}, got {wrong[0]!r}.")
        if "kind" not in given:
            raise DissectError(f"layout {dict(given)}: expected a kind, one of {', '.join(KINDS)}.")
        return cls(**given)

    @property
    def parameters(self) -> dict[str, Any]:
        """The fields that say something, as JSON, for stores and fingerprints.

        >>> Layout("tokens", grid=(14, 14), prefix=1).parameters
        {'kind': 'tokens', 'grid': [14, 14], 'prefix': 1}
        """
        plain = {field.name: field.default for field in fields(self)} | {"axes": AXES[self.kind]}
        kept = {name: value for name in plain if (value := getattr(self, name)) != plain[name]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}

    @property
    def is_plain(self) -> bool:
        """Whether tensors are maps already."""
        return self.axes == AXES["nchw"]

    @property
    def tokens(self) -> int:
        """Tokens of one image that the grid needs, with those before, after and beside it."""
        if self.grid is None:
            return self.prefix + self.suffix
        if self.kind == "windows":
            return self.windows[0] * self.windows[1] * self.window[0] * self.window[1]
        return self.prefix + self.grid[0] * self.grid[1] + self.suffix

    @property
    def windows(self) -> tuple[int, int]:
        """Windows of one image, down and along; the last ones may hold cells that are filled up."""
        height, width = self.grid or (0, 0)
        return -(-height // self.window[0]), -(-width // self.window[1])

    def order(self) -> NDArray[np.int64]:
        """Where the token of each cell lies among those of its image: (row * columns,) int64.

        Examples
        --------
        A map of 2 rows and 4 columns in windows of 2 by 2; then Hiera's order of 4 by 4 cells that are pooled once.

        >>> Layout("windows", grid=(2, 4), window=(2, 2)).order().reshape(2, 4)
        array([[0, 1, 4, 5],
               [2, 3, 6, 7]])
        >>> Layout("mask_units", grid=(4, 4), levels=1).order().reshape(4, 4)
        array([[ 0,  4,  1,  5],
               [ 8, 12,  9, 13],
               [ 2,  6,  3,  7],
               [10, 14, 11, 15]])
        """
        if self.grid is None:
            raise DissectError(f"layout {self.kind!r}: its grid is not known. Give it, such as grid: [14, 14].")
        height, width = self.grid
        if self.kind == "windows":
            return self._windowed(height, width)
        if self.kind == "mask_units":
            return self.prefix + self._pooled(height, width)
        return self.prefix + np.arange(height * width)

    def _windowed(self, height: int, width: int) -> NDArray[np.int64]:
        (down, along), (rows, columns) = self.windows, self.window
        places = np.arange(down * along * rows * columns).reshape(down, along, rows, columns)
        filled = places.transpose(0, 2, 1, 3).reshape(down * rows, along * columns)
        if self.padded == "before":
            return np.roll(filled, self.shift, (0, 1))[:height, :width].reshape(-1)
        return np.roll(filled[:height, :width], self.shift, (0, 1)).reshape(-1)

    def _pooled(self, height: int, width: int) -> NDArray[np.int64]:
        # The tokens are (s1 y, s1 x, s2 y, s2 x, ..., Y, X), of which those of the next pooling come first, and
        # row = (((Y * 2 + s_last y) * 2 + ...) * 2 + s1 y, alike for columns.
        n = self.levels
        places = np.arange(height * width).reshape(*(2,) * (2 * n), height >> n, width >> n)
        rows, columns = [2 * n, *range(2 * n - 2, -1, -2)], [2 * n + 1, *range(2 * n - 1, -1, -2)]
        return places.transpose(*rows, *columns).reshape(-1)


def _pair(name: str, given: Any) -> tuple[int, int]:
    pair = (given, given) if isinstance(given, int) else tuple(given)
    if len(pair) != 2 or not all(isinstance(n, int) for n in pair):
        raise DissectError(f"layout: {name} {given!r}: expected two whole numbers, such as {name}: [14, 14].")
    return pair


PLAIN = Layout("nchw")
"""The layout of maps."""
