"""Whether a layer's tensor is maps (image, unit, y, x), as replays take it to be.

Knows: that a network may return maps whose units are another axis, as Swin's blocks do.
Does not know: how units are ablated (`replays`).
"""

from functools import partial

from torch import Tensor, nn

from dissect_xr.activations.images import to_input
from dissect_xr.activations.layouts.find import Finder
from dissect_xr.activations.receptive_field.tracing import trace_geometry
from dissect_xr.activations.request import Preprocess
from dissect_xr.errors import DissectError


def check_maps(model: nn.Module, layer: str, preprocess: Preprocess, batch: Tensor) -> None:
    """Raise where the layer's tensor has four axes, and its units are not the second one.

    What was traced to the image is maps; anything else is looked at as an extraction looks at it.
    """
    traced = trace_geometry(model, [layer], preprocess.size, channels=batch.shape[1])[layer]
    if not isinstance(traced, str):
        return
    finder = Finder(model, partial(to_input, preprocess, device=batch.device), preprocess.size, len(batch))
    known = finder.known()
    guess = known.guesses.get(layer)
    if guess is None or guess.is_sure or len(known.available.taps[layer].shape) != 4:
        return
    found = finder.find(known, [layer])[layer]
    if not found.layout.is_plain:
        raise DissectError(
            f"layer {layer}: was taken for {found.wanted.said(found.layout)}, and only units of maps (unit, y, x) can "
            "be ablated. Name a layer that returns such maps, such as a convolution."
        )
