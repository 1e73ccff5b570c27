"""Images and their labels, from any layout into `probe.zarr`."""
