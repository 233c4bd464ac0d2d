"""The constants of a direct convolution on a target, and its weights in the order in which they are read."""

from dataclasses import dataclass, replace

from llvmlite import ir

from graphc.codegen.blocks import i64
from graphc.codegen.kernels.pack import Order
from graphc.codegen.kernels.tile import split_vectors
from graphc.codegen.layout import DENSE
from graphc.codegen.nest import Buffer, Nest, loop_vars
from graphc.codegen.target import Target
from graphc.ops import Conv2d

SEGMENT_BYTES = 192 * 1024  # of the copied rows: a part of the second-level cache, beside a tile's weights
LONGEST_SEGMENT = 96  # pixels: enough to hide what a task costs, few enough for two threads to share a small image
WIDE_BYTES = 60 * 1024  # of a tile's weights, from which on passes pay: ResNet-50 takes 10 % less time with them
# Of input channels: 1x1 weights of a pass take 16 KiB of the first-level cache. (8: the same; 2 and 16: 4 % slower)
PASS_BLOCKS = 4
PASS_ROWS, PASS_SEGMENT = 8, 24  # output pixels of a task that takes passes: their sums take 48 KiB


@dataclass(frozen=True)
class Geometry:
    """The constants of a direct convolution on a target."""

    lanes: int
    vectors: int  # of output channels, in a tile
    pixels: int  # at most, in a strip
    groups: int
    c_group: int  # input channels of a group
    k_group: int
    c_block: int  # input channels that lie together: the lanes, or 1 where the input is dense
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int]  # before
    copied: bool  # whether rows are copied first
    segment: int  # output pixels of a task, in a row
    rows: int = 1  # output rows of a task
    pass_blocks: int | None = None  # blocks of input channels in a pass; None: one pass takes all

    @property
    def c_blocks(self) -> int:
        """Blocks of input channels in a group; the last may be partly filled."""
        return -(-self.c_group // self.c_block)

    @property
    def k_blocks(self) -> int:
        """Blocks of output channels in a group."""
        return -(-self.k_group // self.lanes)

    @property
    def tiles(self) -> int:
        """Tiles of output channels in a group."""
        return -(-self.k_blocks // self.vectors)

    @property
    def columns(self) -> int:
        """Input columns under a segment."""
        return (self.segment - 1) * self.stride[1] + (self.kernel[1] - 1) * self.dilation[1] + 1

    @property
    def pointwise(self) -> bool:
        """Whether an output pixel sees one input pixel, in place."""
        return self.kernel == (1, 1) and not self.copied

    @property
    def one_row(self) -> bool:
        """Whether an image is one long row of pixels."""
        return self.pointwise and self.stride == (1, 1)

    @property
    def copied_bytes(self) -> int:
        """Of the rows that are copied for one pass."""
        rows = (self.rows - 1) * self.stride[0] + self.kernel[0]
        blocks = self.pass_blocks or self.c_blocks
        return 4 * rows * blocks * self.columns * self.c_block if self.copied else 0

    @property
    def sums_bytes(self) -> int:
        """Of a task's sums between passes, or those of one strip; one of few dense channels saves none."""
        saved = self.rows * self.segment if self.pass_blocks else self.pixels if self.c_block > 1 else 0
        return 4 * saved * self.vectors * self.lanes

    @property
    def fixed(self) -> tuple[object, ...]:
        """What the code depends on; all other numbers are its arguments, so that most layers share one function."""
        taps = (self.kernel[1], self.dilation[1], self.c_group) if self.c_block == 1 else self.pointwise
        partly = self.c_group % self.c_block, self.k_blocks % self.vectors != 0
        passes = self.pass_blocks and (self.pass_blocks, self.rows, self.segment)
        return self.lanes, self.vectors, self.pixels, self.c_block, taps, self.stride[1], self.copied, *partly, passes


def make_geometry(
    op: Conv2d, x: Buffer, w: Buffer, y: Buffer, target: Target, tile: tuple[int, int] | None = None
) -> Geometry:
    """Decide segment, passes, whether to copy, and the tile, its vectors and pixels, if it is not given."""
    k, c_group, r, s = w.type.static_shape()
    lanes, k_group = target.lanes, k // op.groups
    dense, copied = x.layout == DENSE, x.layout == DENSE or not op.window((r, s)).stays_inside
    g = Geometry(
        lanes, 1, 1, op.groups, c_group, k_group, 1 if dense else lanes,
        (r, s), op.stride, op.dilation, op.padding[:2], copied, 1,
    )  # fmt: skip
    vectors, pixels = tile or split_vectors(g.k_blocks, target, None if g.one_row else y.shape[3])
    g = replace(g, vectors=vectors, pixels=pixels)
    longest, rows, blocks = LONGEST_SEGMENT, 1, None
    if _is_wide(g):
        blocks = PASS_BLOCKS
        if not g.one_row:
            longest, rows = PASS_SEGMENT, PASS_ROWS if op.dilation[0] == 1 else 1
    elif copied:
        longest = min(longest, SEGMENT_BYTES // (4 * r * g.c_blocks * g.c_block * op.stride[1]))
    return replace(g, segment=max(longest // pixels, 1) * pixels, rows=rows, pass_blocks=blocks)


def _is_wide(g: Geometry) -> bool:
    """Whether the weights of a tile, which every strip reads, would come from far away."""
    (r, s), full = g.kernel, g.c_group % g.lanes == 0
    return g.c_block > 1 and full and 4 * r * s * g.c_group * g.vectors * g.lanes > WIDE_BYTES


def order_weights(g: Geometry, turned: bool = False) -> Order:
    """The weights in the order of reading: [group and tile, r, block of c, s, c, vectors * lanes], zero beyond K.

    w is [K,C/groups,R,S] or, if `turned`, [C,K/groups,R,S], of which the last tap is read first.
    """
    r_all, s_all = g.kernel

    def place(b: ir.IRBuilder, r: ir.Value, s: ir.Value) -> tuple[ir.Value, ir.Value]:
        return (b.sub(i64(r_all - 1), r), b.sub(i64(s_all - 1), s)) if turned else (r, s)

    channels = g.groups, g.tiles, g.c_group, g.k_group
    return Order(g.lanes, g.vectors, *channels, g.c_block, g.kernel, *g.kernel, turned, place, "")


def pack_bias(g: Geometry, bias: Buffer, y: Buffer) -> Nest:
    """The bias with zeros up to a whole tile, so that it is read by vectors."""
    shape = (g.groups * g.tiles, g.vectors * g.lanes)
    packed = y.temporary("bias", bias.type.with_shape(*shape))
    t, j = loops = loop_vars("tj", shape)
    k = t * shape[1] + j if g.groups == 1 else (t // g.tiles) * g.k_group + (t % g.tiles) * shape[1] + j
    return Nest(packed, loops, loops, bias.get(k, fill=0.0))
