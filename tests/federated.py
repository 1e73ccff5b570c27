"""Cases of federated label sets with ignored pixels, what counts in them, and how they are written as probes.

Knows: `strategies.ProbeCase`, the oracle's domains, the package's own ingest.
Does not know: what is tested on them.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import oracle
import stores
import strategies
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import ProbeCase

from dissect_xr.probe.ingest import write_probe


@dataclass(frozen=True)
class Federated:
    """A case of which some concepts are domains of their own, and some pixels are ignored."""

    case: ProbeCase
    own: NDArray[np.bool_]
    """(concept,) whether images are verified for the concept alone"""
    verified: NDArray[np.bool_]
    """(image, concept); what counts are the columns of the concepts above"""
    ignored: NDArray[np.bool_]
    """(image, row, col)"""

    @property
    def counted(self) -> ProbeCase:
        """The case without the labels of concepts in images that are not verified for them."""
        annotation, whole = self.case.annotation.copy(), self.case.whole_image.copy()
        for image, concept in np.argwhere(self.own & ~self.verified):
            for labels in (annotation[image], whole[image]):
                labels[labels == self.case.concept[concept]] = 0
        return replace(self.case, annotation=annotation, whole_image=whole)

    @property
    def domains(self) -> oracle.Domains:
        """Categories that have a concept without a domain of its own, or no concept at all; then these concepts."""
        kinds = self.case.concept_category
        of_all = oracle.Domains.of_categories(replace_own(self.counted, self.own), self.ignored)
        kept = [g for g in range(len(self.case.categories)) if (kinds != g).all() or (~self.own[kinds == g]).any()]
        alone = np.flatnonzero(self.own)
        index = np.array([len(kept) + alone.tolist().index(c) if self.own[c] else kept.index(kinds[c])
                          for c in range(kinds.size)], np.int64)  # fmt: skip
        verified = np.concatenate([of_all.verified[:, kept], self.verified[:, alone]], axis=1)
        return oracle.Domains(index, verified, self.ignored)

    def write(self, folder: Path) -> str:
        """The probe, through the package's own ingest; ignored pixels are 65,535, or a number that is no concept."""
        taken = set(self.case.concept.tolist())
        void = next(n for n in range(65535, 0, -1) if n not in taken)
        annotation = self.case.annotation.copy()
        annotation[:, -1][self.ignored] = void
        found = stores.plan_of(replace(self.case, annotation=annotation), folder / "images")
        numbers = self.case.concept
        rows = tuple(
            replace(row, verified=tuple(int(c) for c in numbers[self.own & self.verified[image]]))
            for image, row in enumerate(found.rows)
        )
        concepts = tuple(replace(c, own_domain=bool(self.own[n])) for n, c in enumerate(found.concepts))
        url = str(folder / "probe.zarr")
        write_probe(replace(found, rows=rows, concepts=concepts, void=frozenset({void})), url, show=False)
        return url


def replace_own(case: ProbeCase, own: NDArray[np.bool_]) -> ProbeCase:
    """The case without the concepts that have a domain of their own."""
    annotation, whole = case.annotation.copy(), case.whole_image.copy()
    for labels in (annotation, whole):
        labels[np.isin(labels, case.concept[own])] = 0
    return replace(case, annotation=annotation, whole_image=whole)


@st.composite
def federated(draw: st.DrawFn) -> Federated:
    case = draw(strategies.probes(max_images=6))
    random = np.random.default_rng(draw(strategies.SEEDS))
    images, concepts = len(case.annotation), case.concept.size
    own = random.random(concepts) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    verified = random.random((images, concepts)) < 0.6
    ignored = random.random((images, *case.annotation.shape[2:])) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    return Federated(case, own, verified, ignored)
