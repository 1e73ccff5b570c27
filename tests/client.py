"""The command line, for which layers are large that hold more bytes than the environment variable LARGE_ABOVE says."""

import os

from dissect_xr.cli.main import main as command
from dissect_xr.dissection import cut


def main() -> None:
    cut.READ_BYTES = int(os.environ.get("LARGE_ABOVE", cut.READ_BYTES))
    command()
