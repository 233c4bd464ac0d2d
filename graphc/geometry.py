"""Which pixels of the input an element of a value depends on: stride, receptive field and offset, from the graph.

Along each image axis, element p of a value sees the input from `low + p*stride` up to, but without, `high + p*stride`
(pixels; those outside the image lie in padding). A window of extent e at stride s with leading padding b turns that
into low - b*stride, high + (e-1-b)*stride and s*stride (Araujo, Norris & Sim 2019, "Computing receptive fields of
convolutional neural networks"). Where paths meet, the union counts.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from graphc import ops
from graphc.errors import InputError
from graphc.ir import Graph, Node, Value, dims
from graphc.ops.window import Window


@dataclass(frozen=True)
class Axis:
    """Along one image axis: element p sees the input's pixels in [low + p*stride, high + p*stride)."""

    stride: Fraction
    low: Fraction
    high: Fraction

    @property
    def field(self) -> Fraction:
        """The receptive field in pixels."""
        return self.high - self.low

    @property
    def centre(self) -> Fraction:
        """The centre of what element 0 sees; whole numbers are the centres of pixels."""
        return (self.low + self.high - 1) / 2

    def slide(self, extent: int, stride: int, before: int) -> "Axis":
        """After a window of this extent, stride and leading padding."""
        low, high = self.low - before * self.stride, self.high + (extent - 1 - before) * self.stride
        return Axis(self.stride * stride, low, high)

    def spread(self, extent: int, stride: int, before: int) -> "Axis":
        """After a transposed window, whose element p comes from the inputs (p + before - extent + 1) / stride up to
        (p + before) / stride. Elements differ by their phase; these are the bounds that hold for all of them."""
        step = self.stride / stride
        return Axis(step, self.low + step * (before - extent + 1), self.high + step * before)

    def join(self, other: "Axis") -> "Axis | None":
        """The union with another path; None if their strides differ."""
        if self.stride != other.stride:
            return None
        return Axis(self.stride, min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True)
class Geometry:
    """How a value's rows and columns lie over the input image."""

    rows: Axis
    columns: Axis

    def slide(self, window: Window) -> "Geometry":
        """After this window."""
        (r, s), (down, right), (top, left, _, _) = window.extent, window.stride, window.padding
        return Geometry(self.rows.slide(r, down, top), self.columns.slide(s, right, left))

    def spread(self, window: Window) -> "Geometry":
        """After this window, transposed."""
        (r, s), (down, right), (top, left, _, _) = window.extent, window.stride, window.padding
        return Geometry(self.rows.spread(r, down, top), self.columns.spread(s, right, left))


INPUT = Geometry(*[Axis(Fraction(1), Fraction(0), Fraction(1))] * 2)
META_KEY = "geometry"
_KEYS = ("stride", "receptive_field", "offset")


def find_geometry(graph: Graph) -> dict[Value, Geometry | None]:
    """The geometry of every value that depends on an input, over the input images.

    A value has one if its last two dims are an image's rows and columns; it is None for other values, where a value
    sees the whole image, and where paths of different strides meet.
    """
    found: dict[Value, Geometry | None] = {v: INPUT if v.type.rank == 4 else None for v in graph.inputs}
    for node in graph.nodes:
        if any(v in found for v in node.inputs):
            found |= dict.fromkeys(node.outputs, _after(node, found))
    return found


def describe_geometry(graph: Graph) -> Graph:
    """`graph` with the geometry of its outputs in `meta`, from where a compiled network or an ONNX file can tell it.

    JSON, {"scores": {"stride": [4, 4], "receptive_field": [32, 32], "offset": [15.5, 15.5]}}, in pixels of the input,
    rows first; the offset is the centre of what element (0, 0) sees.
    """
    found = find_geometry(graph)
    outputs = {name: g for name, v in zip(graph.output_names, graph.outputs, strict=True) if (g := found.get(v))}
    return replace(graph, meta={**graph.meta, META_KEY: json.dumps({name: _to_json(g) for name, g in outputs.items()})})


def read_geometry(meta: Mapping[str, str], output: str) -> Geometry | None:
    """What `describe_geometry` wrote of an output; None if it has no geometry. InputError if that is not readable."""
    try:
        found = json.loads(meta.get(META_KEY, "{}")).get(output)
        return _from_json(found) if found else None
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError):
        raise InputError(f"meta '{META_KEY}': expected what graphc writes there, got {meta[META_KEY]!r}") from None


def _to_json(geometry: Geometry) -> dict[str, list[int | float]]:
    axes = (geometry.rows, geometry.columns)
    pairs = ([a.stride for a in axes], [a.field for a in axes], [a.centre for a in axes])
    return {
        key: [int(x) if x.denominator == 1 else float(x) for x in pair] for key, pair in zip(_KEYS, pairs, strict=True)
    }


def _from_json(found: Mapping[str, Iterable[float]]) -> Geometry:
    # Denominators are products of upsampling factors: the nearest fraction to a float, below a million, is the one.
    pairs = [[Fraction(x).limit_denominator() for x in found[key]] for key in _KEYS]
    rows, columns = (
        Axis(stride, centre - (field - 1) / 2, centre + (field + 1) / 2)
        for stride, field, centre in zip(*pairs, strict=True)
    )
    return Geometry(rows, columns)


def _after(node: Node, found: Mapping[Value, Geometry | None]) -> Geometry | None:
    """The geometry of a node's results; None where an element sees the whole image."""
    op, x = node.op, node.inputs[0]
    match op:
        case ops.Conv2d() | ops.LocallyConnected2d() | ops.ConvTranspose2d():
            return _after_weights(node, found)
        case ops.MaxPool() | ops.MinPool() | ops.MaxPoolWithIndices() | ops.AveragePool() | ops.L2Pool():
            return (g := found[x]) and g.slide(op.window)
        case ops.MaxUnpool():  # a third input gives nothing but its size
            return (g := _join(node.inputs[:2], found)) and g.spread(Window(op.kernel, op.stride, op.padding))
        case ops.UpsampleNearest(size=None) | ops.BedOfNails():
            return (g := found[x]) and g.spread(Window(op.scale, op.scale))
        case ops.UpsampleBilinear(size=None, align_corners=False, scale=(down, right)):
            # the two nearest inputs, whose weights fall off linearly: a triangle two strides wide
            extent = (2 * down - down % 2, 2 * right - right % 2)
            return (g := found[x]) and g.spread(Window(extent, op.scale, (down // 2, right // 2, 0, 0)))
        case ops.Softmax() | ops.LogSoftmax() | ops.Concat() | ops.Split():
            return _join(node.inputs, found) if op.axis in (1, -3) and x.type.rank == 4 else None
        case ops.Elementwise() | ops.BatchNorm() | ops.LocalResponseNorm() | ops.ChannelL2Pool():
            return _join(node.inputs, found)
        case ops.Reshape():  # of the other dims only: row-major order keeps each pixel in its place
            return found[x] if x.type.rank > 1 and x.type.shape[-2:] == node.outputs[0].type.shape[-2:] else None
        case ops.Transpose(perm=perm):
            return found[x] if perm[-2:] == (x.type.rank - 2, x.type.rank - 1) else None
        case ops.Pad(mode="constant"):
            padding = tuple(p for i in (0, 1) for pair in op.pairs()[-2:] if isinstance(p := pair[i], int))
            return (g := found[x]) and g.slide(Window((1, 1), padding=padding)) if len(padding) == 4 else None
    return None


def _after_weights(node: Node, found: Mapping[Value, Geometry | None]) -> Geometry | None:
    """A convolution's window, then its epilogue, which reads further values of the result's shape."""
    op, (x, weight) = node.op, node.inputs[:2]
    assert isinstance(op, ops.Conv2d | ops.LocallyConnected2d | ops.ConvTranspose2d)
    g = found.get(x)
    if g is None or any(v in found for v in node.inputs[1 : 2 + op.bias]):  # weights made from the image see all of it
        return None
    kernel = weight.type.static_shape()[2:4]
    match op:
        case ops.ConvTranspose2d():
            g = g.spread(Window((kernel[0], kernel[1]), op.stride, op.padding, op.dilation))
        case _:
            g = g.slide(op.window((kernel[0], kernel[1])))
    return _join(node.inputs[2 + op.bias :], {**found, node.outputs[0]: g}, node.outputs[0])


def _join(values: Iterable[Value], found: Mapping[Value, Geometry | None], *more: Value) -> Geometry | None:
    """The union over those of the values that depend on an input."""
    dependent = [v for v in (*more, *values) if v in found]
    result = found[dependent[0]] if dependent else None
    for v in dependent[1:]:
        g = found[v]
        if result is None or g is None or not _same_image(dependent[0], v):  # a pixel that is broadcast is seen by all
            return None
        rows, columns = result.rows.join(g.rows), result.columns.join(g.columns)
        result = Geometry(rows, columns) if rows and columns else None
    return result


def _same_image(a: Value, b: Value) -> bool:
    return a.type.rank > 1 and b.type.rank > 1 and all(map(dims.same, a.type.shape[-2:], b.type.shape[-2:]))
