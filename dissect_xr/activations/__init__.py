"""A model's activations of a probe, layer by layer, into `activations.zarr`."""
