"""Learning rates over time: each schedule is a frozen dataclass that, called with the number of a step, gives its rate.

Steps count from 0. A schedule that depends on the whole length of the training takes it as `steps`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import cos, inf, pi

from graphc.errors import InputError


class Schedule(ABC):
    """The interface of a schedule."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The rate of this step."""


@dataclass(frozen=True)
class Constant(Schedule):
    """The same rate in all steps."""

    rate: float

    def __post_init__(self) -> None:
        _check_rate(self.rate)

    def __call__(self, step: int) -> float:
        return self.rate


@dataclass(frozen=True)
class Steps(Schedule):
    """rate * factor^(step // every): a staircase (He et al. 2016 divide by 10 after each 30 epochs)."""

    rate: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        _check_rate(self.rate)
        if self.every < 1 or not 0 < self.factor < inf:
            raise InputError(f"schedule: expected every >= 1 and factor > 0, got {self.every} and {self.factor}")

    def __call__(self, step: int) -> float:
        return float(self.rate * self.factor ** (step // self.every))


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from `rate` down to `end` in `steps` steps (Loshchilov and Hutter 2017, without restarts)."""

    rate: float
    steps: int
    end: float = 0.0

    def __post_init__(self) -> None:
        _check_rate(self.rate)
        if self.steps < 1 or not 0 <= self.end <= self.rate:
            raise InputError(f"schedule: expected steps >= 1 and 0 <= end <= rate, got {self.steps} and {self.end}")

    def __call__(self, step: int) -> float:
        return self.end + (self.rate - self.end) * (1 + cos(pi * min(step / self.steps, 1))) / 2


@dataclass(frozen=True)
class WarmUp(Schedule):
    """The first `steps` steps rise evenly, up to what `then` begins with; after them it goes its way, from 0 on."""

    then: Schedule
    steps: int

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise InputError(f"schedule: expected at least 0 steps of warm-up, got {self.steps}")

    def __call__(self, step: int) -> float:
        if step < self.steps:
            return self.then(0) * (step + 1) / (self.steps + 1)
        return self.then(step - self.steps)


def _check_rate(rate: float) -> None:
    if not 0 < rate < inf:
        raise InputError(f"learning rate: expected a finite number above 0, got {rate}")
