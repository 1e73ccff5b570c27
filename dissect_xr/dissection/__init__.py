"""Thresholds and counts, from the two stores into `dissection.zarr`."""
