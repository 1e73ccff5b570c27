"""Images and their labels, read from several formats and written to `probe.zarr`."""
