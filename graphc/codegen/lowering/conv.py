"""Loop nests of the convolutions."""

from collections.abc import Iterator
from math import gcd

from graphc.codegen.lowering.access import merge_spatial, read
from graphc.codegen.nest import Buffer, Nest, Var, loop_vars, total
from graphc.ir import dims
from graphc.ops import scalar
from graphc.ops.conv import Conv2d, Conv2dWeightGradient
from graphc.ops.conv_transpose import ConvTranspose2d
from graphc.ops.locally_connected import LocallyConnected2d
from graphc.ops.scalar import Expr, Lit, call

OUTSIDE = -(2**31)  # as the place of a column, before every image even when a column of the output is added


def lower_conv2d(op: Conv2d, x: Buffer, w: Buffer, *rest: Buffer) -> Iterator[Nest]:
    *operands, y = rest
    bias = operands[:1] if op.bias else []
    extra = operands[len(bias) :]
    k_all, c_group, r_all, s_all = w.type.static_shape()
    window = op.window((r_all, s_all))
    if window.kernel == window.stride == (1, 1) and window.stays_inside:  # 1x1: rows need not be told apart
        x, y, *extra = merge_spatial(x, y, *extra)
    loops = loop_vars("nkpq"[: y.type.rank], y.shape)
    (n, k, *pixel), (c, r, s) = loops, loop_vars("crs", (c_group, r_all, s_all))
    channel: Expr = c if op.groups == 1 else (k // (k_all // op.groups)) * c_group + c
    if len(pixel) == 1:
        value = total(x[n, channel, pixel[0]] * w[k, c, 0, 0], c)
    else:
        cell = read(window, x, (n, channel), (pixel[0], pixel[1]), (r, s), fill=0.0)
        # r outermost, since it decides whether a row is outside; s innermost, where w lies contiguous and LLVM unrolls.
        # (3x3, 128 to 128 maps of 28x28: 222 GFLOP/s; in the order r, s, c 178, c, r, s 120.)
        value = total(cell * w[k, c, r, s], r, c, s)
    if bias:
        value = value + bias[0][k]
    yield Nest(y, loops, loops, apply_epilogue(op.epilogue, value, extra, loops))


def lower_conv2d_weight_gradient(op: Conv2dWeightGradient, x: Buffer, g: Buffer, dw: Buffer) -> Iterator[Nest]:
    """Sums run across lanes along q, where the rows of g lie contiguous, and several k share what is read of x.

    r and s are one loop, t: along s alone dw and x are contiguous, too, but with 3 of 16 lanes.
    """
    k_all, c_group, r_all, s_all = dw.type.static_shape()
    dw = dw.view(k_all, c_group, r_all * s_all)
    loops = k, c, t = loop_vars("kct", dw.shape)
    n, p, q = loop_vars("npq", (g.shape[0], *g.shape[2:]))
    r, s = t // s_all, t % s_all
    channel: Expr = c if op.groups == 1 else (k // (k_all // op.groups)) * c_group + c
    cell = read(op.window, x, (n, channel), (p, q), (r, s), fill=0.0)
    yield Nest(dw, loops, loops, total(cell * g[n, k, p, q], n, p, q))


def lower_conv_transpose2d(op: ConvTranspose2d, x: Buffer, w: Buffer, *rest: Buffer) -> Iterator[Nest]:
    """y[p,q] gathers x[(p+pad-r*dilation)/stride, ...] * w[r,s] over the taps r, s for which that divides.

    With stride S, the columns q = j*S + b of one phase b use the same taps, and along j they read neighbours in x. So
    a first nest computes the columns phase by phase, and a second one puts them in order.
    """
    *extra, y = rest
    c_all, k_group, r_all, s_all = w.type.static_shape()
    (top, left, _, _), stride, c_group = op.padding, op.stride[1], c_all // op.groups
    loops = n, k, p, q = loop_vars("nkpq", y.shape)
    b, j = loop_vars("bj", (stride, dims.ceil_div(y.shape[3], stride)))
    phase, column = (b, j) if stride > 1 else (Lit(0), q)
    t, r, row = divide_taps("t", p + top, op.stride[0], op.dilation[0], r_all)
    u, s, shift = divide_taps("u", phase + left, stride, op.dilation[1], s_all)
    c = Var("c", c_group)
    channel: Expr = c if op.groups == 1 else (k // k_group) * c_group + c
    weight = w[channel, k if op.groups == 1 else k % k_group, r, s]
    value = total(x.get(n, channel, row, column + shift, fill=0.0) * weight, c, t, u)
    if stride > 1:
        phases = y.temporary("phases", y.type.with_shape(*y.shape[:3], stride, j.extent))
        yield Nest(phases, (n, k, p, b, j), (n, k, p, b, j), value)
        value = phases[n, k, p, q % stride, q // stride]
    if op.bias:
        value = value + extra.pop(0)[k]
    yield Nest(y, loops, loops, apply_epilogue(op.epilogue, value, extra, loops))


def divide_taps(name: str, phase: Expr, stride: int, dilation: int, kernel: int) -> tuple[Var, Expr, Expr]:
    """The taps r < kernel for which phase - r*dilation divides by stride: (t that counts them, r, the quotient).

    They lie `step` apart. Where there are fewer than t counts, r is any tap and the quotient is OUTSIDE.
    """
    common = gcd(stride, dilation)
    step = stride // common
    t = Var(name, dims.ceil_div(kernel, step))
    # r*(dilation/common) = phase/common modulo step, solved for the first r by the inverse of dilation/common
    first = (phase // common * pow(dilation // common, -1, step)) % step if step > 1 else Lit(0)
    r = first + t * step
    quotient = (phase - first * dilation) // stride - t * (dilation // common)
    if kernel % step:
        quotient = call("select", call("lt", r, kernel), quotient, OUTSIDE)
        r = call("min", r, kernel - 1)
    if common > 1:
        quotient = call("select", call("eq", phase % common, 0), quotient, OUTSIDE)
    return t, r, quotient


def lower_locally_connected2d(op: LocallyConnected2d, x: Buffer, w: Buffer, *rest: Buffer) -> Iterator[Nest]:
    *bias, y = rest
    loops = n, k, p, q = loop_vars("nkpq", y.shape)
    _, c_all, r_all, s_all, _, _ = w.type.static_shape()
    c, r, s = loop_vars("crs", (c_all, r_all, s_all))
    cell = read(op.window((r_all, s_all)), x, (n, c), (p, q), (r, s), fill=0.0)
    value = total(cell * w[k, c, r, s, p, q], c, r, s)
    yield Nest(y, loops, loops, value + bias[0][k, p, q] if bias else value)


def apply_epilogue(epilogue: str | None, value: Expr, extra: list[Buffer], loops: tuple[Var, ...]) -> Expr:
    """The fused elementwise tail of a kernel: `epilogue` over x0 = value and the elements of `extra`."""
    if epilogue is None:
        return value
    operands = [value, *(e[loops] for e in extra)]
    return scalar.substitute(scalar.parse(epilogue, [o.dtype for o in operands]), operands)
