"""Prints the requirements one per line, leaving some out: `python pipelines/requirements.py --without torch`.

Only the standard library, since it runs before anything is installed.
"""

import argparse
import re
import tomllib
from pathlib import Path


def main() -> None:
    """Print the requirements of pyproject.toml, development ones included."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without", nargs="*", default=[], help="distributions to leave out")
    left_out = set(parser.parse_args().without)
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        if re.split(r"[<>=!~ \[]", requirement)[0] not in left_out:
            print(requirement)


if __name__ == "__main__":
    main()
