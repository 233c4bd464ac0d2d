"""Loop nests of the ops that read images at places that are data. The places are computed once for all channels."""

from collections.abc import Iterator
from itertools import product
from math import nan

from graphc.codegen.lowering.index import wrap
from graphc.codegen.nest import Buffer, Nest, largest, loop_vars, pointwise, size, to_float, total
from graphc.ir import DimLike, DType, TensorType
from graphc.ops.sample import CUBIC, SAMPLE_MODES, GridSample, RoiAlign
from graphc.ops.scalar import Expr, Lit, call


def lower_grid_sample(op: GridSample, x: Buffer, grid: Buffer, y: Buffer) -> Iterator[Nest]:
    spatial, taps = x.shape[2:], SAMPLE_MODES[op.mode]
    places = [y.temporary(f"place{axis}", grid.type.with_shape(*grid.shape[:-1])) for axis in range(len(spatial))]
    for axis, (place, d) in enumerate(zip(places, spatial, strict=True)):
        column = len(spatial) - 1 - axis
        yield pointwise(place, lambda *at, d=d, column=column: locate(op, grid[*at, column], d))
    loops = n, c, *at = loop_vars("ncpqr"[: y.type.rank], y.shape)
    lows = [call("floor", place[n, *at]) for place in places]
    shares = [weigh(op.mode, place[n, *at] - low) for place, low in zip(places, lows, strict=True)]
    firsts = [call("to_i64", low) for low in lows]
    cells = [[find_cell(op, i + tap, d) for tap in taps] for i, d in zip(firsts, spatial, strict=True)]
    value: Expr | None = None
    for chosen in product(range(len(taps)), repeat=len(spatial)):
        term: Expr = x.get(n, c, *(cell[i] for cell, i in zip(cells, chosen, strict=True)), fill=0.0)
        if op.mode != "nearest":
            for share, i in zip(shares, chosen, strict=True):
                term = term * share[i]
        value = term if value is None else value + term
    assert value is not None, "every mode reads a cell"
    yield Nest(y, loops, loops, value)


def locate(op: GridSample, g: Expr, d: DimLike) -> Expr:
    """Where in an image of d pixels a number of the grid lies."""
    pixels = to_float(size(d), g.dtype)
    place = (g + 1.0) * ((pixels - 1.0) * 0.5) if op.align_corners else ((g + 1.0) * pixels - 1.0) * 0.5
    return call("round", place) if op.mode == "nearest" else place


def find_cell(op: GridSample, i: Expr, d: DimLike) -> Expr:
    """The pixel that stands for pixel i; it still may lie outside."""
    last = size(d) - 1
    if op.padding == "border":
        return call("min", call("max", i, 0), last)
    if op.padding == "zeros":
        return i
    if op.align_corners:  # ... 2 1 0 1 2 ..., with period 2d - 2; a single pixel repeats
        period = call("max", last * 2, 1)
        i = i % period
        return call("min", call("min", i, period - i), last)
    period = size(d) * 2  # ... 1 0 0 1 2 ...
    i = i % period
    return call("min", i, period - 1 - i)


def weigh(mode: str, t: Expr) -> list[Expr]:
    """The weights of the cells around a place t behind one of them, 0 <= t < 1."""
    if mode == "nearest":
        return [Lit(1.0)]
    if mode == "linear":
        return [1.0 - t, t]
    return [cubic_far(t + 1.0, CUBIC), cubic_near(t, CUBIC), cubic_near(1.0 - t, CUBIC), cubic_far(2.0 - t, CUBIC)]


def cubic_near(t: Expr, a: float) -> Expr:
    """The cubic convolution kernel at a distance t of 0 to 1 (Keys 1981)."""
    return (t * (a + 2) - (a + 3)) * t * t + 1.0


def cubic_far(t: Expr, a: float) -> Expr:
    """The same at a distance of 1 to 2."""
    return ((t * a - 5 * a) * t + 8 * a) * t - 4 * a


def lower_roi_align(op: RoiAlign, x: Buffer, boxes: Buffer, images: Buffer, y: Buffer) -> Iterator[Nest]:
    """First for each box and axis, the first of the two rows at each place and the weights of both."""
    tables = []
    for axis, name in enumerate(("rows", "columns")):
        shape = boxes.shape[0], op.size[axis] * op.samples
        low = y.temporary(name, TensorType(DType.I64, shape))
        shares = [y.temporary(f"{name}.{part}", y.type.with_shape(*shape)) for part in ("low", "high")]
        r, s = loops = loop_vars("rs", shape)
        place, inside = place_sample(op, boxes, r, s, axis, x.shape[2 + axis])
        first = call("to_i64", place)
        share = place - to_float(first, y.type.dtype)
        yield Nest(low, loops, loops, first)
        yield Nest(shares[0], loops, loops, call("select", inside, 1.0 - share, 0.0))
        yield Nest(shares[1], loops, loops, call("select", inside, share, 0.0))
        tables.append((low, shares, x.shape[2 + axis]))
    loops = r, k, p, q = loop_vars("rkpq", y.shape)
    u, v = loop_vars("uv", (op.samples, op.samples))
    spots = (r, p * op.samples + u), (r, q * op.samples + v)
    sides = []  # along each axis, (index, weight) of the row before the place and of the one behind it
    for (low, shares, d), spot in zip(tables, spots, strict=True):
        behind = call("min", low[spot] + 1, size(d - 1))
        sides.append(((low[spot], shares[0][spot]), (behind, shares[1][spot])))
    image = wrap(images[r], x.shape[0])
    terms = [x.get(image, k, i, j, fill=nan) * (s * t) for (i, s), (j, t) in product(*sides)]
    upper, lower = terms[:2], terms[2:]
    if op.mode == "max":
        yield Nest(y, loops, loops, largest(call("max", call("max", *upper), call("max", *lower)), u, v))
    else:
        yield Nest(y, loops, loops, total((upper[0] + upper[1]) + (lower[0] + lower[1]), u, v) * (1.0 / op.samples**2))


def place_sample(op: RoiAlign, boxes: Buffer, r: Expr, s: Expr, axis: int, d: DimLike) -> tuple[Expr, Expr]:
    """Where sample s of box r lies along an axis of d pixels, moved into the image, and whether it counts."""
    offset = 0.5 if op.half_pixel else 0.0
    start, end = (boxes[r, i] * op.scale - offset for i in (1 - axis, 3 - axis))
    length = end - start if op.half_pixel else call("max", end - start, 1.0)
    pixels = to_float(size(d), boxes.type.dtype)
    place = start + (to_float(s, boxes.type.dtype) + 0.5) * (length * (1.0 / (op.size[axis] * op.samples)))
    inside = call("logical_and", call("ge", place, -1.0), call("le", place, pixels))
    return call("min", call("max", place, 0.0), pixels - 1.0), inside
