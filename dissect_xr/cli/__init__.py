"""The command `dissect-xr`."""
