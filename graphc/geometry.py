"""Which pixels of the input an element of a value depends on: stride, receptive field and offset, from the graph.

Along each image axis, element p of a value sees the input from `low + p*stride` up to, but without, `high + p*stride`
(pixels; those outside the image lie in padding). A window of extent e at stride s with leading padding b turns that
into low - b*stride, high + (e-1-b)*stride and s*stride (Araujo, Norris & Sim 2019, "Computing receptive fields of
convolutional neural networks"). Where paths meet, the union counts.
"""

import json
from collections.abc import Container, Iterable, Mapping
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

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """Both."""
        return self.rows, self.columns

    def slide(self, window: Window) -> "Geometry":
        """After this window."""
        (r, s), (down, right), (top, left, _, _) = window.extent, window.stride, window.padding
        return Geometry(self.rows.slide(r, down, top), self.columns.slide(s, right, left))

    def spread(self, window: Window) -> "Geometry":
        """After this window, transposed."""
        (r, s), (down, right), (top, left, _, _) = window.extent, window.stride, window.padding
        return Geometry(self.rows.spread(r, down, top), self.columns.spread(s, right, left))

    def join(self, other: "Geometry") -> "Geometry | None":
        """The union with another path; None if their strides differ."""
        rows, columns = self.rows.join(other.rows), self.columns.join(other.columns)
        return Geometry(rows, columns) if rows and columns else None


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
            paths = find_paths(node, found)
            found |= dict.fromkeys(node.outputs, None if paths is None else _follow(paths, found))
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
    axes = geometry.axes
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


PIXEL = Window((1, 1))


@dataclass(frozen=True)
class Path:
    """What an element of a node's result reads of one input: the cells of a window there.

    The input's element i is read by element p if i lies under the window at p or, if `transposed`, p under that at i.
    """

    source: Value
    window: Window = PIXEL
    transposed: bool = False


def find_paths(node: Node, dependent: Container[Value]) -> list[Path] | None:
    """The paths from a node's results to those of its inputs that are `dependent` on an image, pixel by pixel.

    None if an element sees more than a window, or depends on where it lies.
    """
    op, x, inputs = node.op, node.inputs[0], [v for v in node.inputs if v in dependent]
    match op:
        case ops.Conv2d() | ops.LocallyConnected2d() | ops.ConvTranspose2d():
            return _find_weighted(node, dependent)
        case ops.MaxPool() | ops.MinPool() | ops.MaxPoolWithIndices() | ops.AveragePool() | ops.L2Pool():
            return [Path(x, op.window)]
        case ops.MaxUnpool():  # a third input gives nothing but its size
            window = Window(op.kernel, op.stride, op.padding)
            return [Path(v, window, transposed=True) for v in node.inputs[:2] if v in dependent]
        case ops.BedOfNails():
            return [Path(x, Window((1, 1), op.scale), transposed=True)]
        case ops.UpsampleNearest(size=None):
            return [Path(x, Window(op.scale, op.scale), transposed=True)]
        case ops.UpsampleBilinear(size=None, align_corners=False, scale=(down, right)):
            # the two nearest inputs, whose weights fall off linearly: a triangle two strides wide
            extent = (2 * down - down % 2, 2 * right - right % 2)
            return [Path(x, Window(extent, op.scale, (down // 2, right // 2, 0, 0)), transposed=True)]
        case ops.Softmax() | ops.LogSoftmax() | ops.Concat() | ops.Split() | ops.ArgMax() | ops.ArgMin():
            return _alike(node, inputs) if op.axis in (1, -3) and x.type.rank == 4 else None
        case ops.Sum() | ops.Mean() | ops.ReduceMax() | ops.ReduceMin():
            rank = max(v.type.rank for v in node.inputs)
            others = op.axes is not None and all(a % rank < rank - 2 for a in op.axes)
            return _alike(node, inputs) if others else None
        case ops.Elementwise() | ops.BatchNorm() | ops.LocalResponseNorm() | ops.ChannelL2Pool():
            return _alike(node, inputs)
        case ops.Reshape():  # of the other dims only: row-major order keeps each pixel in its place
            return _alike(node, inputs) if x.type.shape[-2:] == node.outputs[0].type.shape[-2:] else None
        case ops.Transpose(perm=perm):
            return _alike(node, inputs) if perm[-2:] == (x.type.rank - 2, x.type.rank - 1) else None
        case ops.Slice(axes=axes):
            return _alike(node, inputs) if not {a % x.type.rank for a in axes} & set(range(x.type.rank)[-2:]) else None
        case ops.Pad(mode="constant") if x.type.rank > 1:
            (above, below), (before, behind) = op.pairs()[-2:]
            padding = tuple(p for p in (above, before, below, behind) if isinstance(p, int) and p >= 0)
            return [Path(x, Window((1, 1), padding=padding))] if len(padding) == 4 else None
    return None


def _find_weighted(node: Node, dependent: Container[Value]) -> list[Path] | None:
    """A convolution's window, and its epilogue, which reads further values of the result's shape."""
    op, (x, weight) = node.op, node.inputs[:2]
    assert isinstance(op, ops.Conv2d | ops.LocallyConnected2d | ops.ConvTranspose2d)
    if any(v in dependent for v in node.inputs[1 : 2 + op.bias]):  # weights made from the image see all of it
        return None
    extra = _alike(node, [v for v in node.inputs[2 + op.bias :] if v in dependent])
    kernel = weight.type.static_shape()[2:4]
    match op:
        case ops.ConvTranspose2d():
            path = Path(x, Window((kernel[0], kernel[1]), op.stride, op.padding, op.dilation), transposed=True)
        case _:
            path = Path(x, op.window((kernel[0], kernel[1])))
    return None if extra is None else [*([path] if x in dependent else []), *extra]


def _alike(node: Node, inputs: Iterable[Value]) -> list[Path] | None:
    """Paths from each element to the one in its place; None where an input's only pixel serves all of them."""
    paths = [Path(v) for v in inputs]
    return paths if all(_same_image(p.source, y) for p in paths for y in node.outputs) else None


def _follow(paths: Iterable[Path], found: Mapping[Value, Geometry | None]) -> Geometry | None:
    """The union of what the paths see."""
    result: Geometry | None = None
    for path in paths:
        source = found[path.source]
        if source is None:
            return None
        g = source.spread(path.window) if path.transposed else source.slide(path.window)
        result = result.join(g) if result else g
        if result is None:
            return None
    return result


def _same_image(a: Value, b: Value) -> bool:
    return a.type.rank > 1 and b.type.rank > 1 and all(map(dims.same, a.type.shape[-2:], b.type.shape[-2:]))
