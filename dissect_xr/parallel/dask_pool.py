"""Runs tasks on the workers of a Dask scheduler: one that is already running, or one in local processes.

Knows: Dask's clients and futures, which workers there are, and how the loss of one or of the scheduler shows.
Does not know: what a task computes, or which tasks there are (`pool`).
"""

import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from typing import Any

from dissect_xr.errors import DissectError, Failed
from dissect_xr.parallel.guard import check_main_guard
from dissect_xr.parallel.resources import MEMORY, Host

POLL = 2.0
"""Seconds between two looks at which workers the scheduler has."""

QUICK, DEEP, SEEN = 0.02, 16, 32
"""Where the last 32 tasks took less than 0.02 s each, 16 for each that can run are in flight, not 2."""

PATIENCE = 60.0
"""Seconds that tasks wait while there is no worker to run them."""

_LOST = (
    "The connection to the Dask scheduler was lost. Finished blocks are kept: start a scheduler and workers, and give "
    "the same command again."
)

_KILLED = (
    "{times} workers died while they ran only this task. If they ran out of memory, give them more, or let tasks use "
    "less (--memory, activations.memory, batch)."
)

_GONE = (
    "its partial results were lost, again and again, with the workers that held them. What killed them is named too."
)

_NO_WORKER = "there has been no {kind}worker for {seconds:.0f} s. Finished blocks are kept: start one, and run again."


class DaskPool:
    """Runs tasks on the workers of a Dask client.

    Workers may come and go while tasks run. `workers`, `gpus` and `hosts` are what was there, or was expected, when the
    pool was made; the window of a stream follows the workers that are there.

    Parameters
    ----------
    expect, expect_gpus
        See `pool.open_pool`.
    here
        Whether the workers share the memory of this machine, without limits of their own.
    """

    def __init__(
        self, client: Any, *, memory: int = MEMORY, expect: int | None = None, expect_gpus: int = 0, here: bool = False
    ) -> None:
        if client.asynchronous or client.status != "running":
            raise DissectError(f"{client}: expected a connected client that is not asynchronous. Open another one.")
        self.client = client
        self.memory = memory
        self._cluster = _Cluster(client)
        self.workers = expect or max(1, self._cluster.threads)
        self.gpus = expect_gpus or self._cluster.gpus
        self.hosts: Sequence[Host] | None = None if here else self._cluster.hosts

    def stream(self, *, gpu: int = 0) -> "_DaskStream":
        """See `pool.Pool`."""
        there = bool(self.gpus or self._cluster.gpus)
        return _DaskStream(self.client, self._cluster, {"GPU": int(gpu)} if gpu and there else None)


class _Cluster:
    """The workers that a scheduler has, looked at again at most every `POLL` seconds.

    Of 100 workers, the addresses are known in 0.6 ms and everything else in 11 ms, which is asked for only if there is
    an address that was not there before.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._seen: dict[str, Any] = {}
        """address -> what the scheduler tells of the worker"""
        self._next = 0.0
        """when to look again"""

    @property
    def workers(self) -> dict[str, Any]:
        """Address -> description of every worker."""
        if time.monotonic() >= self._next:
            addresses = self._client.nthreads().keys()
            if addresses <= self._seen.keys():
                self._seen = {address: self._seen[address] for address in addresses}
            else:
                self._seen = self._client.scheduler_info(n_workers=-1)["workers"]
            self._next = time.monotonic() + POLL
        return self._seen

    @property
    def threads(self) -> int:
        """Tasks that run at once."""
        return sum(worker["nthreads"] for worker in self.workers.values())

    @property
    def gpus(self) -> int:
        """GPU tasks that run at once."""
        return self.gpu_tasks(1)

    def gpu_tasks(self, gpus: int) -> int:
        """Tasks that run at once if each needs so many GPUs of one worker."""
        return int(sum(worker["resources"].get("GPU", 0) // gpus for worker in self.workers.values()))

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The workers that have a memory limit."""
        return tuple(
            Host(f"worker {address}", worker["memory_limit"], worker["nthreads"], "GPU" in worker["resources"])
            for address, worker in self.workers.items()
            if worker["memory_limit"]
        )


_Call = tuple[Any, Callable[..., Any], tuple[Any, ...]]
"""Tag, function and arguments of a task."""


class _DaskStream:
    """Tasks in flight on a Dask scheduler.

    When a worker dies, Dask blames every task that the worker held, even those that had not started. A task that Dask
    gives up for this reason (`KilledWorker`) becomes a suspect. The suspects run again at the end, one at a time: a
    task whose workers die again is then the cause, and only this task fails.

    A worker that dies takes finished results with it, which Dask computes again beside whatever kills the next worker.
    Such a result may be given up as well, long after its task had succeeded. What needs it is then a `Failed` that is
    `lost`, and no suspect: whoever asked for it has to make the result again.
    """

    def __init__(self, client: Any, cluster: _Cluster, resources: dict[str, int] | None) -> None:
        self._client, self._cluster, self._resources = client, cluster, resources
        self._finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._in_flight: dict[str, tuple[_Call, Any, bool]] = {}
        """key of the future -> (call, future, whether it runs alone)"""
        self._suspects: list[_Call] = []
        self._ends = deque[float](maxlen=SEEN)
        """when the last tasks ended"""

    @property
    def window(self) -> int:
        """Twice what can run at once on the workers that are there, and more of tasks that are quick.

        The scheduler takes milliseconds to send a task and to tell of its end, which would be longer than such a task.
        At least 2: a cluster that adapts starts workers for tasks that wait, and so grows from none to 1, 2, 4 workers.
        """
        with self._scheduler():
            room = self._room
        is_quick = len(self._ends) == SEEN and (time.monotonic() - self._ends[0]) * room < QUICK * SEEN
        return max(2, (DEEP if is_quick else 2) * room)

    @property
    def _room(self) -> int:
        """How many of these tasks can run at once."""
        return self._cluster.gpu_tasks(self._resources["GPU"]) if self._resources else self._cluster.threads

    def add(self, tag: Any, function: Callable[..., Any], *args: Any) -> None:
        self._submit((tag, function, args))

    def _submit(self, call: "_Call", *, alone: bool = False) -> None:
        with self._scheduler():
            # What needs results that are there, a merge, goes before tasks that make more of them.
            priority = int(any(hasattr(arg, "key") and hasattr(arg, "status") for arg in call[2]))
            future = self._client.submit(call[1], *call[2], pure=False, resources=self._resources, priority=priority)
        self._in_flight[future.key] = call, future, alone
        future.add_done_callback(self._finished.put)

    def next(self) -> tuple[Any, Any]:
        while True:
            if not self._in_flight:
                self._submit(self._suspects.pop(), alone=True)
            future = self._wait()
            # If a finished result is lost with its worker, Dask computes it again, and the future arrives here twice.
            if future.key not in self._in_flight:
                continue
            call, _, alone = self._in_flight.pop(future.key)
            self._ends.append(time.monotonic())
            if future.status == "finished":
                return call[0], future
            if future.status in ("cancelled", "lost"):
                raise DissectError(_LOST)
            error = future.exception()
            if type(error).__name__ != "KilledWorker":
                raise error
            name = _task_name(call[0])
            if error.task != future.key:
                return call[0], Failed(f"{name}: {_GONE}", name, lost=True)
            if alone:
                return call[0], Failed(f"{name}: {_KILLED.format(times=error.allowed_failures + 1)}", name)
            self._suspects.append(call)

    def _wait(self) -> Any:
        """The next future that ends; raises if the scheduler is lost, or there is no worker for `PATIENCE` seconds."""
        idle_since = None
        while True:
            try:
                return self._finished.get(timeout=POLL)
            except queue.Empty:
                if self._client.status == "closed":
                    raise DissectError(_LOST) from None
            with self._scheduler():
                room = self._room
            if room:
                idle_since = None
            elif idle_since is None:
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > PATIENCE:
                raise DissectError(_NO_WORKER.format(seconds=PATIENCE, kind=self._kind))

    @property
    def _kind(self) -> str:
        """Which workers are waited for, in messages."""
        if not self._resources:
            return ""
        return "GPU " if self._resources["GPU"] == 1 else f"{self._resources['GPU']}-GPU "

    def result(self, handle: Any) -> Any:
        if isinstance(handle, Failed):
            return handle
        with self._scheduler():
            try:
                return handle.result()
            except Exception as error:
                if type(error).__name__ != "KilledWorker":
                    raise
                return Failed(_GONE, lost=True)

    @contextmanager
    def _scheduler(self) -> Iterator[None]:
        """Turn errors in the `with` block into one clear message if the connection to the scheduler was lost."""
        try:
            yield
        except (OSError, CancelledError) as error:  # distributed's CommClosedError is an OSError
            raise DissectError(_LOST) from error
        except Exception as error:
            if self._client.status == "running" and type(error).__name__ != "ClosedClientError":
                raise
            raise DissectError(_LOST) from error

    def cancel(self) -> None:
        futures = [future for _, future, _ in self._in_flight.values()]
        self._in_flight.clear()
        if futures and self._client.status == "running":
            self._client.cancel(futures, force=True)


def _task_name(tag: Any) -> str:
    """The name of a task for messages; `tag` is the task, or (fold, task)."""
    task = tag[1] if isinstance(tag, tuple) and len(tag) == 2 else tag
    return str(getattr(task, "what", task))


@contextmanager
def connect(factory: Any, address: str) -> Iterator[Any]:
    """A client, made by `factory`, of the scheduler at `address`."""
    try:
        client = factory(address, timeout="20s", set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise DissectError(f"{address}: no Dask scheduler answers there ({error}). Start `dask scheduler`.") from error
    try:
        yield client
    finally:
        with _quiet(client.status == "running"):
            client.close()


@contextmanager
def _quiet(connected: bool) -> Iterator[None]:
    """Silence the traceback that a client logs if it is closed while it reconnects: the error was reported already."""
    logger = logging.getLogger("distributed.client")
    before = logger.level
    try:
        if not connected:
            logger.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        logger.setLevel(before)


def _environment() -> dict[str, Any]:
    """The environment that Dask gives worker processes, with other settings of malloc.

    MALLOC_TRIM_THRESHOLD_ returns every freed array to the system, so that the next array causes page faults again:
    reading a store of 400 MB took 0.79 s with it and 0.47 s without. With one malloc arena for each of zarr's threads,
    processes that did the same work peaked between 600 and 770 MiB; with a single arena, at 630 MiB.
    """
    import dask
    import distributed  # noqa: F401  (importing it adds its settings to dask.config)

    environment = dask.config.get("distributed.nanny.pre-spawn-environ")
    kept = {name: value for name, value in environment.items() if name != "MALLOC_TRIM_THRESHOLD_"}
    return kept | {"MALLOC_ARENA_MAX": 1}


@contextmanager
def local(workers: int, gpus: int, gpus_per_worker: int = 1) -> Iterator[Any]:
    """A client of a scheduler and workers in local processes, which accept connections from this machine only."""
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    # Every Dask scheduler and worker starts an HTTP server, which cannot be turned off: it gets a free port and no
    # pages.
    local = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    common = local | {"nthreads": 1, "memory_limit": 0, "silence_logs": 40}
    specs: dict[Any, Any] = {f"cpu{i}": {"cls": Nanny, "options": common} for i in range(workers)}
    for i in range(0, gpus, gpus_per_worker):
        mine = ",".join(map(str, range(i, i + gpus_per_worker)))
        options = common | {"env": {"CUDA_VISIBLE_DEVICES": mine}, "resources": {"GPU": gpus_per_worker}}
        specs[f"gpu{i}"] = {"cls": Nanny, "options": options}
    scheduler = {"cls": Scheduler, "options": local | {"port": 0}}
    build: Any = SpecCluster  # untyped in distributed
    settings: dict[str, Any] = {f"distributed.{part}.http.routes": [] for part in ("scheduler", "worker")}
    settings["distributed.nanny.pre-spawn-environ"] = _environment()
    if dask.config.get("distributed.worker.multiprocessing-method") != "fork":
        check_main_guard()
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(settings))
        try:
            cluster = stack.enter_context(build(workers=specs, scheduler=scheduler, silence_logs=40))
        except RuntimeError as error:
            raise DissectError(
                f"{len(specs)} worker processes could not be started ({error}). What they printed says why; a "
                'script needs `if __name__ == "__main__":` around what it runs.'
            ) from error
        client = stack.enter_context(connect(Client, cluster))
        client.wait_for_workers(len(specs))
        yield client
