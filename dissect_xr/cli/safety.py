"""What a command does before it writes.

Knows: the choices a user has.
Does not know: how a run is locked, checked or repaired (`starting`).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Safety:
    """What a command does before it writes."""

    verify: bool = False
    """read every byte of what is finished, not only sizes and metadata"""
    break_lock: bool = False
    """take the output directory from a run that cannot be seen to be dead"""
