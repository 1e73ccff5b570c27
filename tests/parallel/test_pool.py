"""The same counts on threads, local processes and a scheduler of others; tasks in windows, trees and on GPU workers."""

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import stores
from checkout import ROOT, TESTS
from folds import fold_tasks
from hypothesis import given
from hypothesis import strategies as st
from strategies import ProbeCase

from dissect_xr.dissection.dissect import dissect
from dissect_xr.errors import BlocksFailed, DissectError, Failed
from dissect_xr.parallel import dask_pool, retry
from dissect_xr.parallel.dask_pool import DaskPool
from dissect_xr.parallel.fold import AGAIN, TREE, Fold
from dissect_xr.parallel.pool import Threads, open_pool, run_blocks, run_tasks
from dissect_xr.parallel.resources import Host, Projection

GPU_WORKERS = ("gpu0", "gpu1")


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """Address of a scheduler started with the `dask` command: two workers that offer a GPU, one that does not."""
    folder = tmp_path_factory.mktemp("scheduler")
    paths = [str(ROOT), str(TESTS), str(Path(__file__).parent)]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "error"}

    def start(module, *options):
        log = stack.enter_context((folder / f"{module}_{len(started)}.log").open("w"))
        command = [
            sys.executable,
            "-m",
            f"distributed.cli.{module}",
            "--no-dashboard",
            "--dashboard-address",
            "127.0.0.1:0",
            "--scheduler-file",
            address,
        ]
        started.append(subprocess.Popen([*command, *options], env=environ, cwd=folder, stdout=log, stderr=log))

    address, started = str(folder / "scheduler.json"), []
    with ExitStack() as stack:
        try:
            start("dask_scheduler", "--host", "127.0.0.1", "--port", "0")
            for name in (*GPU_WORKERS, "plain"):
                offer = ["--resources", "GPU=1"] if name in GPU_WORKERS else []
                start("dask_worker", "--no-nanny", "--nthreads", "1", "--name", name, "--host", "127.0.0.1", *offer)
            yield _reached(Path(address), len(started) - 1)
        finally:
            for process in reversed(started):  # a worker without its scheduler would wait for another
                process.terminate()
                process.wait(20)


def _reached(address: Path, workers: int) -> str:
    from distributed import Client

    deadline = time.monotonic() + 60
    while not (address.exists() and address.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    with Client(scheduler_file=str(address), set_as_default=False, timeout="60s") as client:
        client.wait_for_workers(workers, timeout=60)
        return client.scheduler.address


@pytest.fixture(scope="module")
def cluster_pool(scheduler):
    """A pool of the scheduler's workers."""
    with open_pool(scheduler=scheduler) as pool:
        yield pool


# --- the same counts everywhere ---


def test_counts_are_the_same_bits_on_every_pool(tmp_path, processes, cluster_pool):
    values = np.random.default_rng(0)
    labels = values.integers(0, 5, (40, 2, 10, 9)).astype(np.uint16)
    labels[:, 1][labels[:, 1] == labels[:, 0]] = 0
    whole = values.integers(5, 7, (40, 1)).astype(np.uint16)
    case = ProbeCase(labels, whole, np.arange(1, 7, dtype=np.uint16), np.array([0, 0, 0, 1, 2, 2]), ("a", "b", "c"))
    arrays = {
        "half": np.maximum(values.normal(size=(40, 7, 6, 5)), 0).astype(np.float16),
        "single": values.normal(size=(40, 5, 3, 3)).astype(np.float32),
    }
    probe = stores.write_probe_case(case, tmp_path)
    method = stores.method([0.05, 0.4], domain="touched")
    with stores.tiny_chunks(chunk=200, shard=900, units=3, read=2000, task=8000):
        activations = stores.write_layers(tmp_path, probe, arrays)
        for name, pool in {"threads": Threads(2), "processes": processes, "cluster": cluster_pool}.items():
            dissect(activations, probe, str(tmp_path / f"{name}.zarr"), method=method, pool=pool, show=False)
    for layer, acts in arrays.items():
        wanted = stores.expected(acts, case, [0.05, 0.4], stores.HALF_PIXEL, "touched")
        for name in ("threads", "processes", "cluster"):
            stores.assert_same(stores.stored(str(tmp_path / f"{name}.zarr"), f"s/{layer}"), wanted)


def test_a_probe_is_the_same_on_every_pool(tmp_path, processes, cluster_pool):
    labels = np.random.default_rng(0).integers(0, 5, (40, 1, 6, 5)).astype(np.uint16)
    whole = np.zeros((40, 1), np.uint16)
    case = ProbeCase(labels, whole, np.arange(1, 5, dtype=np.uint16), np.zeros(4, np.int64), ("object",))
    digests = set()
    for name, pool in {"threads": Threads(3), "processes": processes, "cluster": cluster_pool}.items():
        folder = tmp_path / name
        folder.mkdir()
        stores.write_probe_case(case, folder, pool=pool)
        digests.add(stores.digest(folder / "probe.zarr"))
    assert len(digests) == 1


# --- GPU tasks ---


def worker_name(_task) -> str:
    """Name of the worker that runs this, after long enough that an idle one would have taken the next."""
    from distributed import get_worker

    time.sleep(0.02)
    return str(get_worker().name)


def test_gpu_tasks_run_only_on_workers_that_offer_one(cluster_pool):
    assert (cluster_pool.gpus, cluster_pool.workers) == (2, 3)
    assert cluster_pool.stream(gpu=True).window == 4
    ran = Counter(name for _, name in run_tasks(cluster_pool, worker_name, range(30), gpu=True))
    assert set(ran) == set(GPU_WORKERS)


def test_other_tasks_run_on_all_workers(cluster_pool):
    ran = Counter(name for _, name in run_tasks(cluster_pool, worker_name, range(60)))
    assert set(ran) == {*GPU_WORKERS, "plain"}


def test_gpu_tasks_run_on_plain_workers_where_no_other_is(processes):
    assert processes.gpus == 0
    assert len(list(run_tasks(processes, worker_name, range(6), gpu=True))) == 6


def visible_gpus(_task) -> str | None:
    """The GPUs that this process sees."""
    time.sleep(0.05)
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def test_each_local_gpu_process_sees_its_own_gpu():
    with open_pool(workers=1, gpus=2) as pool:
        assert (pool.workers, pool.gpus) == (3, 2)
        assert {seen for _, seen in run_tasks(pool, visible_gpus, range(20), gpu=True)} == {"0", "1"}


def test_tasks_of_two_gpus_run_on_processes_that_own_two():
    with open_pool(workers=1, gpus=2, gpus_per_worker=2) as pool:
        assert (pool.workers, pool.gpus) == (2, 2)
        assert pool.stream(gpu=2).window == 2
        assert {seen for _, seen in run_tasks(pool, visible_gpus, range(6), gpu=2)} == {"0,1"}
    with (
        pytest.raises(DissectError, match="3 GPUs cannot be shared by workers of 2 GPUs each"),
        open_pool(gpus=3, gpus_per_worker=2),
    ):
        pass


def test_tasks_of_more_gpus_than_any_worker_has_end_after_a_wait(cluster_pool, monkeypatch):
    monkeypatch.setattr(dask_pool, "PATIENCE", 1.0)
    with pytest.raises(DissectError, match=r"^there has been no 2-GPU worker for 1 s"):
        list(run_tasks(cluster_pool, abs, range(4), gpu=2))


def overlap(task) -> int:
    """How many of these ran at once, at most, while this one did."""
    counts, lock = task
    with lock:
        counts.append(counts[-1] + 1)
    time.sleep(0.05)
    with lock:
        counts.append(counts[-1] - 1)
    return 0


@pytest.mark.parametrize(("gpu", "most"), [(True, 1), (False, 3)])
def test_threads_run_gpu_tasks_one_at_a_time(gpu, most):
    counts, lock = [0], threading.Lock()
    assert len(list(run_tasks(Threads(3), overlap, [(counts, lock)] * 12, gpu=gpu))) == 12
    assert max(counts) == most


# --- windows and trees, in any order ---


class Shuffled:
    """A pool that finishes tasks in an order drawn at random, and notes what was in flight."""

    memory = 2**20
    workers = 1

    def __init__(self, window: int, seed: int) -> None:
        self.window, self.random = window, random.Random(seed)
        self.waiting: list = []
        self.most = 0
        self.cancelled = False

    def stream(self, *, gpu: int = 0) -> "Shuffled":
        return self

    def add(self, tag, function, *args) -> None:
        assert not self.cancelled
        self.waiting.append((tag, function, args))
        self.most = max(self.most, sum(what not in ("merge", "finish") for what in map(self._kind, self.waiting)))

    @staticmethod
    def _kind(entry):
        tag = entry[0]
        return tag[1] if isinstance(tag, tuple) and len(tag) == 2 else tag

    def next(self):
        tag, function, args = self.waiting.pop(self.random.randrange(len(self.waiting)))
        return tag, function(*args)

    def result(self, handle):
        return handle

    def cancel(self) -> None:
        self.cancelled = True
        self.waiting.clear()


@dataclass(frozen=True)
class Leaf:
    """A task of fold `fold`."""

    fold: int
    value: int


def as_list(leaf: Leaf) -> list[int]:
    return [leaf.value]


def joined(*parts: list[int]) -> list[int]:
    assert 2 <= len(parts) <= TREE
    return list(chain.from_iterable(parts))


def finished(key, part: list[int]) -> tuple[int, list[int]]:
    return key, sorted(part)


@given(st.lists(st.integers(1, 40), max_size=6), st.integers(1, 9), st.integers(0, 2**16))
def test_folds_merge_every_task_once_in_any_order(sizes, window, seed):
    pool, seen = Shuffled(window, seed), Counter()
    folds = [
        Fold(n, [Leaf(n, value) for value in range(size)], as_list, joined, finished) for n, size in enumerate(sizes)
    ]
    got = dict(fold_tasks(pool, iter(folds), on_task=lambda leaf: seen.update([leaf])))
    assert got == {n: (n, list(range(size))) for n, size in enumerate(sizes)}
    assert set(seen.values()) <= {1}
    assert seen.total() == sum(sizes)
    assert pool.most <= window
    assert not pool.waiting
    assert pool.cancelled


class Losing(Shuffled):
    """A pool that loses `losses` partial results, which shows when they are merged, finished or fetched."""

    def __init__(self, window: int, seed: int, losses: int) -> None:
        super().__init__(window, seed)
        self.losses = losses

    def _lost(self) -> bool:
        lost = self.losses > 0 and self.random.random() < 0.5
        self.losses -= lost
        return lost

    def next(self):
        tag, handle = super().next()
        is_merge = isinstance(tag, tuple) and tag[1] in ("merge", "finish")
        return tag, Failed("lost", lost=True) if is_merge and self._lost() else handle

    def result(self, handle):
        return Failed("lost", lost=True) if self._lost() else handle


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 9), st.integers(0, 2**16), st.booleans())
def test_folds_whose_partial_results_are_lost_are_begun_again(sizes, window, seed, ends):
    pool, seen = Losing(window, seed, losses=AGAIN), Counter()
    finish = finished if ends else None
    folds = [Fold(n, [Leaf(n, v) for v in range(size)], as_list, joined, finish) for n, size in enumerate(sizes)]
    got = dict(fold_tasks(pool, folds, on_task=lambda leaf: seen.update([leaf.fold])))
    wanted = {n: list(range(size)) for n, size in enumerate(sizes)}
    assert {key: result[1] if ends else sorted(result) for key, result in got.items()} == wanted
    assert seen == dict(enumerate(sizes))
    assert pool.most <= window
    assert not pool.waiting


def test_a_fold_that_is_lost_again_and_again_fails_and_the_others_do_not():
    class Always(Shuffled):
        def result(self, handle):
            return Failed("lost", lost=True) if handle[0] == 1 else handle

    folds = [Fold(n, [Leaf(n, v) for v in range(13)], as_list, joined, finished) for n in range(3)]
    with pytest.raises(BlocksFailed, match="lost"):
        list(fold_tasks(Always(3, 0), folds))
    got = dict(_until_failure(fold_tasks(Always(3, 0), folds)))
    assert got == {n: (n, list(range(13))) for n in (0, 2)}


@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 2**16))
def test_blocks_whose_results_are_lost_run_again(count, window, seed):
    pool, runs = Losing(window, seed, losses=5), Counter()
    got = list(run_blocks(pool, lambda task: runs.update([task]) or task, range(count)))
    assert sorted(got) == [(n, n) for n in range(count)]
    assert runs.total() == count + 5 - pool.losses


@given(st.integers(0, 30), st.integers(1, 9), st.integers(0, 2**16))
def test_tasks_each_run_once_inside_the_window(count, window, seed):
    pool, started = Shuffled(window, seed), []
    tasks = iter(range(count))
    got = list(run_tasks(pool, lambda task: started.append(task) or task * task, tasks))
    assert sorted(got) == [(n, n * n) for n in range(count)]
    assert sorted(started) == list(range(count))
    assert pool.most <= window


def test_tasks_are_drawn_as_the_window_opens():
    drawn = []

    def tasks():
        for n in range(100):
            drawn.append(n)
            yield n

    results = run_tasks(Shuffled(4, 0), abs, tasks())
    for done in range(1, 10):
        next(results)
        assert len(drawn) <= done + 4


@pytest.mark.parametrize("pool", ["threads", "processes", "cluster_pool"])
def test_sums_of_trees_on_real_pools(pool, request):
    pool = Threads(3) if pool == "threads" else request.getfixturevalue(pool)
    folds = [Fold(n, [Leaf(n, v) for v in range(size)], as_list, joined, finished) for n, size in ((5, 30), (6, 1))]
    assert dict(fold_tasks(pool, folds)) == {5: (5, list(range(30))), 6: (6, [0])}


# --- errors ---


def fails_at_three(task: int) -> int:
    """What a task does that finds something wrong in what the user gave."""
    time.sleep(0.005)
    if task == 3:
        raise DissectError("image 3 is damaged: replace it.")
    return task


def leaves_a_trace(task: tuple[int, str]) -> int:
    """Like `fails_at_three`, leaving a file that says it ran."""
    number, folder = task
    (Path(folder) / str(number)).touch()
    return fails_at_three(number)


@pytest.mark.parametrize("pool", ["threads", "processes", "cluster_pool"])
@pytest.mark.parametrize("gpu", [False, True])
def test_errors_arrive_as_they_were_raised_and_stop_the_rest(pool, gpu, request, tmp_path):
    pool = Threads(2) if pool == "threads" else request.getfixturevalue(pool)
    tasks = [(number, str(tmp_path)) for number in range(2000)]
    with pytest.raises(DissectError, match=r"^image 3 is damaged: replace it\.$"):
        list(run_tasks(pool, leaves_a_trace, tasks, gpu=gpu))
    time.sleep(0.3)  # what was running ends
    ran = len(list(tmp_path.iterdir()))
    assert 4 <= ran < 1000
    time.sleep(0.1)
    assert len(list(tmp_path.iterdir())) == ran
    assert sorted(result for _, result in run_tasks(pool, fails_at_three, (4, 5))) == [4, 5]


def moody(task: tuple[int, list[int]]) -> int:
    """Fails as often as `task` says, noting each try; 9 for ever, 7 with an error of the user's."""
    fails, tries = task
    tries.append(fails)
    if fails == 7:
        raise DissectError("image 7 is damaged: replace it.")
    if len(tries) <= fails:
        raise OSError(f"try {len(tries)}")
    return fails


@given(order=st.permutations([0, 1, 2, 7, 9]), seed=st.integers(0, 99))
def test_blocks_that_fail_are_tried_again_and_all_named_at_the_end(order, seed):
    tasks = [(fails, []) for fails in order]
    results = []
    with patch.object(retry, "PAUSE", 0), pytest.raises(BlocksFailed) as raised:
        results.extend(result for _, result in run_blocks(Shuffled(2, seed), moody, tasks))
    assert sorted(results) == [0, 1, 2]
    assert {fails: len(tries) for fails, tries in tasks} == {0: 1, 1: 2, 2: 3, 7: 1, 9: 3}
    assert len(raised.value.failures) == 2
    assert "image 7 is damaged: replace it." in str(raised.value)
    assert "failed 3 times, OSError: try 3" in str(raised.value)


@given(bad=st.integers(0, 12), seed=st.integers(0, 99))
def test_other_folds_are_finished_when_one_fails(bad, seed):
    folds = [Fold(n, [Leaf(n, v) for v in range(13)], partial(bad_leaf, bad), joined, finished) for n in range(3)]
    pool, got = Shuffled(3, seed), {}
    with pytest.raises(BlocksFailed, match="leaf is bad"):
        got.update(fold_tasks(pool, folds))
    assert pool.cancelled
    assert not pool.waiting
    for_each = dict(_until_failure(fold_tasks(Shuffled(3, seed), folds)))
    assert for_each == {n: (n, list(range(13))) for n in (0, 2)}


def bad_leaf(bad: int, leaf: Leaf) -> list[int]:
    """One leaf of fold 1 that cannot be done."""
    if leaf == Leaf(1, bad):
        raise DissectError("leaf is bad.")
    return [leaf.value]


def _until_failure(results):
    with suppress(BlocksFailed):
        yield from results


def list_but_three(leaf: Leaf) -> list[int]:
    """A leaf that may fail."""
    return [fails_at_three(leaf.value)]


def merge_fails(*parts):
    """A merge that finds something wrong."""
    raise DissectError("a merge failed.")


def finish_fails(key, part):
    """A finish that cannot write."""
    raise DissectError(f"{key} cannot be written.")


@pytest.mark.parametrize("pool", ["threads", "processes"])
@pytest.mark.parametrize(
    ("function", "merge", "finish", "message"),
    [
        (list_but_three, joined, finished, "image 3"),
        (as_list, merge_fails, finished, "a merge failed"),
        (as_list, joined, finish_fails, "key cannot be written"),
    ],
)
def test_errors_anywhere_in_a_fold_arrive(pool, function, merge, finish, message, request):
    pool = Threads(2) if pool == "threads" else request.getfixturevalue(pool)
    tasks = [Leaf(0, n) for n in range(20)]
    with pytest.raises(DissectError, match=message):
        list(fold_tasks(pool, [Fold("key", tasks, function, merge, finish)]))


def test_nothing_stays_on_the_scheduler(scheduler, cluster_pool):
    before = _keys(cluster_pool)
    with open_pool(scheduler=scheduler) as pool:
        list(run_tasks(pool, abs, range(10)))
        next(run_tasks(pool, abs, range(50)))  # left half way
        with pytest.raises(DissectError):
            list(run_tasks(pool, fails_at_three, range(50)))
    deadline = time.monotonic() + 10
    while (left := _keys(cluster_pool) - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def _keys(pool: DaskPool) -> set[str]:
    return set(pool.client.run_on_scheduler(lambda dask_scheduler: list(map(str, dask_scheduler.tasks))))


def test_no_scheduler_is_said():
    with (
        patch("distributed.Client", side_effect=OSError("timed out")),  # after 20 s
        pytest.raises(DissectError, match=r"tcp://127.0.0.1:9: no Dask scheduler answers there \(timed out\)"),
        open_pool(scheduler="tcp://127.0.0.1:9"),
    ):
        pass


def test_plans_that_do_not_fit_name_their_parts():
    projection = Projection((("maps", 3 * 2**20), ("labels", 2**20)))
    assert projection.total == 4 * 2**20
    projection.check(None, "counts")
    projection.check(4 * 2**20, "counts")
    with pytest.raises(DissectError, match=r"needs 4 MiB \(maps 3 MiB, labels 1 MiB\).*may use 3 MiB"):
        projection.check(3 * 2**20, "counts")


def test_workers_that_do_not_hold_what_runs_at_once_are_refused():
    needs = Projection((("maps", 3 * 2**30), ("labels", 2**30)))
    Host("worker tcp://one:1", 8 * 2**30, 2).check(needs, "counts")
    said = (
        r"^counts: 2 tasks at once need 8\.0 GiB \(maps 3,072 MiB, labels 1,024 MiB\), worker tcp://one:1 has 7\.9 GiB"
    )
    with pytest.raises(DissectError, match=said):
        Host("worker tcp://one:1", 8 * 2**30 - 2**26, 2).check(needs, "counts")


def test_threads_by_default():
    with open_pool() as pool:
        assert isinstance(pool, Threads)
        assert pool.workers == len(os.sched_getaffinity(0))


def test_threads_are_as_many_as_the_cores_this_process_may_use():
    code = "from dissect_xr.parallel.pool import Threads; print(Threads().workers)"
    one = min(os.sched_getaffinity(0))
    found = subprocess.run(
        [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{{one}}}); {code}"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert found.stdout.split() == ["1"]
