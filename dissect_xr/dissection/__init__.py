"""Computes thresholds and pixel counts from `activations.zarr` and `probe.zarr` and writes `dissection.zarr`."""
