"""The per-unit tables that were published in 2017, and the figures that must come back from them."""

from pathlib import Path

from checkout import DATA, shared

PUBLISHED = DATA / "netdissect_2017"


FIGURES = {  # docs/method.md, section 4: units, detectors, unique by_unit, unique by_category
    "alexnet_places365_conv5.csv": (256, 118, 72, 91),
    "alexnet_imagenet_conv5.csv": (256, 97, 50, 61),
    "resnet152_places365_res5c.csv": (2048, 1452, 278, 347),
}


def published(name: str) -> Path:
    """A published table; skips loudly where the test data are missing."""
    return shared(PUBLISHED.name) / name
