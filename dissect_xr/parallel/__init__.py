"""Coarse tasks on threads, local processes or a Dask cluster."""
