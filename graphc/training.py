"""A step of training as one graph: forward, loss, backward, update."""

from dataclasses import replace

from graphc import ops
from graphc.errors import GraphError
from graphc.grad import PREFIX, gradient
from graphc.ir import DType, Graph, TensorType, Value
from graphc.optim import Optimizer
from graphc.passes.enter_training import NEXT, STEP

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


def training_step(graph: Graph, optimizer: Optimizer, loss: str | None = None) -> Graph:
    """`graph`, one of whose outputs is `loss` (None: the first), with a step of the optimiser for what is trainable.

    Inputs: those of `graph`; then all that changes, by name: the trainable parameters, and the running statistics if
    `graph` comes from enter_training; then `learning_rate` f32[], `step` i64[], which counts from 0, and for each
    trainable parameter the optimiser's slots `PARAMETER.SLOT`. Outputs: those of `graph`, and `NAME.next` for all that
    changes. Nothing else is kept between two steps, so the next one is given the `.next` of this one.
    """
    trained = [p.value.name for p in graph.params.values() if p.trainable]
    if not trained:
        raise GraphError(f"network '{graph.name}': expected trainable parameters, got none")
    differentiated = gradient(graph, loss, trained)
    names = [*trained, *(name for name in graph.params if f"{name}{NEXT}" in graph.output_names)]
    lifted = replace(
        differentiated,
        inputs=(*differentiated.inputs, *(differentiated.params[n].value for n in names)),
        params={n: p for n, p in differentiated.params.items() if n not in names},
    )
    b, new = lifted.reopen(name=f"{graph.name}.step")
    inputs = {v.name: new[v] for v in lifted.inputs}
    rate = b.input(RATE, TensorType(DType.F32, ()))
    step = inputs[STEP] if STEP in inputs else b.input(STEP, TensorType(DType.I64, ()))
    outputs = {name: new[v] for name, v in zip(lifted.output_names, lifted.outputs, strict=True)}
    results: dict[str, Value] = {n: v for n, v in outputs.items() if not n.startswith(PREFIX)}
    for name in trained:
        slots = tuple(b.input(f"{name}.{slot}", inputs[name].type) for slot in optimizer.slots)
        moved = optimizer.update(b, inputs[name], outputs[f"{PREFIX}{name}"], slots, rate, step)
        results |= zip((f"{v.name}{NEXT}" for v in (inputs[name], *slots)), moved, strict=True)
    return b.build(**results)
