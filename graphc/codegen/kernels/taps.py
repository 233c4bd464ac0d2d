"""A convolution as a pointwise one, whose channels are the inputs under each tap, one tap after the other.

Rows of a few pixels make short strips, and each strip reads all weights: 512 channels from 14x14 to 7x7 by 3x3 at
stride 2 run at 70 % of the peak. Of the gathered inputs, [N,R*S*C,P,Q], all pixels are one long row, and run at 92 %.
To gather them takes 3 % of that time.
"""

from dataclasses import replace

from llvmlite import ir

from graphc.codegen.blocks import i64
from graphc.codegen.kernels.conv_geometry import PASS_BLOCKS, Geometry, make_geometry
from graphc.codegen.kernels.pack import Order
from graphc.codegen.nest import Buffer, Nest, loop_vars
from graphc.codegen.target import Target
from graphc.ops import Conv2d

# Pixels of a row. With 7 a layer takes 11 to 23 % less time, with 12 5 %; with 13 nothing is gained, 14 lose 4 %.
MOST_PIXELS = 12
MOST_BYTES = 4 << 20  # of an image's gathered inputs: a part of the last cache


def gathers(op: Conv2d, x: Buffer, w: Buffer, y: Buffer, target: Target) -> bool:
    """Whether a direct convolution gathers its inputs: several short rows, each of which would read many weights."""
    (_, c, r, s), (p, q) = w.type.static_shape(), y.shape[2:]
    if op.groups > 1 or r * s == 1 or not isinstance(p, int) or not isinstance(q, int):
        return False
    whole = c % (PASS_BLOCKS * target.lanes) == 0  # 96 channels of 8x8: gathered, they take 15 % more time
    wide = whole and make_geometry(op, x, w, y, target).pass_blocks is not None
    return wide and p > 1 and q <= MOST_PIXELS and 4 * r * s * c * p * q <= MOST_BYTES


def gather_taps(op: Conv2d, x: Buffer, w: Buffer, y: Buffer) -> tuple[Conv2d, Buffer, Buffer, Nest]:
    """The pointwise convolution, its inputs and its weights, [K,R*S*C,1,1] in `order_taps`; and what gathers."""
    (k, c, r_all, s_all), (n, _, p, q), lanes = w.type.static_shape(), y.shape, x.layout.block
    seen = replace(x.temporary("taps", x.type.with_shape(n, r_all * s_all * c, p, q)), layout=x.layout)
    loops = image, r, s, block, row, column, lane = loop_vars("nrsbpql", (n, r_all, s_all, c // lanes, p, q, lanes))
    height = row * op.stride[0] + r * op.dilation[0] - op.padding[0]
    width = column * op.stride[1] + s * op.dilation[1] - op.padding[1]
    value = x.stored().get(image, block, height, width, lane, fill=0.0)
    # A task is a block under a tap: to find the place of each pixel from its number would take 8 times as long
    nest = Nest(seen.stored().view(*(v.extent for v in loops)), loops, loops, value, parallel=4)
    pointwise = replace(op, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1))
    return pointwise, seen, w.view(k, r_all * s_all * c, 1, 1), nest


def order_taps(g: Geometry, kernel: tuple[int, int], turned: bool) -> Order:
    """The weights of the pointwise convolution `g`, made from those of a kernel: [K,C,R,S] or, if `turned`, [C,K,R,S]
    whose last tap is read first."""
    r_all, s_all = kernel
    taps = r_all * s_all

    def place(b: ir.IRBuilder, r: ir.Value, s: ir.Value) -> tuple[ir.Value, ir.Value]:
        tap = b.add(b.mul(r, i64(s_all)), s)
        return (b.sub(i64(taps - 1), tap) if turned else tap), i64(0)

    channels = 1, g.tiles, g.c_group // taps, g.k_group
    return Order(g.lanes, g.vectors, *channels, g.c_block, kernel, taps, 1, turned, place, "taps")
