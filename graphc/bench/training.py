"""Measuring a step of training, forward, backward and update, and its forward half alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from graphc import ops
from graphc.bench.comparison import ROUNDS, SECONDS, compare
from graphc.bench.figures import Comparison
from graphc.bench.runtimes import TRAINERS, TRAINING, Peer
from graphc.errors import InputError
from graphc.ir import Builder, Graph, Node, Value
from graphc.passes.enter_training import enter_training
from graphc.training import add_cross_entropy


@dataclass(frozen=True)
class Halves:
    """The same runtimes over whole steps, and over what a step begins with."""

    step: Comparison
    forward: Comparison

    def backward_ratios(self) -> dict[str, float]:
        """Runtime -> its time for backward and update ÷ that for forward, of medians."""
        forward = {m.runtime: m.median for m in self.forward.measurements}
        steps = {m.runtime: m.median for m in self.step.measurements}
        return {name: steps[name] / forward[name] - 1 for name in steps if name in forward}

    def to_json(self) -> dict[str, Any]:
        """All of it as numbers, texts, lists and dicts."""
        return {"step": self.step.to_json(), "forward": self.forward.to_json(), "backward": self.backward_ratios()}


def find_trainers(names: tuple[str, ...]) -> list[str]:
    """Those of these names that can be measured while they train. Errors: InputError."""
    for name in names:
        if name not in TRAINERS:
            raise InputError(f"--against: expected some of {', '.join(TRAINERS)} with --training, got '{name}'")
    return list(dict.fromkeys(names))


def compare_training(
    graph: Graph,
    sizes: Mapping[str, int],
    names: Sequence[str],
    threads: Sequence[int],
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Halves]:
    """For each number of threads, a step of SGD with momentum on a batch of random images and labels.

    The loss is the softmax cross-entropy of the first output. Batch norm is in training; dropouts are left out, since
    every runtime draws their bits from a generator of its own. The learning rate is 0, which costs the same as any, so
    that the outputs stay those of the first step and can be compared with float64.
    """
    loss = add_cross_entropy(graph.rewrite(_drop_nothing))

    def measure(part: str, own: Peer, peers: list[Peer]) -> list[Comparison]:
        named = replace(loss, name=f"{graph.name} {part}")
        reference = enter_training(loss)
        return compare(named, sizes, peers, threads, rounds, seconds, tell, own, reference)

    halves = [measure(part, TRAINING[part], [TRAINERS[name][part] for name in names]) for part in ("step", "forward")]
    return [Halves(step, forward) for step, forward in zip(*halves, strict=True)]


def _drop_nothing(b: Builder, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
    return inputs if isinstance(node.op, ops.Dropout) else None
