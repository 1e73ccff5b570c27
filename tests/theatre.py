"""A run as separate processes, each of which can be killed: scheduler, workers, client.

Knows: how to start them, to wait for a moment of the run, and to send SIGKILL.
Does not know: what must come out (`runs.contents`).
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from checkout import ROOT

from dissect_xr.store import objects

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
    processes: dict[str, subprocess.Popen] = field(default_factory=dict)

    @property
    def address(self) -> Path:
        """The scheduler's file."""
        return self.folder / "scheduler.json"

    def start_cluster(self) -> None:
        """Start whichever of scheduler and workers is not running."""
        if not self._alive("scheduler"):
            for name in WORKERS:
                self.kill(name)
            self.address.unlink(missing_ok=True)
            self._dask("scheduler", "dask_scheduler", "--host", "127.0.0.1", "--port", "0")
        for name in WORKERS:
            if not self._alive(name):
                offer = ("--resources", "GPU=1") if name == "gpu" else ()
                threads = ("--no-nanny", "--nthreads", "1", "--death-timeout", "60")
                self._dask(name, "dask_worker", *threads, "--host", "127.0.0.1", *offer)

    def _dask(self, name: str, module: str, *options: str) -> None:
        command = [
            sys.executable,
            "-m",
            f"distributed.cli.{module}",
            "--no-dashboard",
            "--dashboard-address",
            "127.0.0.1:0",
        ]
        self._start(name, [*command, "--scheduler-file", str(self.address), *options])

    def start_client(self, arguments: list[str]) -> None:
        """Start the command with this cluster."""
        import json

        deadline = time.monotonic() + START
        while not (self.address.exists() and self.address.stat().st_size):
            assert time.monotonic() < deadline, "the scheduler did not start"
            time.sleep(0.05)
        address = json.loads(self.address.read_text())["address"]
        command = [
            sys.executable,
            str(ROOT / "tests" / "client.py"),
            "run",
            *arguments,
            "--quiet",
            "--scheduler",
            address,
        ]
        self._start("client", command)

    def _start(self, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.log").open("a") as log:
            self.processes[name] = subprocess.Popen(command, env=self.environ, cwd=self.folder, stdout=log, stderr=log)

    def _alive(self, name: str) -> bool:
        return name in self.processes and self.processes[name].poll() is None

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._alive(name):
            self.processes[name].send_signal(signal.SIGKILL)
            self.processes[name].wait(20)

    def wait(self, seconds: float) -> int:
        """The client's exit code."""
        return self.processes["client"].wait(seconds)

    def log(self, name: str) -> str:
        """What a process said."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self) -> None:
        """Kill all."""
        for name in list(self.processes):
            self.kill(name)


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
