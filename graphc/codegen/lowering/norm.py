"""Loop nests of the normalisations."""

from collections.abc import Iterator

from graphc.codegen.lowering.access import merge_spatial
from graphc.codegen.nest import Buffer, Nest, loop_vars, total
from graphc.ops.checks import check_image
from graphc.ops.norm import BatchNorm, LocalResponseNorm
from graphc.ops.scalar import Expr, call


def lower_batch_norm(
    op: BatchNorm,
    x: Buffer,
    scale: Buffer,
    bias: Buffer,
    mean: Buffer,
    variance: Buffer,
    y: Buffer,
) -> Iterator[Nest]:
    x, y = merge_spatial(x, y)
    loops = loop_vars("ncijklmo"[: y.type.rank], y.shape)
    c = loops[1]
    factor = scale[c] / call("sqrt", variance[c] + op.epsilon)
    yield Nest(y, loops, loops, (x[loops] - mean[c]) * factor + bias[c])


def lower_local_response_norm(op: LocalResponseNorm, x: Buffer, y: Buffer) -> Iterator[Nest]:
    before, after = op.reach(check_image(x.type))
    x, y = merge_spatial(x, y)
    loops = n, c, *pixel = loop_vars("ncij"[: y.type.rank], y.shape)
    (d,) = loop_vars("d", (before + 1 + after,))
    near = x.get(n, c + d - before, *pixel, fill=0.0)
    base = total(near * near, d) * (op.alpha / op.size) + op.k
    yield Nest(y, loops, loops, x[loops] / raise_to(base, op.beta))


def raise_to(x: Expr, exponent: float) -> Expr:
    """x**exponent for x >= 0; the usual 3/4 by two square roots instead of a logarithm and an exponential."""
    if exponent == 0.75:
        root = call("sqrt", x)
        return root * call("sqrt", root)
    return call("pow", x, exponent)
