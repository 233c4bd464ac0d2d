"""Maps at the size of the image: a score for every pixel, interpolated between those that the network gives."""

from fractions import Fraction
from math import ceil

from graphc import ops
from graphc.errors import InputError, UnsupportedError
from graphc.geometry import Axis, find_geometry
from graphc.ir import Builder, DimLike, Graph, Value, dims


def upsample(graph: Graph, to: str = "input") -> Graph:
    """The network with each output [N,K,P,Q] interpolated to [N,K,H,W], the size of the input `to`.

    "input" is the first input, where none has that name. Scores become a segmentation: pixel y takes the place
    (y - centre) / stride between the rows of the map, centre and stride being the map's geometry, so that a score stays
    on the middle of what it saw, however the network pads (where edges would be laid upon edges, the map of a network
    that does not pad would be stretched by half a window). Beyond the outer centres the outer scores repeat. Bilinear,
    as in Long et al. 2015. An output that has the image's size and lies on its pixels stays as it is.

    rewrite: scores[N,K,P,Q] -> pad(scores, mode="edge"), interpolate along rows and columns, slice to [N,K,H,W]
    checks: every output is a float map with a geometry, its stride a whole number of pixels and its centre on a pixel
            or between two. UnsupportedError names the output
    """
    images = {v.name: v for v in graph.inputs}
    image = images.get(to) or (graph.inputs[0] if to == "input" and graph.inputs else None)
    if image is None or image.type.rank != 4:
        raise InputError(f"to: expected an input [N,C,H,W] of network '{graph.name}', got {image or repr(to)}")
    places = find_geometry(graph)
    builder, new = graph.reopen()
    outputs = {}
    for name, v in zip(graph.output_names, graph.outputs, strict=True):
        place = places.get(v)
        if place is None or not v.type.dtype.is_float or v.type.rank != 4:
            raise UnsupportedError(f"output '{name}': expected a map of floats whose pixels see a part of the image "
                                   f"each, got {v}")  # fmt: skip
        for axis in place.axes:
            if axis.stride.denominator != 1 or (2 * axis.centre).denominator != 1:
                raise UnsupportedError(f"output '{name}': expected a stride of whole pixels and a centre on a pixel or "
                                       f"between two, got {axis.stride} and {axis.centre}")  # fmt: skip
        outputs[name] = _spread(builder, new[v], place.axes, image)
    return builder.build(**outputs)


def _spread(builder: Builder, x: Value, axes: tuple[Axis, Axis], image: Value) -> Value:
    sizes = image.type.shape[2:]
    if all(a.stride == 1 and a.centre == 0 for a in axes) and x.type.shape[2:] == sizes:
        return x
    before, after, starts = [], [], []
    for axis, count, size in zip(axes, x.type.shape[2:], sizes, strict=True):
        stride, first = int(axis.stride), _first(axis)
        lead = max(0, ceil(first / stride))  # copies of the first score, which reach over pixel 0
        start = lead * stride - int(first)
        before.append(lead)
        after.append(dims.maximum(dims.ceil_div(size + (start + _halves(axis)), stride) - count - lead, 0))
        starts.append(start)
    x = builder.apply(ops.Pad((0, 0, *before, 0, 0, *after), "edge"), x)
    for i, axis in enumerate(axes, 2):
        stride = int(axis.stride)
        if stride > 1:
            coordinates = "asymmetric" if axis.centre.denominator == 1 or _halves(axis) else "half_pixel"
            op = ops.Interpolate(i, x.type.shape[i] * stride, "linear", coordinates, float(stride))
            x = builder.apply(op, x)
        if _halves(axis):
            x = builder.apply(ops.AveragePool((2, 1) if i == 2 else (1, 2), (1, 1)), x)
    ends: tuple[DimLike, ...] = tuple(d + start for d, start in zip(sizes, starts, strict=True))
    x = builder.apply(ops.Slice((2, 3), tuple(starts), ends, (1, 1)), x)
    # The map reaches beyond the image by the padding above, which no rule of dims sees: the reshape says so for free.
    return builder.apply(ops.Reshape((*x.type.shape[:2], *sizes)), x)


def _first(axis: Axis) -> Fraction:
    """The pixel on which row 0 of the interpolated map lies: that of the centre, if place is p / stride ("asymmetric").

    A centre between two pixels wants (p + 1/2) / stride - 1/2 ("half_pixel"), whose row 0 lies (stride - 1) / 2 before.
    That is no pixel if the stride is odd: then the mean of two rows is the one between them.
    """
    if axis.centre.denominator == 1:
        return axis.centre
    return axis.centre + (Fraction(1, 2) if _halves(axis) else (1 - axis.stride) / 2)


def _halves(axis: Axis) -> bool:
    """Whether the pixels lie in the middle between the rows interpolated at a whole stride."""
    return axis.centre.denominator == 2 and axis.stride % 2 == 1
