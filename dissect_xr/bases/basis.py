"""The bases that a layer can be dissected in, as plain records: what a recipe or a call of `derive` asks for.

Knows: the parameters of each kind, the name of the layer that it gives, and its matrix where no activation is needed.
Does not know: stores, or how principal axes are found (`principal_axes`).

A derived layer is called ``<layer>@<basis>``, such as ``conv5@rotation-0.4-s0``: what differs between two bases of a
layer differs in their names.

>>> [basis.label for basis in (IdentityBasis(), RotationBasis(0.4, seed=0), PcaBasis(rank=8), PcaBasis(centred=False))]
['identity', 'rotation-0.4-s0', 'pca-8', 'pca-uncentred']
>>> RandomBasis(seed=3, dtype="float32").label
'random-s3-float32'
>>> RotationBasis(0.4, seed=0).parameters
{'kind': 'rotation', 'alpha': 0.4, 'seed': 0}
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dissect_xr.activations.references import file_sha256
from dissect_xr.activations.request import DTYPES
from dissect_xr.bases import matrices
from dissect_xr.bases.matrix_file import read_tensor
from dissect_xr.errors import DissectError


@dataclass(frozen=True)
class Linear:
    """A linear map over units, with a bias: what a basis turns out to be for a layer."""

    matrix: NDArray[np.float64]
    """(row, unit)"""
    bias: NDArray[np.float64]
    """(row,) added to each row's sum"""
    variance: NDArray[np.float64] | None = None
    """(row,) of each principal axis, None where they are none"""


@dataclass(frozen=True)
class Basis:
    """What all kinds of bases have."""

    kind: ClassVar[str]
    dtype: str | None = field(default=None, kw_only=True)
    """what derived values are rounded to, float16 or float32; None: what the layer is stored as"""

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in DTYPES:
            raise DissectError(f"basis {self.kind}: dtype '{self.dtype}', expected one of {', '.join(DTYPES)}.")

    @property
    def label(self) -> str:
        """What follows the @ in the name of the derived layer."""
        return "-".join([self.kind, *self._parts, *([self.dtype] if self.dtype else [])])

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters as they are stored."""
        return {"kind": self.kind} | self._fields | ({"dtype": self.dtype} if self.dtype else {})

    @property
    def rectified(self) -> bool:
        """Whether negative values become 0."""
        return False

    @property
    def _parts(self) -> list[str]:
        return []

    @property
    def _fields(self) -> dict[str, Any]:
        return {}

    def rows(self, units: int) -> int:
        """Units of the layer that is derived from one of so many units; raises where there is no such basis of it."""
        return units

    def linear(self, units: int) -> Linear:
        """The map itself, for a layer of so many units."""
        raise NotImplementedError


def unbiased(matrix: NDArray[np.float64]) -> Linear:
    """The map of a matrix alone."""
    return Linear(matrix, np.zeros(len(matrix)))


@dataclass(frozen=True)
class IdentityBasis(Basis):
    """The units as they are: a control, whose counts are those of the layer itself."""

    kind: ClassVar[str] = "identity"

    def linear(self, units: int) -> Linear:
        """See `Basis.linear`."""
        return unbiased(np.eye(units))


@dataclass(frozen=True)
class NegativeBasis(Basis):
    """Every unit times -1: the other tail of units that go both ways, as those of residual streams and GELUs do."""

    kind: ClassVar[str] = "negative"

    def linear(self, units: int) -> Linear:
        """See `Basis.linear`."""
        return unbiased(-np.eye(units))


@dataclass(frozen=True)
class _Turned(Basis):
    """A rotation of the units, and how much of it."""

    alpha: float = 1.0
    """share of the way from the identity to the rotation, in the closed interval [0, 1]"""
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_seed(self.kind, self.seed)
        object.__setattr__(self, "alpha", float(self.alpha))
        if not 0 <= self.alpha <= 1:
            raise DissectError(f"basis {self.kind}: alpha {self.alpha}, expected a number from 0 to 1.")

    @property
    def _parts(self) -> list[str]:
        short = f"{self.alpha:g}"
        return [short if float(short) == self.alpha else repr(self.alpha), f"s{self.seed}"]

    @property
    def _fields(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "seed": self.seed}


@dataclass(frozen=True)
class RotationBasis(_Turned):
    """Q**alpha of a rotation Q that is drawn uniformly (`matrices.rotation`, `matrices.power`)."""

    kind: ClassVar[str] = "rotation"

    def linear(self, units: int) -> Linear:
        """See `Basis.linear`."""
        return unbiased(matrices.power(matrices.rotation_planes(units, self.seed), self.alpha))


@dataclass(frozen=True)
class Rotation2017Basis(_Turned):
    """The matrix that the program of 2017 made (`matrices.rotation_of_2017`), to compare; no power of one rotation."""

    kind: ClassVar[str] = "rotation_2017"

    def rows(self, units: int) -> int:
        """See `Basis.rows`."""
        return matrices.even(units)

    def linear(self, units: int) -> Linear:
        """See `Basis.linear`."""
        return unbiased(matrices.rotation_of_2017(units, self.alpha, self.seed))


@dataclass(frozen=True)
class RandomBasis(Basis):
    """Random combinations of units, of length 1 and not orthogonal."""

    seed: int = 0
    units: int | None = None
    """how many; None: as many as the layer has units"""
    kind: ClassVar[str] = "random"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_seed(self.kind, self.seed)
        if self.units is not None and self.units < 1:
            raise DissectError(f"basis random: {self.units} units, expected at least 1.")

    @property
    def _parts(self) -> list[str]:
        return [*([] if self.units is None else [str(self.units)]), f"s{self.seed}"]

    @property
    def _fields(self) -> dict[str, Any]:
        return {"seed": self.seed} | ({} if self.units is None else {"units": self.units})

    def rows(self, units: int) -> int:
        """See `Basis.rows`."""
        return self.units or units

    def linear(self, units: int) -> Linear:
        """See `Basis.linear`."""
        return unbiased(matrices.combinations(self.rows(units), units, self.seed))


@dataclass(frozen=True)
class PcaBasis(Basis):
    """The principal axes of the layer's activations over all images and cells, by falling variance."""

    rank: int | None = None
    """how many axes; None: as many as the layer has units"""
    centred: bool = True
    """whether means are subtracted, from the activations and in their covariance; else axes of the mean products"""
    kind: ClassVar[str] = "pca"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank is not None and self.rank < 1:
            raise DissectError(f"basis pca: rank {self.rank}, expected at least 1.")

    @property
    def _parts(self) -> list[str]:
        return [*([] if self.rank is None else [str(self.rank)]), *([] if self.centred else ["uncentred"])]

    @property
    def _fields(self) -> dict[str, Any]:
        return {"rank": self.rank, "centred": self.centred}

    def rows(self, units: int) -> int:
        """See `Basis.rows`."""
        if self.rank is not None and self.rank > units:
            raise DissectError(f"basis pca: rank {self.rank}, expected at most the layer's {units} units.")
        return self.rank or units


@dataclass(frozen=True)
class MatrixBasis(Basis):
    """Any matrix from a file, with a bias and a ReLU where they are wanted, such as a sparse autoencoder's encoder."""

    file: str
    """`.npy` or `.safetensors`"""
    tensor: str | None = None
    """the matrix' name in a `.safetensors` file; needed where it holds several matrices"""
    bias: str | None = None
    """a `.npy` file, or the bias' name in the `.safetensors` file"""
    relu: bool = False
    """whether negative values become 0"""
    transposed: bool = False
    """whether the file holds it as (unit, row)"""
    name: str | None = None
    """what it is called in the layer's name; None: the name of its file"""
    kind: ClassVar[str] = "matrix"

    def __post_init__(self) -> None:
        super().__post_init__()
        if re.fullmatch(r"[\w.-]+", self._parts[0]) is None:
            raise DissectError(
                f"basis matrix: '{self._parts[0]}', expected a name of letters, digits, '.', '-' and '_'. Give another "
                "`name`."
            )

    @property
    def rectified(self) -> bool:
        """See `Basis.rectified`."""
        return self.relu

    @property
    def _parts(self) -> list[str]:
        return [self.name or Path(self.file).stem]

    @property
    def _fields(self) -> dict[str, Any]:
        own_file = self.bias is not None and self.bias.endswith(".npy")
        return {
            "file_sha256": file_sha256(self.file),
            "tensor": self.tensor,
            "bias": file_sha256(str(self.bias)) if own_file else self.bias,
            "relu": self.relu,
            "transposed": self.transposed,
        }

    def rows(self, units: int) -> int:
        """See `Basis.rows`."""
        return len(self.linear(units).matrix)

    def linear(self, units: int) -> Linear:
        """See `Basis.linear`."""
        matrix = read_tensor(self.file, self.tensor, dims=2)
        matrix = matrix.T if self.transposed else matrix
        if matrix.shape[1] != units:
            turned = " It has as many rows: is it transposed (transposed: true)?" if len(matrix) == units else ""
            raise DissectError(
                f"{self.file}: expected a matrix of (any number of rows, {units} units of the layer), got "
                f"{matrix.shape}.{turned}"
            )
        if self.bias is None:
            return unbiased(matrix)
        own_file = self.bias.endswith(".npy")
        bias = read_tensor(self.bias if own_file else self.file, None if own_file else self.bias, dims=1)
        if len(bias) != len(matrix):
            raise DissectError(f"{self.file}: its matrix has {len(matrix)} rows, the bias {self.bias} has {len(bias)}.")
        return Linear(matrix, bias)


def _check_seed(kind: str, seed: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise DissectError(f"basis {kind}: seed {seed!r}, expected a whole number from 0 to 2**32 - 1.")
