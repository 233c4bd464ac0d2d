"""Scale weights once, at compile time, instead of activations in every run."""

from dataclasses import dataclass, replace

import numpy as np

from graphc.ir import Array, Builder, Graph, Node, Op, Param, Value
from graphc.ops import Add, BatchNorm, Conv2d, ConvTranspose2d, Div, Fused, Linear, Mul, Sub

LAYERS = Conv2d | ConvTranspose2d | Linear
quiet = np.errstate(all="ignore")  # statistics that overflow make infinite and NaN results, and no warnings


@dataclass(frozen=True)
class Affine:
    """y = scale*x + shift, with a float64 number for each channel in both."""

    scale: Array
    shift: Array


@quiet
def fold_batch_norm(graph: Graph) -> Graph:
    """Fold batch norms, and products and sums with constants for each channel, into the layer before them.

    With y = W*x + b and z = s*y + t for each output channel, z = (s*W)*x + (s*b + t). A batch norm is s = scale /
    sqrt(variance + epsilon), t = bias - s*mean. Several in a row are composed. All of this is computed in float64 and
    rounded once. A batch norm behind anything else becomes one multiplication and one addition.

    rewrite: y = conv2d(x, W, b); z = batch_norm(y, ...) -> z = conv2d(x, W', b')
             z = batch_norm(y, ...)                      -> z = fused(y, s, t, expr="((x0 * x1) + x2)")
    checks: weight, bias and statistics are parameters; nothing else reads y, and it is not an output; the layer has no
            epilogue; a constant is one number for each channel, or one for all
    """
    folds = {node: fold for node in graph.nodes if (fold := _find_fold(graph, node))}
    absorbed = {member for _, chain in folds.values() for member in chain}

    def rule(builder: Builder, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if node in absorbed:  # its input is what the folded layer returned: the result of the whole chain
            return tuple(new for old, new in zip(node.inputs, inputs, strict=True) if old not in graph.constants)
        if node in folds:
            affine, chain = folds[node]
            weight, *bias = (graph.constants[v] for v in node.inputs[1:])
            w = builder.derive(  # a summary needs none of the large arrays
                builder.fresh(f"{node.name}.weight"),
                lambda: _scale_weight(node.op, weight.array, affine.scale),
                weight.value.type,
            )
            shifted = affine.scale * bias[0].array + affine.shift if bias else affine.shift
            b = builder.constant(shifted.astype(weight.value.type.dtype.numpy), f"{node.name}.bias")
            op = replace(node.op, bias=True)  # type: ignore[type-var]  # each of LAYERS has this field
            return builder.add(op, (inputs[0], w, b), node.name, [chain[-1].outputs[0].name])
        if isinstance(node.op, BatchNorm) and (alone := _read_affine(graph, node, node.inputs[0])):
            return _add_affine(builder, node, inputs[0], alone)
        return None

    return graph.rewrite(rule)


def _find_fold(graph: Graph, node: Node) -> tuple[Affine, list[Node]] | None:
    """What is done to a layer's result channel by channel, and the nodes that do it; None if there are none."""
    op, value = node.op, node.outputs[0]
    if not isinstance(op, LAYERS) or op.epilogue is not None or not all(v in graph.constants for v in node.inputs[1:]):
        return None
    if isinstance(op, Linear) and value.type.rank != 2:  # its channels are the last axis, those of a batch norm axis 1
        return None
    channels = value.type.shape[1]
    assert isinstance(channels, int)
    total, chain = Affine(np.ones(channels), np.zeros(channels)), []
    while value not in graph.outputs and len(consumers := graph.consumers.get(value, [])) == 1:
        step = _read_affine(graph, consumers[0], value)
        if step is None:
            break
        total = Affine(step.scale * total.scale, step.scale * total.shift + step.shift)
        chain.append(consumers[0])
        (value,) = consumers[0].outputs
    return (total, chain) if chain else None


def _add_affine(builder: Builder, node: Node, x: Value, affine: Affine) -> tuple[Value, ...]:
    """scale*x + shift as one node."""
    dtype, shape = x.type.dtype.numpy, (-1, *[1] * (x.type.rank - 2))
    scale = builder.constant(affine.scale.astype(dtype).reshape(shape), f"{node.name}.scale")
    shift = builder.constant(affine.shift.astype(dtype).reshape(shape), f"{node.name}.shift")
    return builder.add(Fused("((x0 * x1) + x2)"), (x, scale, shift), node.name, [node.outputs[0].name])


def _read_affine(graph: Graph, node: Node, x: Value) -> Affine | None:
    """The node as a scale and a shift of x; None if it is anything else, or not by constants."""
    others = [graph.constants[v] for v in node.inputs if v in graph.constants]
    if len(others) != len(node.inputs) - 1 or node.outputs[0].type != x.type or x.type.rank < 2:
        return None
    if isinstance(node.op, BatchNorm):
        scale, bias, mean, variance = (p.array.astype(np.float64) for p in others)
        scale = scale / np.sqrt(variance + node.op.epsilon)
        return Affine(scale, bias - scale * mean)
    c = _read_channels(others[0], x) if len(others) == 1 else None
    if c is None:
        return None
    one, zero, x_first = np.ones_like(c), np.zeros_like(c), node.inputs[0] is x
    match node.op:
        case Add():
            return Affine(one, c)
        case Sub():
            return Affine(one, -c) if x_first else Affine(-one, c)
        case Mul():
            return Affine(c, zero)
        case Div() if x_first and c.all():
            return Affine(1 / c, zero)
    return None


def _read_channels(param: Param, x: Value) -> Array | None:
    """A constant that broadcasts over x[N,C,...], as one number or one each; None if it varies otherwise."""
    rank, shape = x.type.rank, param.value.type.static_shape()
    shape = (1,) * (rank - len(shape)) + shape
    if any(length != 1 for axis, length in enumerate(shape) if axis != 1):
        return None
    return param.array.astype(np.float64).reshape(-1)


@quiet
def _scale_weight(op: Op, weight: Array, scale: Array) -> Array:
    """The weight with each output channel multiplied by its scale."""
    if isinstance(op, ConvTranspose2d):  # w [C,K/groups,R,S]
        c, k, r, s = weight.shape
        grouped = weight.reshape(op.groups, c // op.groups, k, r, s) * scale.reshape(op.groups, 1, k, 1, 1)
        return grouped.reshape(weight.shape).astype(weight.dtype)
    scaled = np.empty_like(weight)  # rounded once, without a float64 array in between
    return np.multiply(weight, scale.reshape(-1, *[1] * (weight.ndim - 1)), out=scaled, casting="same_kind")
