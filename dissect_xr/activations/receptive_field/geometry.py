"""Where a cell of a layer looks in the image: jump, start and receptive field, exactly.

Knows: how one axis changes under a window, padding, cropping and resampling; the form written to store attributes.
Does not know: torch, or which operations a model consists of (tracing.py follows them).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

from dissect_xr.errors import DissectError


class NoGeometryError(Exception):
    """An operation has no geometry; the message is the reason, a clause that follows the operation's name."""


@dataclass(frozen=True)
class AxisGeometry:
    """Image positions of the cells along one axis; pixel i covers [i, i + 1), its centre is i + 0.5."""

    jump: Fraction
    """Distance between two neighbouring cells, in input pixels."""
    start: Fraction
    """Input position of cell 0's centre."""
    field: Fraction
    """Length of the receptive field, in input pixels."""

    def at(self, step: Fraction | int, first: Fraction | int, reach: int = 0) -> Self:
        """Axis whose cell i lies at cell ``first + i * step`` of this one and sees `reach` cells more.

        The one rule everything else is made of.

        Examples
        --------
        >>> PIXELS.at(2, 0).at(2, 0) == PIXELS.at(4, 0)
        True
        """
        return type(self)(self.jump * step, self.start + first * self.jump, self.field + reach * self.jump)

    def window(self, kernel: int, *, stride: int = 1, padding: int = 0, dilation: int = 1) -> Self:
        """Axis after a convolution or pooling with this kernel; `padding` is the leading one.

        Examples
        --------
        >>> axis = PIXELS.window(11, stride=4)
        >>> str(axis.jump), str(axis.start), str(axis.field)
        ('4', '11/2', '11')
        """
        reach = dilation * (kernel - 1)
        return self.at(stride, Fraction(reach, 2) - padding, reach)

    def spread(self, kernel: int, *, stride: int = 1, padding: int = 0, dilation: int = 1) -> Self:
        """Axis after a transposed convolution: the straight line through its cells' centres, which swing around it."""
        reach = dilation * (kernel - 1)
        return self.at(Fraction(1, stride), (padding - Fraction(reach, 2)) / stride, reach // stride)

    def resampled(self, step: Fraction, reach: int = 0) -> Self:
        """Axis sampled at half-pixel centres, a new cell every `step` of the old."""
        return self.at(step, (step - 1) / 2, reach)


PIXELS = AxisGeometry(jump=Fraction(1), start=Fraction(1, 2), field=Fraction(1))
"""An axis of the input image itself."""


@dataclass(frozen=True)
class Geometry:
    """Where the cells of a layer look in the input."""

    y: AxisGeometry
    """Down the rows."""
    x: AxisGeometry
    """Along the columns."""

    def to_attrs(self) -> dict[str, dict[str, str]]:
        """Plain strings for store attributes, exact.

        Examples
        --------
        >>> Geometry(PIXELS, PIXELS).to_attrs()["y"]
        {'jump': '1', 'start': '1/2', 'receptive_field': '1'}
        """
        return {
            name: {"jump": str(axis.jump), "start": str(axis.start), "receptive_field": str(axis.field)}
            for name, axis in (("y", self.y), ("x", self.x))
        }

    @classmethod
    def from_attrs(cls, attrs: Mapping[str, Mapping[str, str]]) -> Self:
        """Geometry that `to_attrs` wrote.

        Raises
        ------
        DissectError
            A part is missing or no fraction.
        """
        try:
            y, x = (
                AxisGeometry(Fraction(part["jump"]), Fraction(part["start"]), Fraction(part["receptive_field"]))
                for part in (attrs["y"], attrs["x"])
            )
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise DissectError(
                f"geometry attributes need y and x with jump, start and receptive_field as fractions, got {attrs!r}"
            ) from error
        return cls(y, x)
