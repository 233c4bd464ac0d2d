"""Loop nests of the convolutions."""

from collections.abc import Iterator

from graphc.codegen.nest import Buffer, Nest, Var, loop_vars, total
from graphc.ops import Conv2d, scalar
from graphc.ops.scalar import Expr


def lower_conv2d(op: Conv2d, x: Buffer, w: Buffer, *rest: Buffer) -> Iterator[Nest]:
    *extra, y = rest
    k_all, c_group, r_all, s_all = w.type.static_shape()
    loops = n, k, p, q = loop_vars("nkpq", y.shape)
    c, r, s = loop_vars("crs", (c_group, r_all, s_all))
    channel: Expr = c if op.groups == 1 else (k // (k_all // op.groups)) * c_group + c
    row = p * op.stride[0] + r * op.dilation[0] - op.padding[0]
    column = q * op.stride[1] + s * op.dilation[1] - op.padding[1]
    value = total(x.get(n, channel, row, column, fill=0.0) * w[k, c, r, s], c, r, s)
    if op.bias:
        value = value + extra.pop(0)[k]
    yield Nest(y, loops, loops, apply_epilogue(op.epilogue, value, extra, loops))


def apply_epilogue(epilogue: str | None, value: Expr, extra: list[Buffer], loops: tuple[Var, ...]) -> Expr:
    """The fused elementwise tail of a kernel: `epilogue` over x0 = value and the elements of `extra`."""
    if epilogue is None:
        return value
    operands = [value, *(e[loops] for e in extra)]
    return scalar.substitute(scalar.parse(epilogue, [o.dtype for o in operands]), operands)
