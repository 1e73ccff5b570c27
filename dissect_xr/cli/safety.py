"""The user's choices about what a command checks before it writes.

Knows: the choices and their defaults.
Does not know: how a run is locked, verified or repaired (`start`).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Safety:
    """What a command checks before it writes."""

    verify: bool = False
    """whether to read every byte of all finished objects, rather than only sizes and metadata"""
    break_lock: bool = False
    """whether to take the lock from a run that may be alive, because it is on another host"""
