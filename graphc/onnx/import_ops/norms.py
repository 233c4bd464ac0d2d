"""Normalisations by statistics of the input itself, as compositions: passes fuse what lies between the reductions."""

from collections.abc import Callable

from graphc.errors import ShapeError, UnsupportedError
from graphc.ir import Value
from graphc.onnx.import_ops.indexing import positions
from graphc.onnx.import_ops.shapes import positive_axis
from graphc.onnx.reader import NodeReader
from graphc.ops.elementwise import Fused, Mul
from graphc.ops.reduce import ArgMax, Mean, Sum
from graphc.ops.shape import Reshape

Axes = tuple[int, ...]


def _center(n: NodeReader, x: Value, axes: Axes) -> tuple[Value, Value, Value]:
    """The mean over `axes`, x minus the mean, and its variance, in two passes: the squares of x would cancel."""
    mean = n.step(Mean(axes), x)
    centered = n.step(Fused("(x0 - x1)"), x, mean)
    return mean, centered, n.step(Mean(axes), n.step(Mul(), centered, centered))


def _column(n: NodeReader, i: int, rank: int) -> Value:
    """Input i, a vector of a number for each channel, as [C,1,...,1] beside a tensor of this rank."""
    if n.constant(i) is not None:
        return n.derive(i, "column", lambda a: a.reshape(-1, *[1] * (rank - 2)))
    v = n.value(i)
    return n.step(Reshape((*v.type.shape, *[1] * (rank - 2))), v)


def _affine(epsilon: float, bias: bool) -> Fused:
    """The normalised value from x - mean, the variance, the scale and, if there is one, the bias."""
    scaled = f"((x0 / sqrt((x1 + {epsilon!r}))) * x2)"
    return Fused(f"({scaled} + x3)" if bias else scaled)


def read_instance_norm(n: NodeReader) -> None:
    """InstanceNormalization: over the spatial dims of each image and channel (Ulyanov et al. 2016)."""
    x = n.value(0)
    if x.type.rank < 3:
        raise ShapeError(f"expected an image batch [N,C,...], got {x.type}")
    _, centered, variance = _center(n, x, tuple(range(2, x.type.rank)))
    affine = _affine(n.real("epsilon", 1e-5), True)
    n.emit(affine, centered, variance, _column(n, 1, x.type.rank), _column(n, 2, x.type.rank))


def read_layer_norm(n: NodeReader) -> None:
    """LayerNormalization over the dims from `axis` on (Ba et al. 2016); mean and 1/deviation where they are used."""
    x, epsilon = n.value(0), n.real("epsilon", 1e-5)
    n.integer("stash_type", 1)  # of the statistics, for inputs with fewer bits than float32
    axes = tuple(range(positive_axis(n.integer("axis", -1), x.type.rank), x.type.rank))
    mean, centered, variance = _center(n, x, axes)
    if n.used_outputs > 1:
        n.deliver(1, mean)
    if n.used_outputs > 2:
        n.deliver(2, n.step(Fused(f"(1.0 / sqrt((x0 + {epsilon!r})))"), variance))
    bias = [n.value(2)] if n.has_input(2) else []
    n.emit(_affine(epsilon, bool(bias)), centered, variance, n.value(1), *bias)


def read_rms_norm(n: NodeReader) -> None:
    """RMSNormalization: x / sqrt(mean of x^2 + epsilon) * scale (Zhang and Sennrich 2019)."""
    x = n.value(0)
    n.integer("stash_type", 1)
    axes = tuple(range(positive_axis(n.integer("axis", -1), x.type.rank), x.type.rank))
    n.emit(_affine(n.real("epsilon", 1e-5), False), x, n.step(Mean(axes), n.step(Mul(), x, x)), n.value(1))


def read_group_norm(n: NodeReader) -> None:
    """GroupNormalization over groups of channels (Wu and He 2018); factors for groups, since opset 21 for channels."""
    x, groups = n.value(0), n.integer("num_groups", 0)
    n.integer("stash_type", 1)
    channels = x.type.shape[1] if x.type.rank > 2 else None
    if not isinstance(channels, int) or groups < 1 or channels % groups:
        raise ShapeError(f"expected [N,C,...] with C a multiple of {groups} groups, got {x.type}")
    grouped = n.step(Reshape((x.type.shape[0], groups, -1)), x)
    _, centered, variance = _center(n, grouped, (2,))
    normal = n.step(Fused(f"(x0 / sqrt((x1 + {n.real('epsilon', 1e-5)!r})))"), centered, variance)
    affine = Fused("((x0 * x1) + x2)")
    if n.opset < 21:
        scaled = n.step(affine, normal, _column(n, 1, 3), _column(n, 2, 3))
        return n.emit(Reshape(x.type.shape), scaled)
    factors = _column(n, 1, x.type.rank), _column(n, 2, x.type.rank)
    return n.emit(affine, n.step(Reshape(x.type.shape), normal), *factors)


def read_mean_variance_norm(n: NodeReader) -> None:
    """MeanVarianceNormalization: (x - mean) / (deviation + 1e-9)."""
    x = n.value(0)
    axes = tuple(positive_axis(a, x.type.rank) for a in n.integers("axes", (0, 2, 3)))
    _, centered, variance = _center(n, x, axes)
    n.emit(Fused("(x0 / (sqrt(x1) + 1e-09))"), centered, variance)


def read_lp_norm(n: NodeReader) -> None:
    """LpNormalization: x by the 1- or 2-norm along an axis; 0 where that is 0."""
    x, p = n.value(0), n.integer("p", 2)
    if p not in (1, 2):
        raise ShapeError(f"p: expected 1 or 2, got {p}")
    axis = positive_axis(n.integer("axis", -1), x.type.rank)
    total = n.step(Sum((axis,)), n.step(Fused("abs(x0)" if p == 1 else "(x0 * x0)"), x))
    norm = total if p == 1 else n.step(Fused("sqrt(x0)"), total)
    n.emit(Fused("select(eq(x1, 0.0), 0.0, (x0 / x1))"), x, norm)


def read_global_lp_pool(n: NodeReader) -> None:
    """GlobalLpPool: the p-norm over the spatial dims."""
    x, p = n.value(0), n.integer("p", 2)
    if x.type.rank < 3 or p < 1:
        raise ShapeError(f"expected an image batch [N,C,...] and p >= 1, got {x.type} and p={p}")
    powers = n.step(Fused(write_power(p)), x)
    total = n.step(Sum(tuple(range(2, x.type.rank))), powers)
    n.emit(Fused(write_root(p)), total)


def write_power(p: int) -> str:
    """|x0|^p as an expression."""
    return {1: "abs(x0)", 2: "(x0 * x0)"}.get(p, f"pow(abs(x0), {float(p)!r})")


def write_root(p: int) -> str:
    """x0^(1/p) as an expression."""
    return {1: "x0", 2: "sqrt(x0)"}.get(p, f"pow(x0, {1 / p!r})")


def read_hardmax(n: NodeReader) -> None:
    """Hardmax: 1 at the first maximum along the axis, else 0 (before opset 13: over all dims from the axis on)."""
    x = n.value(0)
    axis = positive_axis(n.integer("axis", -1 if n.opset >= 13 else 1), x.type.rank)
    if n.opset < 13 and axis != x.type.rank - 1:
        raise UnsupportedError(f"opset {n.opset} runs over several dims from axis {axis} on")
    found = n.step(ArgMax(axis), x)
    n.emit(Fused(f"to_{x.type.dtype.value}(eq(x0, x1))"), positions(n, x, axis), found)


HANDLERS: dict[str, Callable[[NodeReader], None]] = {
    "InstanceNormalization": read_instance_norm,
    "LayerNormalization": read_layer_norm,
    "RMSNormalization": read_rms_norm,
    "GroupNormalization": read_group_norm,
    "MeanVarianceNormalization": read_mean_variance_norm,
    "LpNormalization": read_lp_norm,
    "GlobalLpPool": read_global_lp_pool,
    "Hardmax": read_hardmax,
}
