"""The parameters of a dissection.

Knows: which there are, which values they take, how they are stored.
Does not know: how anything is computed. Neither torch nor Numba is imported.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from dissect_xr.errors import DissectError, numbers_of
from dissect_xr.schema import FRACTION, SCHEMA_VERSION

Anchoring = Literal["receptive_field", "half_pixel"]

Domain = Literal["annotated", "touched", "all"]


@dataclass(frozen=True)
class Method:
    """The parameters of a dissection (docs/method.md, sections 1 and 2)."""

    fractions: tuple[float, ...] = (FRACTION,)
    """shares of a unit's activations above its threshold, each in the open interval (0, 1); a single number is one"""
    anchoring: Anchoring = "receptive_field"
    """where the cells of a map lie on the image; layers of unknown geometry are anchored `half_pixel`"""
    domain: Domain = "annotated"
    """the images whose active pixels are counted into `unit_area`"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "fractions", numbers_of("fractions", self.fractions))
        for fraction in self.fractions:
            if not 0 < fraction < 1:
                raise DissectError(f"fraction {fraction} is not between 0 and 1; the usual one is {FRACTION}.")
        if not self.fractions or len(set(self.fractions)) < len(self.fractions):
            raise DissectError(f"fractions must be distinct and at least one, got {list(self.fractions)}.")
        if self.anchoring not in get_args(Anchoring):
            raise DissectError(f"anchoring '{self.anchoring}': expected {' or '.join(get_args(Anchoring))}.")
        if self.domain not in get_args(Domain):
            raise DissectError(f"domain '{self.domain}': expected one of {', '.join(get_args(Domain))}.")

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters, as they are stored in attributes."""
        return asdict(self) | {"fractions": list(self.fractions), "schema_version": SCHEMA_VERSION}

    def inputs(self, probe: str) -> dict[str, Any]:
        """What all layers of a dissection share, as stored: the probe's fingerprint and the parameters."""
        return {"probe_sha256": probe} | self.parameters
