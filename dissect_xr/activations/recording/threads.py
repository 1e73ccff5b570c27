"""Torch's own settings of a task: how many threads it uses, and the dtype that it computes in.

Knows: torch.
Does not know: which task it is.
"""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch


def autocast(device: str, dtype: str | None) -> AbstractContextManager[Any]:
    """`torch.autocast` to a dtype on a device; None for no autocast."""
    if dtype is None:
        return nullcontext()
    return torch.autocast(device.partition(":")[0], dtype=getattr(torch, dtype))


class _TorchThreads:
    """Torch's number of threads, as set by tasks that may overlap in time on several threads.

    Torch keeps a number per thread, and one for threads that have none yet; setting it sets both. A task that begins on
    a new thread while another one runs would thus find that task's number, and leave it behind. So the first of the
    tasks that overlap notes the number, and each of them restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks = 0
        self._before = 0
        """the number that the first of the tasks found"""

    @contextmanager
    def set_to(self, threads: int | None) -> Iterator[None]:
        """Set the number inside the `with` block; None sets the number that there was before all tasks."""
        with self._lock:
            if not self._tasks:
                self._before = torch.get_num_threads()
            torch.set_num_threads(threads or self._before)
            self._tasks += 1
        try:
            yield
        finally:
            with self._lock:
                self._tasks -= 1
                torch.set_num_threads(self._before)


torch_threads = _TorchThreads().set_to
