"""The command line, `dissect-xr`."""
