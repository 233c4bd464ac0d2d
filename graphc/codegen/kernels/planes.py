"""The constants of a convolution with pixels in the lanes (conv_planes.py), and its weights in the order of reading."""

from dataclasses import dataclass

from graphc.codegen.layout import DENSE
from graphc.codegen.nest import Buffer, Nest, loop_vars
from graphc.codegen.target import Target
from graphc.ops import Conv2d, ConvTranspose2d

# (registers, whether multiply-add is one instruction) -> {rows of sums: the most vectors of pixels beside them}: the
# fastest of all tiles, 3x3 on 8 input channels. AVX-512: 8 channels at 183 of 245 GFLOP/s, 4 at 163, 2 at 114.
VECTORS = {
    (32, True): {8: 3, 7: 3, 6: 3, 5: 3, 4: 6, 3: 6, 2: 8, 1: 8},
    (16, True): {6: 2, 5: 2, 4: 3, 3: 3, 2: 5, 1: 8},
    (16, False): {3: 3, 2: 4, 1: 8},
}
ROWS = 4  # of a task. 8 copy fewer rows twice, 2 % of the time; but the tiles of a strip begin between them
LONGEST_SEGMENT = 384  # pixels
COPIED_BYTES = 128 * 1024  # of the copied rows: a part of the second-level cache


@dataclass(frozen=True)
class Planes:
    """Such a convolution on a target; or a transposed one whose windows lie beside each other, with no more than one
    tap for a result: of each pixel it makes `phases` of them, rows and columns, each by a 1x1 kernel of its own.
    """

    lanes: int
    channels: int  # of a tile
    vectors: int  # of pixels, at most, in a strip
    k: int
    c: int
    c_block: int  # input channels that lie together: the lanes, or 1 where the input is dense
    kernel: tuple[int, int]
    stride: int  # of rows; that of columns is 1
    dilation: tuple[int, int]
    padding: tuple[int, int]  # before
    phases: tuple[int, int]

    @property
    def sums(self) -> int:
        """Rows of sums in a tile: the phases of a row for each channel."""
        return self.channels * self.phases[1]

    @property
    def tiles(self) -> int:
        """Tiles of output channels."""
        return -(-self.k // self.channels)

    @property
    def strip(self) -> int:
        """Pixels of a whole strip."""
        return self.vectors * self.lanes

    @property
    def planes(self) -> int:
        """Input channels that are copied: whole blocks."""
        return -(-self.c // self.c_block) * self.c_block

    @property
    def rows(self) -> int:
        """Rows of a task: fewer, if many channels are copied for it."""
        fitting = [n for n in range(2, ROWS + 1) if self._copied(n) * self.strip <= COPIED_BYTES]
        return max(fitting, default=1)

    @property
    def copied_rows(self) -> int:
        """Input rows under a task's."""
        return (self.rows - 1) * self.stride + (self.kernel[0] - 1) * self.dilation[0] + 1

    def _copied(self, rows: int) -> int:
        """Bytes that are copied for a column of so many rows."""
        return 4 * self.planes * ((rows - 1) * self.stride + (self.kernel[0] - 1) * self.dilation[0] + 1)

    @property
    def segment(self) -> int:
        """Columns of a task, at most."""
        most = min(LONGEST_SEGMENT, COPIED_BYTES // self._copied(self.rows))
        return max(most // self.strip, 1) * self.strip

    @property
    def columns(self) -> int:
        """Input columns under a segment, up to a whole vector: then the rows begin at cache lines."""
        return -(-(self.segment + (self.kernel[1] - 1) * self.dilation[1]) // self.lanes) * self.lanes


def make_planes(op: Conv2d | ConvTranspose2d, x: Buffer, w: Buffer, y: Buffer, target: Target) -> Planes:
    """Choose the tile of sums."""
    c, k, (r, s) = x.shape[1], y.shape[1], w.type.static_shape()[2:]
    assert isinstance(c, int) and isinstance(k, int)
    conv = op if isinstance(op, Conv2d) else op.turned((r, s))
    kernel, phases = ((r, s), (1, 1)) if conv else ((1, 1), (r, s))
    conv = conv or Conv2d()
    tiles = {sums: v for sums, v in VECTORS[target.registers, target.fused].items() if sums % phases[1] == 0}

    def cost(sums: int) -> float:
        """Of a vector of pixels: FMAs, and what is loaded for them, two at a time; most loads cross a line."""
        return -(-k * phases[1] // sums) * max(sums * tiles[sums], sums + 2 * tiles[sums]) / tiles[sums]

    sums = min(tiles, key=cost)
    return Planes(
        target.lanes, sums // phases[1], tiles[sums], k, c, 1 if x.layout == DENSE else target.lanes,
        kernel, conv.stride[0], conv.dilation, conv.padding[:2], phases,
    )  # fmt: skip


def pack_planes(p: Planes, w: Buffer, y: Buffer, transposed: bool) -> Nest:
    """The weights as [tile, phase of rows, r, c, s, channel of the tile and phase of columns], zero beyond K.

    w is [K,C,R,S] or, if `transposed`, [C,K,R,S], of which the last tap is read first, or each tap is a phase.
    """
    (r_all, s_all), (above, beside) = p.kernel, p.phases
    shape = (p.tiles, above, r_all, p.c, s_all, p.channels, beside)
    tile, a, r, c, s, k, b = loops = loop_vars("tarcskb", shape)
    packed, channel = y.temporary("weights", w.type.with_shape(*shape)), tile * p.channels + k
    tap = (r_all - 1 - r + a, s_all - 1 - s + b) if transposed else (r, s)
    return Nest(packed, loops, loops, w.get(*((c, channel) if transposed else (channel, c)), *tap, fill=0.0))
