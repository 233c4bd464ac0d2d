"""Problems for the ops that choose elements by indices or read images between their pixels."""

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st
from problem import SUMS, Data, H, Input, N, Problem, W, anything, below, image, pairs, shapes4

from graphc import ops
from graphc.ir import Array, DimLike, DType, Op, TensorType, f32

REDUCTIONS = ("none", "add", "mul", "max", "min")


def places(low: int, high: int) -> Callable[[DType], Data]:
    """Indices of a dtype from low to high - 1."""
    return lambda dtype: lambda rng, shape: rng.integers(low, high, shape).astype(dtype.numpy)


def distinct(count: int, axis: int) -> Data:
    """Along the axis no index twice: of equal ones, ONNX leaves open which update stays."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        order = np.argsort(rng.random((*shape[:axis], count, *shape[axis + 1 :])), axis)
        return np.take(order, range(shape[axis]), axis)

    return draw


def index_type(draw: st.DrawFn, *shape: DimLike) -> TensorType:
    return TensorType(draw(st.sampled_from([DType.I32, DType.I64])), shape)


@st.composite
def gather(draw: st.DrawFn) -> Problem:
    c, axis = draw(st.integers(1, 4)), draw(st.integers(0, 2))
    dtype = draw(st.sampled_from([DType.F32, DType.I64, DType.BOOL]))
    shape: list[DimLike] = [N, H, W]
    shape[axis] = c
    t = index_type(draw, *draw(st.sampled_from([(), (5,), (H, 3), (2, N, W)])))
    x = Input(TensorType(dtype, tuple(shape)), anything(dtype))
    op = ops.Gather(draw(st.sampled_from([axis, axis - 3])))
    return Problem(op, (x, Input(t, places(-c, c)(t.dtype))))


@st.composite
def gather_elements(draw: st.DrawFn) -> Problem:
    c, axis = draw(st.integers(1, 4)), draw(st.integers(0, 2))
    shape: list[DimLike] = [N, H, W]
    t = index_type(draw, *shape[:axis], shape[axis], *shape[axis + 1 :])
    x = Input(f32(*shape[:axis], c, *shape[axis + 1 :]))
    return Problem(ops.GatherElements(axis), (x, Input(t, places(-c, c)(t.dtype))))


@st.composite
def gather_nd(draw: st.DrawFn) -> Problem:
    batch, m = draw(st.integers(0, 1)), draw(st.integers(1, 2))
    lead = (N,) * batch
    t = index_type(draw, *lead, W, m)
    return Problem(ops.GatherND(batch), (Input(f32(*lead, 3, 4, H)), Input(t, places(-3, 3)(t.dtype))))


@st.composite
def scatter_elements(draw: st.DrawFn) -> Problem:
    axis, reduction = draw(st.integers(0, 2)), draw(st.sampled_from(REDUCTIONS))
    c, k = draw(st.integers(3, 6)), draw(st.integers(1, 3))
    shape: list[DimLike] = [N, H, W]
    x, part = (f32(*shape[:axis], d, *shape[axis + 1 :]) for d in (c, k))
    t = TensorType(DType.I64, part.shape)
    where = Input(t, distinct(c, axis) if reduction == "none" else places(-c, c)(t.dtype))
    return Problem(ops.ScatterElements(reduction, axis), (Input(x), where, Input(part)), SUMS)


@st.composite
def scatter_nd(draw: st.DrawFn) -> Problem:
    reduction, c, k = draw(st.sampled_from(REDUCTIONS)), draw(st.integers(3, 6)), draw(st.integers(1, 3))
    t = TensorType(DType.I64, (k, 1))
    where = Input(t, distinct(c, 0) if reduction == "none" else places(-c, c)(t.dtype))
    return Problem(ops.ScatterND(reduction), (Input(f32(c, H, W)), where, Input(f32(k, H, W))), SUMS)


@st.composite
def top_k(draw: st.DrawFn) -> Problem:
    dtype = draw(st.sampled_from([DType.F32, DType.I64]))  # of few integers, some are equal
    op = ops.TopK(draw(st.integers(1, 3)), draw(st.integers(-3, 2)), draw(st.booleans()))
    return Problem(op, (Input(TensorType(dtype, (3, H, W)), anything(dtype)),), least_size=3)


def cum_sum(draw: st.DrawFn, c: int) -> Op:
    return ops.CumSum(draw(st.integers(-4, 3)), draw(st.booleans()), draw(st.booleans()))


@st.composite
def interpolate(draw: st.DrawFn) -> Problem:
    axis, mode = draw(st.sampled_from([2, 3])), draw(st.sampled_from(["nearest", "linear", "cubic"]))
    d: DimLike = (H, W)[axis - 2]
    scale = draw(st.sampled_from([None, 0.5, 0.75, 1.5, 2.0, 2.25]))  # exact in float32, in which ONNX Runtime computes
    antialias = scale is not None and mode != "nearest" and draw(st.booleans())
    coordinates = ["half_pixel", "asymmetric"] if antialias else ["half_pixel", "align_corners", "asymmetric"]
    size = draw(st.sampled_from([d * 2, d + 3, 7]))
    if scale is not None:
        size = d * int(scale * 4) // 4
    elif mode == "nearest":  # a quotient of sizes in float32 may round to another element
        size = d * 2
    fields: dict[str, object] = {"scale": scale, "mode": mode, "coordinates": draw(st.sampled_from(coordinates))}
    if mode == "nearest":
        fields["rounding"] = draw(st.sampled_from(["round_prefer_floor", "floor", "ceil"]))
        fields["coordinates"] = "asymmetric"
    elif mode == "cubic":
        fields["exclude_outside"] = draw(st.booleans())
    return Problem(ops.Interpolate(axis, size, antialias=antialias, **fields), (image(2),), SUMS, least_size=4)


def spots(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.uniform(-1.5, 1.5, shape).astype(np.float32)


@st.composite
def grid_sample(draw: st.DrawFn) -> Problem:
    mode = draw(st.sampled_from(["nearest", "linear", "cubic"]))
    padding = draw(st.sampled_from(["zeros", "border", "reflection"]))
    c, aligned = draw(st.integers(1, 3)), draw(st.booleans())
    # a place is known to 1e-7 of the image's size, of up to 40 pixels
    return Problem(
        ops.GridSample(mode, padding, aligned), (image(c), Input(f32(N, 3, W, 2), spots)), 1e-4, least_size=2
    )


def boxes(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    corner = rng.uniform(-2, 12, (shape[0], 2))
    return np.concatenate([corner, corner + rng.uniform(0.5, 9, (shape[0], 2))], 1).astype(np.float32)


@st.composite
def roi_align(draw: st.DrawFn) -> Problem:
    mode, scale = draw(st.sampled_from(["avg", "max"])), draw(st.sampled_from([1.0, 0.5]))
    op = ops.RoiAlign(draw(pairs), draw(st.integers(1, 3)), scale, draw(st.booleans()), mode)
    images = Input(TensorType(DType.I64, (W,)), below(2))
    return Problem(op, (Input(f32(2, 3, H, 9)), Input(f32(W, 4), boxes), images), 1e-4)


INDEX_PROBLEMS: dict[str, st.SearchStrategy[Problem]] = {
    "positions": shapes4(lambda draw, c: ops.Positions(draw(st.integers(-4, 3)))),
    "gather": gather(),
    "gather_elements": gather_elements(),
    "gather_nd": gather_nd(),
    "scatter_elements": scatter_elements(),
    "scatter_nd": scatter_nd(),
    "top_k": top_k(),
    "cum_sum": shapes4(cum_sum, SUMS),
    "interpolate": interpolate(),
    "grid_sample": grid_sample(),
    "roi_align": roi_align(),
}
