"""Runs a recipe again and again in a process of its own, while something else goes on.

Knows: that one run at a time is enough, since each does all that is there by then.
Does not know: recipes, or what is dissected.
"""

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from dissect_xr.errors import DissectError

NICE = 10
"""How much the process gives way to the training."""

LINES = 20
"""Last lines of its output that an error shows."""


class Background:
    """Gives the command `dissect-xr run` whenever it is asked to, one process at a time."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._command = [sys.executable, "-m", "dissect_xr", "run", *arguments]
        self._asked, self._closed = threading.Event(), threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._code, self._said = 0, ""
        self.runs = 0
        """processes that ended"""
        self._thread = threading.Thread(target=self._work, name="dissect-xr", daemon=True)
        self._thread.start()

    def ask(self) -> None:
        """Run as soon as the process that runs now ends, if there is one."""
        self._asked.set()

    def close(self) -> None:
        """Wait for all that was asked for.

        Raises
        ------
        DissectError
            If the last run failed, with the end of what it printed.
        """
        self._closed.set()
        self._asked.set()
        self._thread.join()
        if self._code:
            raise DissectError(
                f"the dissection in the background ended with exit code {self._code}. Snapshots are kept; "
                f"`dissect-xr run {' '.join(self._command[4:])}` goes on. It said:\n{self._said}"
            )

    def stop(self) -> None:
        """End the process that runs now, and start no other; finished blocks are kept."""
        self._closed.set()
        if self._process is not None:
            self._process.terminate()
        self._asked.set()
        self._thread.join()

    @property
    def is_running(self) -> bool:
        """Whether something is, or may still be, done."""
        return self._thread.is_alive()

    def _work(self) -> None:
        asked_before_close = True
        while asked_before_close:
            self._asked.wait()
            self._asked.clear()
            asked_before_close = not self._closed.is_set()
            self._run()

    def _run(self) -> None:
        with subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            self._process = process
            with suppress(OSError, AttributeError):  # not everywhere, and not if it has ended already
                os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
            last = deque(process.stderr or (), maxlen=LINES)
        self._code, self._said = process.returncode, "".join(last)
        self.runs += 1
