"""Loop nests of resizing along an axis: the elements and weights of each result come from tables, computed first.

The tables are computed in double precision, as in the reference: a place that is rounded to the other side of an
element's edge would take another element.
"""

from collections.abc import Iterator

from graphc.codegen.lowering.sample import cubic_far, cubic_near
from graphc.codegen.lowering.shape import merge_around
from graphc.codegen.nest import Buffer, Nest, Var, loop_vars, pointwise, size, to_float, total
from graphc.ir import DimLike, DType, TensorType
from graphc.ops.interpolate import Interpolate
from graphc.ops.scalar import Expr, Lit, call


def lower_interpolate(op: Interpolate, x: Buffer, y: Buffer) -> Iterator[Nest]:
    (x, y), axis = merge_around(op.axis, x, y)
    d, length = x.shape[axis], y.shape[axis]
    place = y.temporary("places", TensorType(DType.F64, (length,)))
    first = y.temporary("first", TensorType(DType.I64, (length,)))
    yield pointwise(place, lambda p: find_place(op, p, d))
    yield pointwise(first, lambda p: call("to_i64", round_place(op, place[p])) + op.taps(d).start)
    weights = None
    if op.mode != "nearest":
        weights = y.temporary("weights", y.type.with_shape(length, len(op.taps(d))))
        yield from weigh_taps(op, place, first, weights, d)
    (i,) = loop_vars("t", (len(op.taps(d)),))

    def value(*at: Expr) -> Expr:
        before, p, behind = at[:axis], at[axis], at[axis + 1 :]
        if weights is None:
            result: Expr = x[*before, clamp(first[p], d), *behind]
        else:
            result = total(weights[p, i] * x[*before, clamp(first[p] + i, d), *behind], i)
        if op.coordinates != "tf_crop_and_resize":
            return result
        outside = call("logical_or", call("lt", place[p], 0.0), call("gt", place[p], to_double(size(d - 1))))
        return call("select", outside, op.extrapolation, result)

    yield pointwise(y, value)


def clamp(i: Expr, d: DimLike) -> Expr:
    """An index moved into a dim of d elements."""
    return call("min", call("max", i, 0), size(d - 1))


def to_double(x: Expr) -> Expr:
    """An integer expression in float64."""
    return to_float(x, DType.F64)


def round_place(op: Interpolate, place: Expr) -> Expr:
    """The element that a place belongs to, as a float: in front of it, or the nearest one."""
    if op.mode != "nearest" or op.rounding == "floor":
        return call("floor", place)
    if op.rounding == "ceil":
        return call("ceil", place)
    return call("floor", place + 0.5) if op.rounding == "round_prefer_ceil" else call("ceil", place - 0.5)


def find_place(op: Interpolate, p: Expr, d: DimLike) -> Expr:
    """Where element p of the result lies in x."""
    p, number, count = to_double(p), to_double(size(d)), to_double(size(op.size))
    length = count if op.scale is None else number * op.scale  # of the result before it was rounded
    centre = (p + 0.5) * number / length
    last, steps = number - 1.0, call("select", call("eq", length, 1.0), 1.0, length - 1.0)
    match op.coordinates:
        case "half_pixel_symmetric":
            return centre - 0.5 + number * 0.5 * (1.0 - count / length)
        case "pytorch_half_pixel":
            return call("select", call("eq", count, 1.0), 0.0, centre - 0.5)
        case "tf_half_pixel_for_nn":
            return centre
        case "align_corners":
            return call("select", call("eq", length, 1.0), 0.0, p * last / steps)
        case "asymmetric":
            return p * number / length
        case "tf_crop_and_resize":
            start, end = op.crop
            step = call("select", call("eq", length, 1.0), last * 0.5, p * last / steps)
            return step * (end - start) + last * start
    return centre - 0.5


def weigh_taps(op: Interpolate, place: Buffer, first: Buffer, weights: Buffer, d: DimLike) -> Iterator[Nest]:
    """The weights [P,taps]: the kernel at the distance of each tap, divided by their sum where that is not 1."""
    normal = op.antialias or op.exclude_outside
    raw = weights.temporary("raw", TensorType(DType.F64, weights.shape)) if normal else weights
    p, i = loops = loop_vars("pt", weights.shape)
    distance = call("abs", to_double(first[p] + i) - place[p]) * op.shrink(d)
    weight = kernel(op, distance)
    if op.exclude_outside:
        inside = call("logical_and", call("ge", first[p] + i, 0), call("lt", first[p] + i, size(d)))
        weight = call("select", inside, weight, 0.0)
    if not normal:
        yield Nest(weights, loops, loops, to_float(weight, weights.type.dtype))
        return
    yield Nest(raw, loops, loops, weight)
    j = Var("u", weights.shape[1])
    yield Nest(weights, loops, loops, to_float(raw[p, i] / total(raw[p, j], j), weights.type.dtype))


def kernel(op: Interpolate, distance: Expr) -> Expr:
    """The weight at a distance of at least 0."""
    if op.mode == "linear":
        return call("max", 1.0 - distance, 0.0)
    far = call("select", call("lt", distance, 2.0), cubic_far(distance, op.cubic), Lit(0.0))
    return call("select", call("le", distance, 1.0), cubic_near(distance, op.cubic), far)
