"""Commands of `dissect-xr` that stand by themselves."""
