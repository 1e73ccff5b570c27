"""Units of a layer are ablated along the axis that they lie along, or not at all."""

import networks
import pytest
import torch
from torch import Tensor, nn

from dissect_xr.activations.request import Preprocess
from dissect_xr.errors import DissectError
from dissect_xr.experiments.replay.maps import check_maps

BATCH = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class ChannelsLast(nn.Module):
    """8 rows, 8 columns and 8 units, in this order: nothing in the shape tells which axis is which."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.last, self.vector = nn.Conv2d(3, 8, 4, 4), nn.Identity(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.vector(self.last(self.conv(x).permute(0, 2, 3, 1)).mean((1, 2)))


def test_a_layer_whose_units_are_last_is_refused():
    with pytest.raises(DissectError, match=r"layer last: was taken for maps \(y, x, unit\), and only units of maps"):
        check_maps(ChannelsLast().eval(), "last", Preprocess(32), BATCH)  # type: ignore[arg-type]


@pytest.mark.parametrize("layer", ["conv", "vector"])
def test_maps_and_vectors_are_not(layer: str):
    check_maps(ChannelsLast().eval(), layer, Preprocess(32), BATCH)  # type: ignore[arg-type]
    check_maps(networks.Branching().eval(), "join", Preprocess(32), BATCH)  # type: ignore[arg-type]
