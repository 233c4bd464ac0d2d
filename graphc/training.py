"""A step of training as one graph, forward, loss, backward, update; or as two, with the gradients between them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from math import inf

from graphc import ops
from graphc.errors import GraphError, InputError
from graphc.grad import PREFIX, gradient
from graphc.ir import NEXT, Builder, DType, Graph, TensorType, Value
from graphc.ops.derive import add, cast, fused
from graphc.optim import Optimizer
from graphc.passes.enter_training import STEP

RATE = "learning_rate"


def add_cross_entropy(graph: Graph) -> Graph:
    """A classifier with its loss: the outputs `loss`, the softmax cross-entropy of the first output, then all others.

    A further input `labels` i64[N,...] holds the class of each sample, from 0 to K-1.
    """
    b, new = graph.reopen()
    logits = new[graph.outputs[0]]
    labels = b.input("labels", TensorType(DType.I64, (*logits.type.shape[:1], *logits.type.shape[2:])))
    outputs = {name: new[v] for name, v in zip(graph.output_names, graph.outputs, strict=True)}
    return b.build(**{"loss": b.apply(ops.SoftmaxCrossEntropy(), logits, labels), **outputs})


def training_step(graph: Graph, optimizer: Optimizer, loss: str | None = None, clip: float | None = None) -> Graph:
    """`graph`, one of whose outputs is `loss` (None: the first), with a step of the optimiser for what is trainable.

    Inputs: those of `graph`; then all that changes, by name: the trainable parameters, and the running statistics if
    `graph` comes from enter_training; then `learning_rate` f32[], `step` i64[], which counts from 0, and for each
    trainable parameter the optimiser's slots `PARAMETER.SLOT`. Outputs: those of `graph`, and `NAME.next` for all that
    changes. Nothing else is kept between two steps, so the next one is given the `.next` of this one; compiled code
    takes the same address for both. With `clip`, all gradients are scaled so that their norm, of all of them together,
    is at most that (PyTorch's clip_grad_norm_).
    """
    backward = gradient_step(graph, loss)
    b, new = backward.reopen(name=f"{graph.name}.step")
    results = {name: new[v] for name, v in zip(backward.output_names, backward.outputs, strict=True)}
    inputs = {v.name: new[v] for v in backward.inputs}
    trained = {n: inputs[n] for n in trainable(graph)}
    gradients = [results.pop(f"{PREFIX}{name}") for name in trained]
    results |= _update(b, optimizer, clip, trained, gradients, inputs.get(STEP))
    return b.build(**results)


def gradient_step(graph: Graph, loss: str | None = None) -> Graph:
    """The first half of training_step: outputs `grad.PARAMETER` in the place of the parameters' `.next`."""
    trained = trainable(graph)
    differentiated = gradient(graph, loss, trained)
    names = [*trained, *(name for name in graph.params if f"{name}{NEXT}" in graph.output_names)]
    return replace(lift_params(differentiated, names), name=f"{graph.name}.gradients")


def update_step(graph: Graph, optimizer: Optimizer, clip: float | None = None) -> Graph:
    """The second half of training_step, which also has the gradients `grad.PARAMETER` as inputs, the first ones."""
    types = {name: graph.params[name].value.type for name in trainable(graph)}
    b = Builder(f"{graph.name}.update")
    gradients = [b.input(f"{PREFIX}{name}", type) for name, type in types.items()]
    trained = {name: b.input(name, type) for name, type in types.items()}
    return b.build(**_update(b, optimizer, clip, trained, gradients, None))


def trainable(graph: Graph) -> list[str]:
    """The names of the parameters that training changes; GraphError if there are none."""
    names = [name for name, p in graph.params.items() if p.trainable]
    if not names:
        raise GraphError(f"network '{graph.name}': expected trainable parameters, got none")
    return names


def lift_params(graph: Graph, names: Sequence[str]) -> Graph:
    """The graph with these parameters as further inputs; those that it has lost stay away."""
    return replace(
        graph,
        inputs=(*graph.inputs, *(graph.params[n].value for n in names if n in graph.params)),
        params={n: p for n, p in graph.params.items() if n not in names},
    )


def _update(
    b: Builder,
    optimizer: Optimizer,
    clip: float | None,
    trained: Mapping[str, Value],
    gradients: Sequence[Value],
    step: Value | None,
) -> dict[str, Value]:
    """The `.next` of every parameter and slot. The rate, the step if there is none, and the slots become inputs."""
    rate = b.input(RATE, TensorType(DType.F32, ()))
    step = step or b.input(STEP, TensorType(DType.I64, ()))
    if clip is not None:
        gradients = _clip(b, gradients, clip)
    results: dict[str, Value] = {}
    for (name, p), g in zip(trained.items(), gradients, strict=True):
        slots = tuple(b.input(f"{name}.{slot}", p.type) for slot in optimizer.slots)
        moved = optimizer.update(b, p, g, slots, rate, step)
        results |= zip((f"{v.name}{NEXT}" for v in (p, *slots)), moved, strict=True)
    return results


def _clip(b: Builder, gradients: Sequence[Value], clip: float) -> list[Value]:
    """All gradients times min(1, clip / (norm + 1e-6)), where the norm is that of all of them as one vector."""
    if not 0 < clip < inf:
        raise InputError(f"clip: expected a finite norm above 0, got {clip}")
    dtype = gradients[0].type.dtype
    squares = [cast(b, b.apply(ops.L2Penalty(2.0), g), dtype) for g in gradients]  # 2.0/2 * the sum of squares
    total = reduce(lambda x, y: add(b, x, y), squares)
    scale = fused(b, f"min(1.0, ({float(clip)} / (sqrt(x0) + 1e-06)))", total)
    return [fused(b, "(x0 * x1)", g, cast(b, scale, g.type.dtype)) for g in gradients]
