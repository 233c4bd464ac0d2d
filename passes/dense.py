"""Finer maps without new weights: strides become dilation of all that follows (a trous)."""

from dataclasses import replace
from fractions import Fraction
from math import gcd

from graphc import ops
from graphc.errors import InputError, UnsupportedError
from graphc.geometry import Geometry, find_geometry
from graphc.ir import Builder, Graph, Node, Op, TensorType, Value
from graphc.ops.window import Padding, Pair
from graphc.passes.fully_convolutional import Window, fully_convolutional

PIXELWISE = (
    ops.BatchNorm, ops.ChannelL2Pool, ops.Concat, ops.Dropout, ops.Elementwise, ops.LocalResponseNorm, ops.LogSoftmax,
    ops.Slice, ops.Softmax, ops.Split, ops.Transpose,
)  # fmt: skip
ONE: Pair = (1, 1)


def dense(graph: Graph, output_stride: int = 8, gap: str = "window", window: Window | None = None) -> Graph:
    """The network with a score every `output_stride` pixels, from the same weights (Chen et al. 2017, DeepLab).

    image [N,C,H,W] -> scores [N,K,P,Q] becomes [N,K,P',Q'], about (stride / output_stride) times as high and wide. A
    classifier is made fully convolutional first; `gap` and `window` are fully_convolutional's. Every score of the
    strided network is among the new ones, score (p,q) at (p*f,q*f) with f = stride / output_stride, padding or not.
    Those between are what the strided network gives for the image shifted by output_stride, 2*output_stride, ...
    (shift-and-stitch: Giusti et al. 2013, Sermanet et al. 2014, Long et al. 2015), if no layer pads; if some do, those
    that see padding differ, since that begins at the image's edge here and at the shifted image's there.

    rewrite: y = conv2d(x, w, stride=s)                 -> y = conv2d(x, w, stride=t), t a divisor of s; f = s / t
             z = conv2d(y, v, padding=p, dilation=d)    -> z = conv2d(y, v, padding=f*p, dilation=f*d); pools likewise
    checks: output_stride divides the stride of each output. What comes after a dilation is a window or works on each
            pixel: UnsupportedError names every transposed convolution, resize, whole-image op and the like. The first
            strides are kept, the last ones go, so that the early, large maps stay as they are
    """
    graph = fully_convolutional(graph, gap, window).prune()
    places = find_geometry(graph)
    _check_stride(graph, places, output_stride)
    finer: dict[Value, Pair] = dict.fromkeys(graph.inputs, ONE)  # how many times as high and wide a value has become

    def rule(builder: Builder, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        factor = next((finer[v] for v in node.inputs if v in finer), ONE)
        step = _choose_stride(node, factor, places, output_stride)
        after = _divide(_multiply(factor, _stride(node)), step)
        op = _dilate(node, inputs[0].type if inputs else None, factor, step)
        if any(finer.get(v, after) != after for v in node.inputs[1:]):
            problem = "joins maps that have become finer by different factors"
        elif op is None or (after != ONE and not places.get(node.outputs[0])):
            problem = f"cannot be dilated, and its result would be {after[0]}x{after[1]} times as fine"
        elif not _divides(places.get(node.outputs[0]), after, output_stride):
            problem = "cannot do without its stride"
        else:
            finer.update((v, after) for v in node.outputs if any(x in finer for x in node.inputs))
            return builder.add(op, inputs, node.name, [v.name for v in node.outputs])
        message = f"network '{graph.name}' cannot have an output stride of {output_stride}"
        raise UnsupportedError(message, [f"{node}: {problem}"])

    return graph.rewrite(rule)


def _check_stride(graph: Graph, places: dict[Value, Geometry | None], output_stride: int) -> None:
    for name, v in zip(graph.output_names, graph.outputs, strict=True):
        place = places.get(v)
        if place is None:
            blind = [n for n in graph.nodes if places.get(n.inputs[0]) and not places.get(n.outputs[0])]
            which = str(blind[0]) if blind else f"output '{name}'"
            raise UnsupportedError(f"{which}: expected a map whose pixels see a part of the image each, got {v}")
        strides = [axis.stride for axis in place.axes]
        if output_stride < 1 or any(s % output_stride for s in strides):
            whole = gcd(*(int(s) for s in strides)) if all(s.denominator == 1 for s in strides) else 1
            divisors = ", ".join(str(d) for d in range(1, whole + 1) if whole % d == 0)
            raise InputError(f"output_stride: expected a divisor of the stride of output '{name}' ({divisors}), "
                             f"got {output_stride}")  # fmt: skip


def _stride(node: Node) -> Pair:
    match node.op:
        case ops.Conv2d(stride=stride):
            return stride
        case ops.MaxPool(window=window) | ops.MinPool(window=window) | ops.AveragePool(window=window):
            return window.stride
    return ONE


def _choose_stride(node: Node, factor: Pair, places: dict[Value, Geometry | None], most: int) -> Pair:
    """What remains of a node's stride: all that keeps the stride of its result a divisor of `most`."""
    place = places.get(node.inputs[0]) if node.inputs else None
    if place is None:
        return _stride(node)
    down, right = (
        gcd(stride, int(left)) if (left := Fraction(most * f) / axis.stride).denominator == 1 else stride
        for stride, f, axis in zip(_stride(node), factor, place.axes, strict=True)
    )
    return down, right


def _divides(place: Geometry | None, factor: Pair, most: int) -> bool:
    """Whether a map that lay like this, and is now finer by `factor`, has a stride that divides `most`."""
    if place is None:
        return True
    axes = zip(place.axes, factor, strict=True)
    return all((most * f / axis.stride).denominator == 1 for axis, f in axes)


def _dilate(node: Node, x: TensorType | None, factor: Pair, step: Pair) -> Op | None:
    """The node's op on a map, now x, that is `factor` times as fine, with stride `step`; None if it cannot be.

    Where x'[f*i] = x[i], a window that starts at f*(p*s - pad) and whose cells are f*d apart sees what one that starts
    at p*s - pad with cells d apart saw: the pixel (p,q) of the old result is the new one's (p*f*s/t, q*f*s/t).
    """
    op = node.op
    if factor == ONE and step == _stride(node):
        return op
    match op:
        case ops.Conv2d(padding=padding, dilation=dilation):
            return replace(op, stride=step, padding=_widen(padding, factor), dilation=_multiply(dilation, factor))
        case ops.AveragePool(ceil_mode=True, count_padding=True):
            return None  # cells that hang over the padding do not count, those in it do: no padding says both
        case ops.MaxPool(dilation=dilation) | ops.MinPool(dilation=dilation) | ops.AveragePool(dilation=dilation):
            padding = _widen(_cover(op), factor)
            return replace(op, stride=step, padding=padding, dilation=_multiply(dilation, factor), ceil_mode=False)
        case ops.Reshape(shape=shape) if x is not None:  # of other dims only: else it has no geometry
            return ops.Reshape((*shape[:-2], *x.shape[-2:]))
        case ops.Pad(mode="constant", padding=padding):
            scales = (1,) * (len(padding) // 2 - 2) + factor
            return replace(op, padding=tuple(p * scale for p, scale in zip(padding, scales * 2, strict=True)))
    return op if isinstance(op, PIXELWISE) else None


def _cover(op: ops.MaxPool | ops.MinPool | ops.AveragePool) -> Padding:
    """The padding with which windows reach as far without ceil_mode as they do with it.

    With ceil_mode there are ceil((H + before + min(after - extent + s, 0)) / s) windows, without floor((H + before +
    x - extent) / s) + 1: equal for x = min(after + s, extent) - 1.
    """
    top, left, bottom, right = op.padding
    if not op.ceil_mode:
        return op.padding
    low, far = (min(after + s, e) - 1 for after, s, e in zip((bottom, right), op.stride, op.window.extent, strict=True))
    return top, left, low, far


def _multiply(a: Pair, b: Pair) -> Pair:
    return a[0] * b[0], a[1] * b[1]


def _divide(a: Pair, b: Pair) -> Pair:
    return a[0] // b[0], a[1] // b[1]


def _widen(padding: Padding, factor: Pair) -> Padding:
    top, left, bottom, right = padding
    return top * factor[0], left * factor[1], bottom * factor[0], right * factor[1]
