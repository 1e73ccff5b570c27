"""`python -m dissect_xr`."""

from dissect_xr.cli.main import main

main()
