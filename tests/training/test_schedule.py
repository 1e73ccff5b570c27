"""Which steps have a snapshot."""

import pytest

from dissect_xr.errors import DissectError
from dissect_xr.training.schedule import is_due


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        ("log", [0, 1, 3, 10, 30, 100, 300]),
        (100, [0, 100, 200, 300, 400]),
        ([0, 7, 450], [0, 7, 450]),
        (range(0, 500, 250), [0, 250]),
        (lambda step: step in (2, 4), [2, 4]),
    ],
)
def test_steps_by_hand(schedule, steps):
    assert [step for step in range(500) if is_due(schedule)(step)] == steps


@pytest.mark.parametrize("schedule", ["linear", 0, -3, None, True, 2.5])
def test_what_is_no_schedule_is_refused(schedule):
    with pytest.raises(DissectError, match=r"expected 'log', a number of steps"):
        is_due(schedule)
