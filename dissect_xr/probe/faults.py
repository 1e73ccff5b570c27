"""What is wrong with the files of one image.

Knows: that many images may have the same fault, and then it is one fault of the label set.
Does not know: how files are read, or which images are left out because of a fault (`skip`).
"""

from collections.abc import Sequence

from dissect_xr.errors import DissectError


class Fault(DissectError):
    """An image, or one of its label maps, cannot be used; the message names the file and says how to mend it."""

    def __init__(self, message: str, reason: str, *, shared: bool = False, numbers: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.reason = reason
        """the fault without the names of files, so that images with the same one can be counted"""
        self.shared = shared
        """whether the tables or the recipe are wrong, rather than some images, where most images have this fault"""
        self.numbers = tuple(numbers)
        """the numbers in the label maps that are no concepts, if they are all that is wrong"""

    def __reduce__(self) -> tuple[object, ...]:
        return _fault, (str(self), self.reason, self.shared, self.numbers)


def _fault(message: str, reason: str, shared: bool, numbers: Sequence[int]) -> Fault:
    return Fault(message, reason, shared=shared, numbers=numbers)
