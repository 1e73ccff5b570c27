"""Which pixels of the image a cell of a layer sees: jump, start and receptive field, as exact fractions.

Knows: how they change under a window, padding, cropping and resampling; how they are stored as attributes.
Does not know: torch, or which operations a model consists of (`tracing`).

The first two layers of AlexNet, an example. Along one axis, pixel i of the input covers [i, i + 1), and its centre lies
at i + 0.5, so the input has jump 1 (pixels between neighbouring cells), start 0.5 (centre of cell 0) and field 1
(pixels that a cell sees).

========================  =======  ==============================  ===================
after                     jump     start                           field
========================  =======  ==============================  ===================
input                     1        0.5                             1
convolution 11, stride 4  1*4 = 4  0.5 + (11 - 1) / 2 * 1 = 5.5    1 + (11 - 1)*1 = 11
max pooling 3, stride 2   4*2 = 8  5.5 + (3 - 1) / 2 * 4 = 9.5     11 + (3 - 1)*4 = 19
========================  =======  ==============================  ===================

Cell 10 of the pooled map has its centre at 9.5 + 10 * 8 = 89.5 and sees the pixels [89.5 - 9.5, 89.5 + 9.5) = [80, 99).
With a padding of p cells, a window starts p cells of its input earlier: `start` decreases by p times the jump of the
input.

>>> axis = PIXELS.window(11, stride=4).window(3, stride=2)
>>> int(axis.jump), float(axis.start), int(axis.field)
(8, 9.5, 19)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

from dissect_xr.errors import DissectError


class NoGeometryError(Exception):
    """An operation has no geometry. The message is a clause that follows the operation's name: "resamples ..."."""


@dataclass(frozen=True)
class AxisGeometry:
    """Positions of a map's cells along one axis of the input; pixel i covers [i, i + 1), its centre is at i + 0.5."""

    jump: Fraction
    """Distance between the centres of neighbouring cells, in input pixels."""
    start: Fraction
    """Position of the centre of cell 0, in input pixels."""
    field: Fraction
    """Length of the receptive field, in input pixels."""

    def at(self, step: Fraction | int, first: Fraction | int, reach: int = 0) -> Self:
        """Axis whose cell i is centred at cell ``first + i * step`` of this one and sees `reach` more cells.

        All other methods are special cases of this one.

        Examples
        --------
        >>> PIXELS.at(2, 0).at(2, 0) == PIXELS.at(4, 0)
        True
        """
        return type(self)(self.jump * step, self.start + first * self.jump, self.field + reach * self.jump)

    def window(self, kernel: int, *, stride: int = 1, padding: int = 0, dilation: int = 1) -> Self:
        """Axis after a convolution or pooling with this kernel; `padding` is the number of cells added before cell 0.

        Examples
        --------
        >>> axis = PIXELS.window(11, stride=4)
        >>> str(axis.jump), str(axis.start), str(axis.field)
        ('4', '11/2', '11')
        """
        reach = dilation * (kernel - 1)
        return self.at(stride, Fraction(reach, 2) - padding, reach)

    def spread(self, kernel: int, *, stride: int = 1, padding: int = 0, dilation: int = 1) -> Self:
        """Axis after a transposed convolution.

        The centres of its cells are not evenly spaced: this is the straight line through them.
        """
        reach = dilation * (kernel - 1)
        return self.at(Fraction(1, stride), (padding - Fraction(reach, 2)) / stride, reach // stride)

    def resampled(self, step: Fraction, reach: int = 0) -> Self:
        """Axis after resampling at half-pixel centres, with a new cell for every `step` old cells."""
        return self.at(step, (step - 1) / 2, reach)


PIXELS = AxisGeometry(jump=Fraction(1), start=Fraction(1, 2), field=Fraction(1))
"""An axis of the input image."""


@dataclass(frozen=True)
class Geometry:
    """The positions of a layer's cells in the input."""

    y: AxisGeometry
    """Down the rows."""
    x: AxisGeometry
    """Along the columns."""

    def to_attrs(self) -> dict[str, dict[str, str]]:
        """The geometry as strings for store attributes; fractions keep them exact.

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
        """The geometry that `to_attrs` wrote.

        Raises
        ------
        DissectError
            If a part is missing or is not a fraction.
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
