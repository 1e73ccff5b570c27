"""What several files of tests of activations begin from."""

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The probe of `test_extract`: 40 images without labels."""
    pytest.importorskip("torch")
    from test_extract import probe_in

    return str(probe_in(tmp_path_factory.mktemp("probe")))


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Where a test's activations go."""
    return str(tmp_path / "activations.zarr")
