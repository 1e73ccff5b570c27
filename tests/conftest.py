"""What the tests share: repeatable examples, a pool of local processes, a scheduler that refuses to compute."""

import importlib.util
import os
import random
from pathlib import Path

import dask
import pytest
from hypothesis import HealthCheck, settings
from longest import LONGEST

from dissect_xr.parallel.pool import open_pool

settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("ci", settings.get_profile("local"), derandomize=True, database=None)
settings.register_profile("quick", settings.get_profile("local"), max_examples=15)
settings.load_profile("ci" if os.environ.get("CI") else "local")

_TORCH = importlib.util.find_spec("torch") is not None
_HERE = Path(__file__).parent
_SIGNS = {"import torch", "import camvid", "import networks", "from vision import library"}
_NEED_TORCH = sorted(
    path.relative_to(_HERE).as_posix()
    for path in _HERE.rglob("test_*.py")
    if _SIGNS & set(path.read_text("utf-8").splitlines())
)
collect_ignore = [] if _TORCH else _NEED_TORCH


def pytest_configure(config):
    """Sets what all processes that share the tests must agree on, before xdist starts them.

    That is the seed of what is random, and one thread each for torch: with two, each waits for the other's core, and a
    convolution of 0.03 ms takes 15.
    """
    os.environ.setdefault("CHAOS_SEED", str(random.randrange(10**6)))
    if getattr(config.option, "numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    """Begins with the longest files; all else stays in order."""
    order = {name: n for n, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.relative_to(_HERE).as_posix(), len(order)))


def pytest_report_header():
    """Says loudly what cannot run here, and the seed that repeats what is random."""
    missing = [] if _TORCH else [f"NO TORCH, NOT RUN: {', '.join(_NEED_TORCH)}"]
    return [f"CHAOS_SEED={os.environ['CHAOS_SEED']}", *missing]


@pytest.fixture(scope="session")
def processes():
    """A pool of two local worker processes, started once."""
    with open_pool(workers=2) as pool:
        yield pool


@pytest.fixture(scope="session")
def s3():
    """An S3 endpoint on loopback (`endpoint.Endpoint`)."""
    pytest.importorskip("obstore")
    pytest.importorskip("moto")
    import endpoint

    with endpoint.endpoint() as found:
        yield found


@pytest.fixture
def no_figures(monkeypatch):
    """Runs in this process draw no figures, which take as long as everything else; yields what draws them."""
    from dissect_xr.plot import figures

    real = figures.save_figures
    monkeypatch.setattr(figures, "save_figures", lambda ds, folder: ())
    return real


@pytest.fixture
def lazy():
    """Whatever computes a Dask graph inside this test fails."""

    def refuse(*args, **kwargs):
        raise AssertionError("something computed that should have stayed lazy")

    with dask.config.set(scheduler=refuse):
        yield
