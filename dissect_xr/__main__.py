"""`python -m dissect_xr`."""

from dissect_xr.cli import main

main()
