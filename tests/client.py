"""The command line, for which layers are large that hold more bytes than the environment variable LARGE_ABOVE says."""

import os

from dissect_xr.cli.main import main
from dissect_xr.dissection import cut

if __name__ == "__main__":
    cut.READ_BYTES = int(os.environ.get("LARGE_ABOVE", cut.READ_BYTES))
    main()
