"""Jobs that pass the same gates one after another: a gate opens for all of them before the next one does.

Knows: threads, of which only one runs at a time.
Does not know: what a gate or a job is for.

A job is a forward pass of some images, a gate is a block of the model. A forward pass cannot be stopped in the middle
but by making its thread wait. So each job has a thread, and hands the turn back when it comes to a gate or ends::

    job 1   stem | block 1 ...........| block 2 ...
    job 2         stem | block 1 .....|          block 2 ...
                        ^ opened once            ^ opened once, after all left the one before
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

Gate = Callable[[str], AbstractContextManager[None]]
"""Opens the gate of a name for the `with` block."""


class _StoppedError(Exception):
    """Ends the thread of a job after another one has failed."""


class _Job:
    """A thread that runs until it comes to a gate, and goes on when it is told to."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.at: str | None = None
        """the gate that it waits at"""
        self.error: BaseException | None = None
        self.done = False
        self._work = work
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="lockstep", daemon=True)

    def go(self) -> None:
        """Let it run until it comes to a gate or ends."""
        if not self._thread.is_alive() and not self.done:
            self._thread.start()
        self._go.release()
        self._back.acquire()

    def wait_at(self, gate: str) -> None:
        """Called by the job itself: hand the turn back, and wait for the next one."""
        self.at = gate
        self._back.release()
        self._go.acquire()
        self.at = None
        if self._stopped:
            raise _StoppedError

    def stop(self) -> None:
        """End it where it waits."""
        if self._thread.is_alive():
            self._stopped = True
            self.go()
            self._thread.join()

    def _run(self) -> None:
        _CURRENT.job = self
        self._go.acquire()
        try:
            self._work()
        except _StoppedError:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self.done = True
            self._back.release()


_CURRENT = threading.local()


def wait_at(gate: str) -> bool:
    """Wait until a gate is open, if this thread is a job's; whether it is."""
    job: _Job | None = getattr(_CURRENT, "job", None)
    if job is None:
        return False
    job.wait_at(gate)
    return True


def lockstep(works: Sequence[Callable[[], None]], gate: Gate) -> None:
    """Run all jobs to their end, one at a time, opening each gate once for all that wait at it.

    Jobs that come to other gates than the first one stay there until theirs is opened, so nothing is assumed about
    their order. The error of a job ends all of them, and is raised.
    """
    jobs = [_Job(work) for work in works]
    with _stopped_at_the_end(jobs):
        for job in jobs:
            _step(job)
        while waiting := [job for job in jobs if not job.done]:
            name = waiting[0].at
            assert name is not None  # a job that is not done waits at a gate
            with gate(name):
                for job in waiting:
                    if job.at == name:
                        _step(job)


def _step(job: _Job) -> None:
    job.go()
    if job.error is not None:
        raise job.error


@contextmanager
def _stopped_at_the_end(jobs: Sequence[_Job]) -> Iterator[None]:
    try:
        yield
    finally:
        for job in jobs:
            job.stop()
