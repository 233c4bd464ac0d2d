"""How an image may be cut into tiles whose results have the bits of a run over the whole image.

For each value of the graph it is followed back which of its elements a tile's results depend on. A tile's core is the
pixels [x0, x1) of the image, both multiples of `align`, and its results are elements x0/stride to x1/stride of each
output. Of a value with stride s, elements x0/s - low up to x1/s + high are needed: after a window of extent e, stride
t and leading padding b, its input's low*t + b and (high - 1)*t + e - b; and back through a transposed window likewise.
Winograd's kernel computes m elements at once from all that they see together, so there both are rounded up to
multiples of m first: else the same numbers would be rounded differently. Where paths meet, the larger counts.

A tile must begin where these elements exist in it: at x0 less the largest s*low, rounded down to a multiple of
`align`, by which every stride and every m divide; so each window, phase and Winograd tile lies in the tile as in the
image. It ends a multiple of `align` before the image ends: so each size leaves the same remainder. A value has at
least H/s + reach elements (`reach` loses what strides may leave over), so the end is x1 plus the largest
s*(high - reach). A tile that would reach beyond an edge of the image ends there, and pads as the image does. The
network takes it if it has s*(1 - reach) pixels for each value: at least one element. Where a kernel computes few rows
and columns in another way than many, a tile has as many as count for many, or all that the image has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from math import ceil, lcm, prod

from graphc import ops
from graphc.codegen.kernels.winograd_shape import Form, fewest_results, find_rows, list_forms, winograd_fits
from graphc.geometry import Path, find_geometry, find_paths
from graphc.ir import Graph, Node, Op, Value, dims
from graphc.runtime.tiling import AxisRule, TileRule

ALTERNATIVES: dict[type[Op], str] = {
    ops.GlobalAveragePool: "fully_convolutional makes a moving average of it",
    ops.UpsampleNearest: "scale by whole factors, without a size",
    ops.UpsampleBilinear: "scale by whole factors, without a size and align_corners",
    ops.Interpolate: "scale by whole factors, as upsample_nearest and upsample_bilinear do",
    ops.Moments: "give it constant statistics",
    ops.Pad: "pad by zeros",
}


@dataclass
class _Needs:
    """Of a value along one axis: the elements that are needed around the core, and how far it reaches at the end."""

    low: int
    high: int
    reach: Fraction


@dataclass(frozen=True)
class Cut:
    """A network whose images may be cut: its image, what depends on it, in order, and the strides of every value."""

    image: Value
    steps: list[tuple[Node, list[Path]]]
    strides: Mapping[Value, tuple[Fraction, Fraction]]

    def find_align(self, axis: int, winograd: bool) -> int:
        """What the pixels at which tiles begin are multiples of: every stride, and every Winograd tile."""
        tiles = [
            s[axis].numerator * (count_together(node, axis) if winograd else 1)
            for node, _ in self.steps for s in (self.strides[v] for v in node.outputs)
        ]  # fmt: skip
        return lcm(*(s[axis].numerator for s in self.strides.values()), *tiles)

    def find_reach(self, axis: int) -> Mapping[Value, Fraction]:
        """By how much each value is longer, at least, than the image is over its stride."""
        reach = {self.image: Fraction(0)}
        for node, paths in self.steps:
            reach |= dict.fromkeys(node.outputs, min(_reach(p, axis, reach[p.source]) for p in paths))
        return reach

    def find_least(self, axis: int, winograd: bool) -> int:
        """The fewest pixels of which every value has an element, and more where a kernel counts them."""
        fewest = {v: count_fewest(node) for node, _ in self.steps if winograd for v in node.outputs}
        return ceil(max(self.strides[v][axis] * (fewest.get(v, 1) - r) for v, r in self.find_reach(axis).items()))


def find_rule(graph: Graph, winograd: bool = True) -> TileRule | str:
    """How images of the one input are cut; or, in words, why they cannot be.

    `graph` is what is compiled, after all passes; `winograd` whether kernels may be Winograd's.
    """
    cut = look_at(graph)
    if isinstance(cut, str):
        return cut
    rows, columns = (_find_axis(axis, cut, graph, winograd) for axis in (0, 1))
    outputs = zip(graph.output_names, graph.outputs, strict=True)
    return TileRule(rows, columns, {name: cut.strides[v] for name, v in outputs})


def look_at(graph: Graph) -> Cut | str:
    """What there is to know of a network whose images may be cut; or, in words, why they cannot be."""
    if len(graph.inputs) != 1 or graph.inputs[0].type.rank != 4:
        return "expected one input [N,C,H,W]"
    image = graph.inputs[0]
    open_axes = [d for d in image.type.shape[2:] if isinstance(d, dims.Dim)]
    if len(open_axes) < 2 or open_axes[0] == open_axes[1] or not all(str(d).isidentifier() for d in open_axes):
        return f"input '{image.name}' is {image.type}, and its height and width must be open"
    symbols = frozenset(map(str, open_axes))
    if image.type.symbols - symbols - dims.symbols_of(image.type.shape[0]):
        return f"input '{image.name}' is {image.type}, and its channels must be known"
    geometry, steps, dependent = find_geometry(graph), list[tuple[Node, list[Path]]](), {image}
    for node in graph.nodes:
        if not any(v in dependent for v in node.inputs):
            if any(v.type.symbols & symbols for v in node.outputs):
                return f"{node.op.name} '{node.name}' depends on the size of the image"
            continue
        dependent |= set(node.outputs)
        paths = find_paths(node, dependent)
        if paths is None or any(geometry.get(v) is None for v in node.outputs) or _tells_places(graph, node):
            other = ALTERNATIVES.get(type(node.op), "run the network on the whole image")
            return f"{node.op.name} '{node.name}' depends on more of the image than a window; {other}"
        steps.append((node, paths))
    for name, v in zip(graph.output_names, graph.outputs, strict=True):
        if geometry.get(v) is None:
            return f"output '{name}' does not depend on the image"
    return Cut(image, steps, {v: (g.rows.stride, g.columns.stride) for v, g in geometry.items() if g is not None})


def _tells_places(graph: Graph, node: Node) -> bool:
    """Whether a result holds positions in the image: only an unpooling over just that image may read these."""
    match node.op:
        case ops.MaxPoolWithIndices():
            indices = node.outputs[1]
            readers = [n for n in graph.nodes if indices in n.inputs]
            fit = all(
                isinstance(n.op, ops.MaxUnpool) and n.inputs[1] is indices
                and n.outputs[0].type.shape == node.inputs[0].type.shape for n in readers
            )  # fmt: skip
            return indices in graph.outputs or not fit
        case ops.MaxUnpool():
            makers = [n for n in graph.nodes if node.inputs[1] in n.outputs]
            return not any(isinstance(n.op, ops.MaxPoolWithIndices) for n in makers)
    return False


def _find_axis(axis: int, cut: Cut, graph: Graph, winograd: bool) -> AxisRule:
    strides = {v: s[axis] for v, s in cut.strides.items()}
    reach = cut.find_reach(axis)
    needs = {v: _Needs(0, 0, reach[v]) for v in graph.outputs}
    for node, paths in reversed(cut.steps):
        m = count_together(node, axis) if winograd else 1
        for output in node.outputs:
            after = needs.get(output)
            if after is None:
                continue
            for path in paths:
                low, high = after.low, after.high
                if m > 1 and path.window.extent != (1, 1):  # an epilogue's operands are read where results are written
                    low, high = ceil(Fraction(low, m)) * m, ceil(Fraction(high, m)) * m
                low, high = follow_back(path, axis, low, high)
                known = needs.setdefault(path.source, _Needs(low, high, reach[path.source]))
                known.low, known.high = max(known.low, low), max(known.high, high)
    before = max(Fraction(0), *(strides[v] * n.low for v, n in needs.items()))
    behind = max(Fraction(0), *(strides[v] * (n.high - n.reach) for v, n in needs.items()))
    return AxisRule(cut.find_align(axis, winograd), ceil(before), ceil(behind), cut.find_least(axis, winograd))


def count_together(node: Node, axis: int) -> int:
    """How many neighbours Winograd's kernel, if it may take this node, computes from all that they see together."""
    return lcm(*(form[axis].m for form in chain(*_list_forms(node))))


def count_fewest(node: Node) -> int:
    """The rows and columns of results from which on a kernel of Winograd's that may be taken works in one way."""
    _, forms = _list_forms(node)
    return fewest_results(forms, prod(node.inputs[1].type.static_shape()[:2])) if forms else 1


def _list_forms(node: Node) -> tuple[Sequence[Form], Sequence[Form]]:
    """Winograd's that may be taken, for an image of few channels and for one in blocks."""
    op = node.op
    if not isinstance(op, ops.Conv2d | ops.ConvTranspose2d):
        return (), ()
    k, c, r, s = node.inputs[1].type.static_shape()
    if isinstance(op, ops.ConvTranspose2d):
        op, k, c = op.turned((r, s)) or op, c, k
    if not isinstance(op, ops.Conv2d):
        return (), ()
    rows = find_rows(op, (k, c, r, s))
    return [rows] if rows else (), list_forms(op, (r, s)) if winograd_fits(op, node.inputs[1]) else ()


def follow_back(path: Path, axis: int, low: int, high: int) -> tuple[int, int]:
    """What is needed of the input where `low` and `high` are of the result."""
    extent, stride, before = path.window.extent[axis], path.window.stride[axis], path.window.padding[axis]
    if path.transposed:  # element p reads from ceil((p + before - extent + 1) / stride) to floor((p + before) / stride)
        return (low - before + extent - 1) // stride, (high - 1 + before) // stride + 1
    return low * stride + before, (high - 1) * stride - before + extent


def _reach(path: Path, axis: int, reach: Fraction) -> Fraction:
    """By how much a result is longer, at least, than the image is over its stride."""
    extent, stride = path.window.extent[axis], path.window.stride[axis]
    pads = path.window.padding[axis] + path.window.padding[axis + 2]
    if path.transposed:  # (n - 1) * stride + extent - pads, or more
        return (reach - 1) * stride + extent - pads
    return (reach + pads - extent + 1) / stride  # (n + pads - extent) // stride + 1
