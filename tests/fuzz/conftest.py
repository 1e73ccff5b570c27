"""Cases need no fixtures of their own; helpers lie beside the tests one folder up."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
