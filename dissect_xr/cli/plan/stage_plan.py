"""The plan of one stage of a run: what it will write, and what a task of it needs.

Knows: what a dry run prints.
Does not know: any stage (`dry_run`, `derived.plan`).
"""

from dataclasses import dataclass

from dissect_xr.parallel.resources import Projection


@dataclass(frozen=True)
class StagePlan:
    """The plan of one stage."""

    name: str
    tasks: int
    disk: int
    """largest number of bytes written, as if nothing could be compressed"""
    objects: int
    """objects written, markers among them"""
    memory: Projection
    """memory of one task, with that of the worker process"""
    at_once: int
    """number of tasks that run at the same time on this machine"""
    note: str = ""
    """what else is to be said of it"""
