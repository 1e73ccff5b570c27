"""Label maps from what segmentation networks return.

Knows: the forms of their outputs, that what they call "nothing" differs, and how scores become labels on an image.
Does not know: images, files, stores.

Forms of outputs
----------------
- **scores** (batch, class, y, x): a tensor, or the entry `out` (torchvision) or `logits` (transformers) of a mapping.
  Enlarged bilinearly to the image, as the libraries do; the class of the largest score. A single channel is the score
  of class 0 against nothing.
- **labels** (batch, y, x), whole numbers: taken as they are, enlarged to the image by nearest neighbours.
- **queries**, as MaskFormer, Mask2Former and DETR have them: each query has scores (batch, query, class + 1), whose
  last is "no object", and a mask (batch, query, y, x). The score of a class is the sum over queries of its probability
  times that of the mask (Cheng et al. 2021, Per-Pixel Classification, section 3.4).

Nothing
-------
Programs that turn outputs into labels write 0, -1 or 255 where there is nothing, and some of these are classes in
others. Here nothing is 0, a class is its number and 1, and what means nothing has to be said.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dissect_xr.errors import DissectError
from dissect_xr.segmenters.segmenter import Segmenter

TOGETHER = 16
"""Classes whose scores are enlarged at once."""

SCORES = ("out", "logits")
"""Names under which libraries return scores."""

QUERIES = (("class_queries_logits", "masks_queries_logits"), ("logits", "pred_masks"))
"""Names under which libraries return queries: their classes, their masks."""


@dataclass(frozen=True)
class Output:
    """What a model returned for a batch."""

    scores: Tensor | None
    """(batch, class, y, x)"""
    labels: Tensor | None
    """(batch, y, x)"""
    probabilities: bool = False
    """whether the scores are probabilities, not logits"""


def output_of(returned: Any, batch: int) -> Output:
    """What a model returned, in one of the forms.

    Raises
    ------
    DissectError
        If it has none of them.
    """
    if isinstance(returned, Mapping) or hasattr(returned, "keys"):
        for classes, masks in QUERIES:
            if classes in returned and masks in returned:
                return Output(_of_queries(returned[classes], returned[masks]), None, probabilities=True)
        found = [returned[name] for name in SCORES if name in returned]
        returned = found[0] if found else returned
    if isinstance(returned, Tensor) and len(returned) == batch:
        if returned.ndim == 4 and returned.is_floating_point():
            return Output(returned, None)
        if returned.ndim == 3 and not returned.is_floating_point():
            return Output(None, returned)
    raise DissectError(
        f"segmenter: expected scores ({batch}, class, y, x), labels ({batch}, y, x) as whole numbers, a mapping with "
        f"{' or '.join(SCORES)}, or queries with their masks; got {_described(returned)}. Wrap the model in a function "
        "that returns one of these."
    )


def _described(returned: Any) -> str:
    if isinstance(returned, Tensor):
        return f"a {'x'.join(map(str, returned.shape))} tensor of {str(returned.dtype).removeprefix('torch.')}"
    if isinstance(returned, Mapping):
        return f"a mapping with {', '.join(map(str, returned))}"
    return f"a {type(returned).__name__}"


def _of_queries(classes: Tensor, masks: Tensor) -> Tensor:
    """(batch, class, y, x) the sum over queries of a class's probability times the mask's."""
    probabilities = classes.float().softmax(-1)[..., :-1]
    return torch.einsum("bqc,bqyx->bcyx", probabilities, masks.float().sigmoid())


def label_map(output: Output, n: int, segmenter: Segmenter, size: tuple[int, int]) -> NDArray[np.uint16]:
    """The label map of the n-th image, uint16 of `size` (rows, columns): class and 1, 0 for nothing.

    Of classes with equal scores it is the first.

    Raises
    ------
    DissectError
        If the output has a class that is neither named nor said to mean nothing, or a score that is not finite.
    """
    if output.labels is not None:
        found = _enlarged_labels(output.labels[n], size)
    else:
        assert output.scores is not None
        found = _classes(output.scores[n], segmenter.confidence, size, output.probabilities)
    table = {concept.number - 1: concept.number for concept in segmenter.classes}
    silent = {number for number in np.unique(found).tolist() if number < 0 or number in segmenter.nothing}
    if unknown := sorted(set(np.unique(found).tolist()) - set(table) - silent):
        raise DissectError(
            f"segmenter: it gives class {unknown[0]}, which has no name. Name it in `classes`, or, if it means "
            f"nothing, list it: `nothing: {unknown[:5]}`."
        )
    labels = np.zeros(found.shape, np.uint16)
    for number, concept in table.items():
        labels[found == number] = concept
    return labels


def check_classes(output: Output, segmenter: Segmenter) -> None:
    """Raise if the model has another number of classes than the table says, so that all names may be shifted."""
    if output.scores is None:
        if segmenter.confidence:
            raise DissectError("segmenter: the model returns labels, not scores: leave out `confidence`.")
        return
    there = output.scores.shape[1]
    named = {concept.number - 1 for concept in segmenter.classes} | {one for one in segmenter.nothing if one >= 0}
    missing, beyond = sorted(set(range(there)) - named), sorted(one for one in named if one >= there)
    if missing or beyond:
        raise DissectError(
            f"segmenter: the model has classes 0 to {there - 1}"
            + (f"; {_few(missing)} are neither in `classes` nor in `nothing`" if missing else "")
            + (f"; {_few(beyond)} are not among them" if beyond else "")
            + ". A table that counts from 1, or that of another model, would shift all names: mend it."
        )


def _few(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")


def _enlarged_labels(labels: Tensor, size: tuple[int, int]) -> NDArray[np.int64]:
    """Labels on a grid of another size, by nearest neighbours (cells' centres)."""
    found = labels.cpu().numpy().astype(np.int64)
    rows, cols = (
        np.minimum(((np.arange(to) + 0.5) * there / to).astype(np.int64), there - 1)
        for to, there in zip(size, found.shape, strict=True)
    )
    return found[np.ix_(rows, cols)]


def _classes(scores: Tensor, confidence: float, size: tuple[int, int], probabilities: bool) -> NDArray[np.int64]:
    """(row, col) the class of the largest score on the image, -1 where its probability is below `confidence`.

    Memory: the scores of `TOGETHER` classes on the image, whatever the number of classes.
    """
    if len(scores) == 1:
        probability = _enlarged(scores, size)[0]
        probability = probability if probabilities else probability.sigmoid()
        return np.where((probability >= max(confidence, 0.5)).cpu().numpy(), 0, -1).astype(np.int64)
    best = torch.full(size, -torch.inf, device=scores.device)
    total = torch.full(size, -torch.inf, device=scores.device)
    found = torch.full(size, -1, dtype=torch.int64, device=scores.device)
    for first in range(0, len(scores), TOGETHER):
        part = _enlarged(scores[first : first + TOGETHER], size)
        if not bool(part.isfinite().all()):
            raise DissectError("segmenter: a score is NaN or infinite. Check the weights, or leave out autocast.")
        highest, at = part.max(dim=0)
        found = torch.where(highest > best, at + first, found)
        best = torch.maximum(best, highest)
        if confidence and not probabilities:
            total = torch.logaddexp(total, part.logsumexp(dim=0))
    if confidence:
        sure = best if probabilities else (best - total).exp()
        found = torch.where(sure >= confidence, found, -1)
    return found.cpu().numpy()


def _enlarged(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """(class, row, col) scores on the image, by bilinear interpolation."""
    return functional.interpolate(scores[None].float(), size, mode="bilinear", align_corners=False)[0]
