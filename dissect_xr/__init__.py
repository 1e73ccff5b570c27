"""Network Dissection out of core: exact thresholds and concept IoU of every unit of every layer and snapshot.

The public names stand once, in `__init__.pyi`, and are imported when they are first used: `import dissect_xr` needs
neither torch nor Numba. It registers `ds.dissect` with xarray (`accessor`).
"""

import lazy_loader

import dissect_xr.accessor  # noqa: F401  registers `ds.dissect`

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
