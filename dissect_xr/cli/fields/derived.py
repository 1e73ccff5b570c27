"""Derived layers in a recipe: which layers are dissected in which bases, in which snapshots.

Knows: the fields of an entry of `derived`, and that each list in it is combined with every other.
Does not know: what a basis is, or how a stage runs.

An example: two shares of the way and two seeds are four layers derived from each of two layers.

>>> entry = RotationPart(layer=["conv4", "conv5"], basis="rotation", alpha=[0.5, 1], seed=[0, 1])
>>> [basis.label for basis in entry.bases]
['rotation-0.5-s0', 'rotation-1-s0', 'rotation-0.5-s1', 'rotation-1-s1']
>>> [(one.layer, one.name) for one in wanted([entry], ["final"])][::4]
[('conv4', 'conv4@rotation-0.5-s0'), ('conv5', 'conv5@rotation-0.5-s0')]
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from dissect_xr.bases.basis import (
    Basis,
    IdentityBasis,
    MatrixBasis,
    NegativeBasis,
    PcaBasis,
    RandomBasis,
    Rotation2017Basis,
    RotationBasis,
)
from dissect_xr.bases.stored import derived_name
from dissect_xr.cli.fields.probe import Part
from dissect_xr.errors import DissectError


def _listed(value: Any) -> Any:
    """A single value stands for a list of it."""
    return value if isinstance(value, list) else [value]


Names = Annotated[list[str], BeforeValidator(_listed)]
Numbers = Annotated[list[int], BeforeValidator(_listed)]


class _DerivedPart(Part):
    layer: Names
    """recorded layers, by their names"""
    snapshots: Names | None = None
    """null: all"""
    dtype: Literal["float16", "float32"] | None = None
    """what derived values are rounded to; null: what the layer is stored as"""

    @property
    def bases(self) -> list[Basis]:
        """The bases of each layer."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _made(self) -> "_DerivedPart":
        """Makes the bases once, so that what is wrong with them is named with its line."""
        _ = self.bases
        return self


class IdentityPart(_DerivedPart):
    """The units as they are."""

    basis: Literal["identity"]

    @property
    def bases(self) -> list[Basis]:
        """See `_DerivedPart.bases`."""
        return [IdentityBasis(dtype=self.dtype)]


class NegativePart(_DerivedPart):
    """The other tail: every unit times -1."""

    basis: Literal["negative"]

    @property
    def bases(self) -> list[Basis]:
        """See `_DerivedPart.bases`."""
        return [NegativeBasis(dtype=self.dtype)]


class RotationPart(_DerivedPart):
    """Powers of random rotations."""

    basis: Literal["rotation", "rotation_2017"]
    alpha: Annotated[list[float], BeforeValidator(_listed)] = [1.0]
    seed: Numbers = [0]

    @property
    def bases(self) -> list[Basis]:
        """See `_DerivedPart.bases`; powers of one rotation follow each other."""
        kind = RotationBasis if self.basis == "rotation" else Rotation2017Basis
        return [kind(alpha, seed, dtype=self.dtype) for seed, alpha in product(self.seed, self.alpha)]


class RandomPart(_DerivedPart):
    """Random combinations of units."""

    basis: Literal["random"]
    seed: Numbers = [0]
    units: int | None = None
    """how many; null: as many as the layer has units"""

    @property
    def bases(self) -> list[Basis]:
        """See `_DerivedPart.bases`."""
        return [RandomBasis(seed, self.units, dtype=self.dtype) for seed in self.seed]


class PcaPart(_DerivedPart):
    """Principal axes."""

    basis: Literal["pca"]
    rank: Annotated[list[int | None], BeforeValidator(_listed)] = [None]
    """how many axes; null: as many as the layer has units"""
    centred: Annotated[list[bool], BeforeValidator(_listed)] = [True]

    @property
    def bases(self) -> list[Basis]:
        """See `_DerivedPart.bases`."""
        return [PcaBasis(rank, centred, dtype=self.dtype) for rank, centred in product(self.rank, self.centred)]


class MatrixPart(_DerivedPart):
    """A matrix from a file."""

    basis: Literal["matrix"]
    file: str
    tensor: str | None = None
    bias: str | None = None
    relu: bool = False
    transposed: bool = False
    name: str | None = None

    @property
    def bases(self) -> list[Basis]:
        """See `_DerivedPart.bases`."""
        return [
            MatrixBasis(
                self.file, self.tensor, self.bias, self.relu, self.transposed, self.name, dtype=self.dtype
            )
        ]  # fmt: skip


DerivedPart = Annotated[
    IdentityPart | NegativePart | RotationPart | RandomPart | PcaPart | MatrixPart, Field(discriminator="basis")
]


@dataclass(frozen=True)
class Wanted:
    """A derived layer that a recipe asks for."""

    layer: str
    basis: Basis
    snapshots: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its name."""
        return derived_name(self.layer, self.basis)


def wanted(entries: Sequence[Any], snapshots: Iterable[str]) -> list[Wanted]:
    """The derived layers that the entries of a recipe ask for, of these snapshots.

    Raises
    ------
    DissectError
        Where an entry names another snapshot, or two ask for the same layer.
    """
    known = list(snapshots)
    found = [
        Wanted(layer, basis, tuple(known if entry.snapshots is None else entry.snapshots))
        for entry in entries
        for layer in entry.layer
        for basis in entry.bases
    ]
    if unknown := sorted({name for one in found for name in one.snapshots} - set(known)):
        raise DissectError(f"derived: snapshots {', '.join(unknown)} are none of the recipe's: {', '.join(known)}.")
    pairs = [(snapshot, one.name) for one in found for snapshot in one.snapshots]
    if repeated := sorted({name for pair in pairs for name in pair[1:] if pairs.count(pair) > 1}):
        raise DissectError(f"derived: {', '.join(repeated)} is asked for more than once. Give each basis once.")
    return found
