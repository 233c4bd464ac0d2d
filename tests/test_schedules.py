"""Learning rates over the steps."""

from math import nan

import pytest

from graphc.errors import InputError
from graphc.schedules import Constant, Cosine, Schedule, Steps, WarmUp


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (Constant(0.1), {0: 0.1, 1000: 0.1}),
        (Steps(0.1, 30), {0: 0.1, 29: 0.1, 30: 0.01, 90: 1e-4}),
        (Steps(0.1, 2, 0.5), {1: 0.1, 2: 0.05, 5: 0.025}),
        (Cosine(0.2, 100), {0: 0.2, 25: 0.1 + 0.1 * 0.5**0.5, 50: 0.1, 100: 0.0, 150: 0.0}),
        (Cosine(0.2, 100, end=0.1), {0: 0.2, 50: 0.15, 100: 0.1}),
        (WarmUp(Constant(0.3), 2), {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.3}),
        (WarmUp(Cosine(0.2, 10), 4), {0: 0.04, 3: 0.16, 4: 0.2, 9: 0.1, 14: 0.0}),
        (WarmUp(Constant(0.3), 0), {0: 0.3}),
    ],
)
def test_rates(schedule: Schedule, rates: dict[int, float]) -> None:
    assert {step: schedule(step) for step in rates} == pytest.approx(rates, abs=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(0.0), "learning rate: expected a finite number above 0, got 0.0"),
        (lambda: Cosine(nan, 3), "learning rate: expected a finite number above 0, got nan"),
        (lambda: Cosine(0.1, 0), "expected steps >= 1 and 0 <= end <= rate, got 0 and 0.0"),
        (lambda: Cosine(0.1, 5, 0.2), "expected steps >= 1 and 0 <= end <= rate, got 5 and 0.2"),
        (lambda: Steps(0.1, 0), "expected every >= 1 and factor > 0, got 0 and 0.1"),
        (lambda: WarmUp(Constant(1.0), -1), "expected at least 0 steps of warm-up, got -1"),
    ],
)
def test_refusals(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(InputError, match=message):
        make()
