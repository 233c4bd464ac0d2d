"""PyTorch training: the graph as torch.nn.functional's functions, differentiated by autograd, in the fastest way."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from graphc import ops
from graphc.bench.peers.torch import FUNCTIONS, Interpreter, arrange, seconds_of
from graphc.bench.problem import MOMENTUM, Loaded, Problem
from graphc.ir import Graph, Op

TRAINING: dict[type[Op], Callable[..., Any]] = {
    ops.BatchNorm: lambda op, x, scale, bias, mean, variance: functional.batch_norm(
        x, mean, variance, scale, bias, training=True, eps=op.epsilon
    ),
    ops.SoftmaxCrossEntropy: lambda op, x, labels: functional.cross_entropy(x, labels),
}  # fmt: skip


def load_step(problem: Problem, threads: int) -> Loaded:
    """A step of SGD, its loop over parameters in Python or fused, with maps in NCHW or NHWC."""
    ways: dict[str, Callable[[], Any]] = {}
    for layout, module, inputs in _modules(problem, threads):
        for kind, fused in (("foreach", None), ("fused", True)):
            optimizer = torch.optim.SGD(module.parameters(), lr=0.0, momentum=MOMENTUM, fused=fused)
            ways[f"{kind}, {layout}"] = partial(_step, module, optimizer, inputs)
    return _fastest(ways)


def load_forward(problem: Problem, threads: int) -> Loaded:
    """The forward half, with what autograd writes down for the other."""
    return _fastest({layout: partial(module, *inputs) for layout, module, inputs in _modules(problem, threads)})


def _modules(problem: Problem, threads: int) -> list[tuple[str, Any, list[Any]]]:
    torch.set_num_threads(threads)
    found = []
    for layout, memory in (("NCHW", torch.contiguous_format), ("NHWC", torch.channels_last)):
        module = TrainedInterpreter(problem.graph(), problem.sizes).to(memory_format=memory)
        found.append((layout, module, [arrange(torch.from_numpy(a), memory) for a in problem.inputs]))
    return found


def _fastest(ways: dict[str, Callable[[], Any]]) -> Loaded:
    best = min(ways, key=lambda name: seconds_of(ways[name]))
    chosen = ways[best]
    return Loaded(f"{torch.__version__} ({best})", lambda: [t.detach().numpy() for t in chosen()])


def _step(module: Any, optimizer: Any, inputs: list[Any]) -> Any:
    optimizer.zero_grad()
    outputs = module(*inputs)
    outputs[0].backward()
    optimizer.step()
    return outputs


class TrainedInterpreter(Interpreter):
    """Runs a graph whose trainable parameters get gradients, its batch norms in training."""

    functions = FUNCTIONS | TRAINING

    def __init__(self, graph: Graph, sizes: dict[str, int]) -> None:
        super().__init__(graph, sizes)
        for param in graph.params.values():
            if param.trainable:
                name = self._weights[param.value]
                data = getattr(self, name)
                delattr(self, name)
                self.register_parameter(name, torch.nn.Parameter(data))
