"""The activations of a model's layers on the images of a probe, written to `activations.zarr`."""
