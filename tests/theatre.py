"""A run as separate processes, each of which can be killed: scheduler, workers, client.

Knows: how to start them, to wait for a moment of the run, and to send SIGKILL.
Does not know: what must come out (`runs.contents`).

The processes are forked from one that has imported what they need: a round starts five to ten of them, and each would
take one to three seconds of a core for its imports, more than what it does in the run.
"""

import json
import multiprocessing
import os
import sys
import time
import warnings
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from unittest.mock import patch

from checkout import ROOT

from dissect_xr.store import objects

IMPORTED = (
    "distributed.cli.dask_scheduler",
    "distributed.cli.dask_worker",
    "dissect_xr.cli.main",
    "dissect_xr.cli.run",
    "dissect_xr.cli.outcome",
    "dissect_xr.cli.summary",
    "dissect_xr.cli.plan.dry_run",
    "dissect_xr.cli.experiments",
    "dissect_xr.dissection.dissect",
    "dissect_xr.activations.extract",
    "dissect_xr.plot.figures",
    "obstore.store",
    "torch._dynamo",  # which torch itself imports when the geometry of a layer is traced
)
"""What the processes are forked with; what cannot be imported is left out."""

WORKERS = ("gpu", "plain")
"""Names of the workers; the first offers {"GPU": 1}."""

START = 60.0
"""Seconds that the processes may take to find each other."""


@dataclass
class Theatre:
    """Processes of one round."""

    folder: Path
    """for the scheduler's file and logs"""
    environ: dict[str, str]
    processes: dict[str, ForkServerProcess] = field(default_factory=dict)

    @property
    def address(self) -> Path:
        """The scheduler's file."""
        return self.folder / "scheduler.json"

    def start_cluster(self) -> None:
        """Start whichever of scheduler and workers is not running."""
        if not self.running("scheduler"):
            for name in WORKERS:
                self.kill(name)
            self.address.unlink(missing_ok=True)
            self._dask("scheduler", "dask_scheduler", "--host", "127.0.0.1", "--port", "0")
        for name in WORKERS:
            if not self.running(name):
                offer = ("--resources", "GPU=1") if name == "gpu" else ()
                threads = ("--no-nanny", "--nthreads", "1", "--death-timeout", "60")
                self._dask(name, "dask_worker", *threads, "--host", "127.0.0.1", *offer)

    def _dask(self, name: str, module: str, *options: str) -> None:
        quiet = ("--no-dashboard", "--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(self.address))
        self._start(name, f"distributed.cli.{module}", *quiet, *options)

    def start_client(self, arguments: list[str]) -> None:
        """Start the command with this cluster."""
        deadline = time.monotonic() + START
        while not (self.address.exists() and self.address.stat().st_size):
            assert time.monotonic() < deadline, "the scheduler did not start"
            time.sleep(0.02)
        address = json.loads(self.address.read_text())["address"]
        self._start("client", "client", "run", *arguments, "--quiet", "--scheduler", address)

    def _start(self, name: str, module: str, *arguments: str) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(IMPORTED))
        call = (module, arguments, self.environ, self.folder, self.folder / f"{name}.log")
        process = context.Process(target=run_command, args=call)
        with patch.dict(os.environ, self.environ):  # of the process that imports: torch reads it then
            process.start()
        self.processes[name] = process

    def running(self, name: str) -> bool:
        """Whether a process was started and has not ended."""
        return name in self.processes and self.processes[name].exitcode is None

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.running(name):
            self.processes[name].kill()
            self.processes[name].join(20)
            assert not self.running(name), f"{name} outlives SIGKILL"

    def wait(self, seconds: float) -> int:
        """The client's exit code; raises `TimeoutError` where it has not ended by then."""
        self.processes["client"].join(seconds)
        code = self.processes["client"].exitcode
        if code is None:
            raise TimeoutError(f"the client has not ended in {seconds:.0f} s")
        return code

    def log(self, name: str) -> str:
        """What a process said."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self) -> None:
        """Kill all."""
        for name in list(self.processes):
            self.kill(name)


def run_command(module: str, arguments: tuple[str, ...], environ: dict[str, str], folder: Path, log: Path) -> None:
    """Be the command line of a module, in `folder` and with this environment; what it says is added to `log`."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    warnings.simplefilter(environ["PYTHONWARNINGS"])  # read from the environment only when Python starts
    sys.argv = [module, *arguments]
    import_module(module).main()


def environment(**extra: str) -> dict[str, str]:
    """Of every process of a round."""
    quiet = {"DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "error", "PYTHONWARNINGS": "default", "OMP_NUM_THREADS": "1"}
    return os.environ | {"PYTHONPATH": str(ROOT)} | quiet | extra


def marked(out: str) -> dict[str, tuple[int, str]]:
    """Marker -> (crc32c, when it was written) of every finished block."""
    found = {}
    if objects.is_local(out):
        for path in Path(out, "markers").rglob("*.json"):
            stat = path.stat()
            found[path.relative_to(out).as_posix()] = (objects.checksum(path.read_bytes()), str(stat.st_mtime_ns))
    else:
        import obstore

        for item in obstore.list(objects.open_store(out).store, "markers/").collect():
            data = objects.read(out, item["path"]) or b""
            found[item["path"]] = (objects.checksum(data), str(item["last_modified"]))
    return found
