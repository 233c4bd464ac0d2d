"""PyTorch: the graph as a module of torch.nn.functional's functions, run in the fastest of four ways."""

from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from graphc import ops
from graphc.bench.problem import Loaded, Problem
from graphc.errors import UnsupportedError
from graphc.ir import Graph, Node, Op

TRIALS = 3  # runs of each way, the fastest of which counts; the first ones of a traced module optimise it


def load(problem: Problem, threads: int) -> Loaded:
    """As it stands or traced and frozen (which folds batch norm), with maps in NCHW or NHWC ("channels last").

    torch.compile is left out: it needs a C++ compiler and minutes for a large network.
    """
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    ways: dict[str, Callable[[], Any]] = {}
    for layout, memory in (("NCHW", torch.contiguous_format), ("NHWC", torch.channels_last)):
        module = Interpreter(problem.graph(), problem.sizes).eval().to(memory_format=memory)
        inputs = [arrange(torch.from_numpy(a), memory) for a in problem.inputs]
        ways[f"eager, {layout}"] = partial(module, *inputs)
        traced = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(module, inputs)))
        ways[f"traced, {layout}"] = partial(traced, *inputs)
    best = min(ways, key=lambda name: seconds_of(ways[name]))
    chosen = ways[best]
    return Loaded(f"{torch.__version__} ({best})", lambda: [t.numpy() for t in chosen()])


def arrange(x: Any, memory: Any) -> Any:
    """Images in this order."""
    return x.contiguous(memory_format=memory) if x.ndim == 4 else x


def seconds_of(run: Callable[[], Any]) -> float:
    """Seconds of the fastest run."""
    times = []
    for _ in range(TRIALS):
        start = perf_counter()
        run()
        times.append(perf_counter() - start)
    return min(times)


class Interpreter(torch.nn.Module):  # type: ignore[misc]
    """Runs a graph node by node; UnsupportedError lists the ops that are not in `functions`."""

    functions: dict[type[Op], Callable[..., Any]]

    def __init__(self, graph: Graph, sizes: dict[str, int]) -> None:
        super().__init__()
        if missing := sorted({node.op.name for node in graph.nodes if type(node.op) not in self.functions}):
            raise UnsupportedError("no code for PyTorch", missing)
        self._graph = graph
        self._nodes: list[tuple[Node, Op]] = [(node, node.op.bind(sizes)) for node in graph.nodes]
        self._weights = {}
        for i, param in enumerate(graph.params.values()):
            self._weights[param.value] = f"weight{i}"
            self.register_buffer(f"weight{i}", torch.from_numpy(np.ascontiguousarray(param.array)))

    def forward(self, *inputs: Any) -> tuple[Any, ...]:
        """The outputs for these tensors."""
        values = dict(zip(self._graph.inputs, inputs, strict=True))
        values |= {v: getattr(self, name) for v, name in self._weights.items()}
        for node, op in self._nodes:
            result = self.functions[type(op)](op, *(values[v] for v in node.inputs))
            values |= zip(node.outputs, result if isinstance(result, tuple) else (result,), strict=True)
        return tuple(values[v] for v in self._graph.outputs)


def _pad(x: Any, padding: tuple[int, ...], value: float = 0.0) -> tuple[Any, tuple[int, int]]:
    """x and the padding that PyTorch's function is to add: it can only add the same on both sides."""
    top, left, bottom, right = padding
    if (top, left) == (bottom, right):
        return x, (top, left)
    return functional.pad(x, (left, right, top, bottom), value=value), (0, 0)


def _convolve(op: Any, x: Any, w: Any, b: Any = None) -> Any:
    x, padding = _pad(x, op.padding)
    return functional.conv2d(x, w, b, op.stride, padding, op.dilation, op.groups)


def _convolve_transposed(op: Any, x: Any, w: Any, b: Any = None) -> Any:
    top, left, bottom, right = op.padding
    if (top, left) != (bottom, right):
        raise UnsupportedError("no code for PyTorch", ["conv_transpose2d with uneven padding"])
    return functional.conv_transpose2d(x, w, b, op.stride, (top, left), op.output_padding, op.groups, op.dilation)


def _pool_maximum(op: Any, x: Any) -> Any:
    x, padding = _pad(x, op.padding, -torch.inf)
    return functional.max_pool2d(x, op.kernel, op.stride, padding, op.dilation, op.ceil_mode)


def _pool_average(op: Any, x: Any) -> Any:
    top, left, bottom, right = op.padding
    if (top, left) != (bottom, right):
        raise UnsupportedError("no code for PyTorch", ["average_pool with uneven padding"])
    return functional.avg_pool2d(x, op.kernel, op.stride, (top, left), op.ceil_mode, op.count_padding)


def _slice(op: Any, x: Any) -> Any:
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(op.axes, op.starts, op.ends, op.steps, strict=True):
        index[axis] = slice(start, end, step)
    return x[tuple(index)]


# The ops of the networks that are measured. Epilogues come from passes, which PyTorch's graph does not go through.
FUNCTIONS: dict[type[Op], Callable[..., Any]] = {
    ops.Conv2d: _convolve,
    ops.ConvTranspose2d: _convolve_transposed,
    ops.Linear: lambda op, x, w, b=None: functional.linear(x, w, b),
    ops.BatchNorm: lambda op, x, scale, bias, mean, variance: functional.batch_norm(
        x, mean, variance, scale, bias, eps=op.epsilon
    ),
    ops.MaxPool: _pool_maximum,
    ops.AveragePool: _pool_average,
    ops.GlobalAveragePool: lambda op, x: functional.adaptive_avg_pool2d(x, 1),
    ops.Relu: lambda op, x: torch.relu(x),
    ops.Tanh: lambda op, x: torch.tanh(x),
    ops.Sigmoid: lambda op, x: torch.sigmoid(x),
    ops.Clip: lambda op, x: functional.hardtanh(x, float(op.minimum), float(op.maximum)),
    ops.Softmax: lambda op, x: torch.softmax(x, op.axis),
    ops.Add: lambda op, a, b: a + b,
    ops.Mul: lambda op, a, b: a * b,
    ops.Concat: lambda op, *x: torch.cat(x, op.axis),
    ops.Split: lambda op, x: torch.split(x, list(op.sizes), op.axis),
    ops.Slice: _slice,
    ops.Flatten: lambda op, x: torch.flatten(x, op.axis),
    ops.Reshape: lambda op, x: x.reshape(op.shape),
    ops.Transpose: lambda op, x: x.permute(op.perm),
    ops.Dropout: lambda op, x: x,
    ops.Identity: lambda op, x: x,
}  # fmt: skip
Interpreter.functions = FUNCTIONS
