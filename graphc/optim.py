"""Optimisers: how a parameter moves by its gradient, as functions that add nodes to a graph.

Each is a frozen dataclass. `slots` are the names of the tensors of a parameter's shape that it keeps from step to step,
zeros at first; `update` returns the parameter and the slots after a step. The learning rate f32[] and the number of the
step i64[], from 0, are values of the graph. Rules and defaults are those of torch.optim.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf, log

from graphc.errors import InputError
from graphc.ir import Builder, Value
from graphc.ops.derive import cast, fused


class Optimizer(ABC):
    """The interface of an optimiser."""

    @property
    @abstractmethod
    def slots(self) -> tuple[str, ...]:
        """The names of what is kept for each parameter."""

    @abstractmethod
    def update(self, b: Builder, p: Value, g: Value, slots: tuple[Value, ...], rate: Value, step: Value) -> list[Value]:
        """The parameter p after a step along its gradient g, and then the slots."""


@dataclass(frozen=True)
class SGD(Optimizer):
    """g += weight_decay*p; v = momentum*v + g; p -= rate*v, or with `nesterov` rate*(g + momentum*v)."""

    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise InputError(f"SGD: expected 0 <= momentum < 1, got {self.momentum}")
        if self.nesterov and not self.momentum:
            raise InputError("SGD: nesterov needs a momentum above 0")
        _check_decay("SGD", self.weight_decay)

    @property
    def slots(self) -> tuple[str, ...]:
        return ("velocity",) if self.momentum else ()

    def update(self, b: Builder, p: Value, g: Value, slots: tuple[Value, ...], rate: Value, step: Value) -> list[Value]:
        g = _decayed(b, g, p, self.weight_decay)
        if not slots:
            return [fused(b, "(x0 - (x1 * x2))", p, rate, g)]
        velocity = fused(b, f"((x0 * {self.momentum}) + x1)", slots[0], g)
        ahead = fused(b, f"(x0 + (x1 * {self.momentum}))", g, velocity) if self.nesterov else velocity
        return [fused(b, "(x0 - (x1 * x2))", p, rate, ahead), velocity]


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma and Ba 2015): p -= rate * m / (sqrt(v) + epsilon), where m and v are running means of g and g^2.

    m = beta1*m + (1-beta1)*g and v = beta2*v + (1-beta2)*g^2 begin at 0; in step t, from 1, they count 1/(1 - beta^t).
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name, beta in (("beta1", self.beta1), ("beta2", self.beta2)):
            if not 0 < beta < 1:
                raise InputError(f"{type(self).__name__}: expected 0 < {name} < 1, got {beta}")
        if not 0 < self.epsilon < inf:
            raise InputError(f"{type(self).__name__}: expected a finite epsilon above 0, got {self.epsilon}")
        _check_decay(type(self).__name__, self.weight_decay)

    @property
    def slots(self) -> tuple[str, ...]:
        return ("mean", "square")

    def update(self, b: Builder, p: Value, g: Value, slots: tuple[Value, ...], rate: Value, step: Value) -> list[Value]:
        return self._move(b, p, _decayed(b, g, p, self.weight_decay), slots, rate, step)

    def _move(self, b: Builder, p: Value, g: Value, slots: tuple[Value, ...], rate: Value, step: Value) -> list[Value]:
        mean = fused(b, f"((x0 * {self.beta1}) + (x1 * {1 - self.beta1}))", slots[0], g)
        square = fused(b, f"((x0 * {self.beta2}) + ((x1 * x1) * {1 - self.beta2}))", slots[1], g)
        # 1 - beta^t by expm1: in float32, 1 - 0.999^1 would have an error of 6e-5
        t = cast(b, step, p.type.dtype)
        grown = fused(b, f"(x0 / -expm1(((x1 + 1.0) * {log(self.beta1)})))", rate, t)
        root = fused(b, f"sqrt(-expm1(((x0 + 1.0) * {log(self.beta2)})))", t)
        moved = fused(b, f"(x0 - ((x1 * x2) / ((sqrt(x3) / x4) + {self.epsilon})))", p, grown, mean, square, root)
        return [moved, mean, square]


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019): p -= rate*weight_decay*p, apart from g."""

    weight_decay: float = 0.01

    def update(self, b: Builder, p: Value, g: Value, slots: tuple[Value, ...], rate: Value, step: Value) -> list[Value]:
        smaller = fused(b, f"(x0 * (1.0 - (x1 * {self.weight_decay})))", p, rate)
        return self._move(b, smaller, g, slots, rate, step)


def _decayed(b: Builder, g: Value, p: Value, weight_decay: float) -> Value:
    """g + weight_decay*p: the gradient of a loss with the penalty weight_decay/2 * |p|^2."""
    return fused(b, f"(x0 + (x1 * {weight_decay}))", g, p) if weight_decay else g


def _check_decay(name: str, weight_decay: float) -> None:
    if not 0 <= weight_decay < inf:
        raise InputError(f"{name}: expected a finite weight_decay of at least 0, got {weight_decay}")
