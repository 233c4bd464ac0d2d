"""Which convolutions Winograd's minimal filtering computes, in which form, and how their work is cut.

A form is a transform along rows and one along columns: F(4x4, 3x3), F(2x2, 5x5), and of filters of one row or column,
F(4, 3) and, for 7 taps, F(4, 4) + F(4, 3). All take 1.7 to 4 times fewer products than the direct convolution, and keep
within 5e-6 of the largest output against float64.
"""

from dataclasses import dataclass

from graphc.codegen.kernels.tile import split_vectors
from graphc.codegen.kernels.transforms import IDENTITY, Transform, make_transform, split_taps
from graphc.codegen.nest import Buffer
from graphc.codegen.target import Target
from graphc.ops import Conv2d

FOUR, SEVEN = make_transform(4, 3), split_taps(4, 4, 3)
FORMS = {
    (3, 3): (FOUR, FOUR),
    (5, 5): (make_transform(2, 5), make_transform(2, 5)),
    (1, 3): (IDENTITY, FOUR),
    (3, 1): (FOUR, IDENTITY),
    (1, 7): (IDENTITY, SEVEN),
    (7, 1): (SEVEN, IDENTITY),
}  # fmt: skip
FEW_CHANNELS = 256  # input and output channels together, up to which V and M of 24 tiles at 36 places fit 1 MiB
TILES = (24, 54)  # of a block, with few and with many channels, at 36 places
MOST_TILES = 96
FEWEST_CHANNELS = 16  # with fewer, the transforms cost more than the products save
WEIGHT_BANDWIDTH = 8  # bytes a cycle from the last cache, of which the weights of a wide layer come
TRAINED_IMAGES = 8  # of a batch whose size is open: what small networks are trained with
TRANSFORM_COST = 1.25  # the transforms beside the products, at 64 to 128 channels
MANY_OUTPUTS = 256  # output channels from which on two tasks share a block: transforming inputs twice costs 4 % at most


@dataclass(frozen=True)
class Shape:
    """The constants of one layer."""

    lanes: int
    vectors: int
    pixels: int
    c: int
    k: int
    kernel: tuple[int, int]

    @property
    def rows(self) -> Transform:
        """What is done along columns of an image, to rows of it."""
        return FORMS[self.kernel][0]

    @property
    def columns(self) -> Transform:
        """What is done along its rows."""
        return FORMS[self.kernel][1]

    @property
    def places(self) -> int:
        """Products for a tile and a pair of channels."""
        return self.rows.products * self.columns.products

    @property
    def c_blocks(self) -> int:
        """Blocks of input channels; the last may be partly filled."""
        return -(-self.c // self.lanes)

    @property
    def k_blocks(self) -> int:
        """Blocks of output channels."""
        return -(-self.k // self.lanes)

    @property
    def k_tiles(self) -> int:
        """Register tiles of output channels."""
        return -(-self.k_blocks // self.vectors)

    @property
    def parts(self) -> int:
        """Tasks that share a block of tiles."""
        return 2 if self.k >= MANY_OUTPUTS else 1

    @property
    def part_tiles(self) -> int:
        """Register tiles of output channels in a part."""
        return -(-self.k_tiles // self.parts)

    @property
    def tiles(self) -> int:
        """Tiles of results in a block."""
        scaled = TILES[self.c + self.k > FEW_CHANNELS] * 36 // self.places
        return min(MOST_TILES, scaled // self.pixels * self.pixels)

    @property
    def v_place(self) -> int:
        """Elements from one place of V to the next."""
        return (self.c_blocks * self.tiles | 1) * self.lanes

    @property
    def m_place(self) -> int:
        """Elements from one place of M to the next."""
        return (self.part_tiles * self.vectors * self.tiles | 1) * self.lanes


def make_shape(w: Buffer, target: Target) -> Shape:
    """The shape of a layer with these weights."""
    k, c, *kernel = w.type.static_shape()
    return Shape(target.lanes, *split_vectors(-(-k // target.lanes), target), c, k, (kernel[0], kernel[1]))


def winograd_fits(op: Conv2d, w: Buffer) -> bool:
    """Whether there is a form for the convolution, and enough channels."""
    k, c, r, s = w.type.static_shape()
    plain = op.stride == op.dilation == (1, 1) and op.groups == 1
    return plain and (r, s) in FORMS and min(k, c) >= FEWEST_CHANNELS


def winograd_pays(op: Conv2d, w: Buffer, y: Buffer, target: Target, fresh: bool = False) -> bool:
    """Whether a convolution takes less time so than directly, by what both multiply and load.

    `fresh` weights are others in every run, which transforms them then.
    """
    _, _, r, s = w.type.static_shape()
    if not winograd_fits(op, w):
        return False
    (p, q), shape = y.shape[2:], make_shape(w, target)
    if not isinstance(p, int) or not isinstance(q, int):
        return True  # as for a large image
    tiles = -(-p // shape.rows.m) * -(-q // shape.columns.m)
    cycles = 2 * target.lanes  # products in one
    direct = p * q * r * s / cycles  # cycles for a pair of channels
    loaded = -(-tiles // shape.tiles) * shape.places * 4 / WEIGHT_BANDWIDTH
    images = y.shape[0] if isinstance(y.shape[0], int) else TRAINED_IMAGES
    # what is written more than directly; a store loads its line before
    written = (shape.places - r * s) * 4 * 2 / WEIGHT_BANDWIDTH if fresh else 0.0
    return images * (tiles * shape.places * TRANSFORM_COST / cycles + loaded) + written < images * direct
