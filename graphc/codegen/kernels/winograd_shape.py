"""Which convolutions Winograd's minimal filtering computes, in which form, and how their work is cut.

A form is a transform along rows and one along columns: F(4x4, 3x3) or, on small maps, F(2x2, 3x3), whose weights are
less than half; F(2x2, 5x5); and of filters of one row or column F(4, 3) and, for 7 taps, F(4, 4) + F(4, 3). At stride 2
F(2x2) of each of the four phases that even and odd rows and columns make, added up before the results. Of filters of 6
rows and more, columns alone are transformed. All take 1.4 to 4 times fewer products than the direct convolution, and
keep within 5e-6 of the largest output against float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from graphc.codegen.kernels.tile import CHUNK, narrow_tile, split_vectors
from graphc.codegen.kernels.transforms import (
    IDENTITY,
    Transform,
    make_transform,
    split_phases,
    split_taps,
    sum_runs,
    take_taps,
)
from graphc.codegen.nest import Buffer
from graphc.codegen.target import Target
from graphc.ir import DimLike, Value, dims
from graphc.ops import Conv2d

Form = tuple[Transform, Transform]  # what is done along columns of an image, to rows of it; and along its rows

TWO, FOUR, SEVEN = make_transform(2, 3), make_transform(4, 3), split_taps(4, 4, 3)
# Kernel and stride; the first form is the best for large images. At stride 2, F(4x4, 3x3) would take 19 % fewer
# products than F(2x2, 3x3), but 3.2 times the weights, and 8 % more time at 64 to 128 channels.
FORMS: dict[tuple[tuple[int, int], tuple[int, int]], tuple[Form, ...]] = {
    ((3, 3), (1, 1)): ((FOUR, FOUR), (TWO, TWO)),
    ((5, 5), (1, 1)): ((make_transform(2, 5),) * 2,),
    ((1, 3), (1, 1)): ((IDENTITY, FOUR),),
    ((3, 1), (1, 1)): ((FOUR, IDENTITY),),
    ((1, 7), (1, 1)): ((IDENTITY, SEVEN),),
    ((7, 1), (1, 1)): ((SEVEN, IDENTITY),),
    **{((r, r), (2, 2)): ((split_phases(2, r, 2),) * 2,) for r in (3, 4, 5)},
}
FEW_CHANNELS = 256  # input and output channels together, up to which V and M of 24 tiles at 36 places fit 1 MiB
TILES = (24, 54)  # of a block, with few and with many channels, at 36 places
MOST_TILES = 96
FEWEST_CHANNELS = 16  # with fewer, the transforms cost more than the products save
# Transformed weights that do not fit the second-level cache come from memory in every run, for a second block of tiles
# from the last cache: at so many bytes a cycle. (A loop that only reads gets 4 from an Intel Xeon's, Sapphire Rapids.)
SECOND_CACHE = 1 << 20  # bytes of weights
FAR, LAST, NEAR = 4, 6, 32
# Bytes of stored weights of a place and a register tile, which stay in the first-level cache while all tiles take them:
# of a pass, and those up to which there is one. In one for all channels, 256 and 512 take 10 to 20 % more time.
PASS_BYTES, ONE_PASS = 16 << 10, 32 << 10
LATE_CHANNELS = 16  # input channels whose weights are transformed together; with 32, layers take 5 to 15 % more time
# By stride: what it costs to add the sums of such a chunk to those of the ones before; and operations for each number
# that a transform of weights makes, with what it loads and stores. At stride 2, 25 products make 9 sums.
LATE_SUMS, LATE_COST = {1: 1.08, 2: 1.03}, {1: 6, 2: 2.5}
# Fewer tiles beside a register tile take as long: weights come from the second-level cache, or late from the first
FEWEST_TILES, FEWEST_LATE = 8, 4
# Where the size of results is open, weights of so many pairs of channels are there both stored, at most 9 MB, and raw,
# if late ones would be taken for TYPICAL results; a run with MANY rows and columns of them takes the stored ones.
# (ResNet-18, stored ÷ late: 128 channels of 28x28 1.08, 40x40 0.88, 48x48 and more 0.8; 256 of 14x14 1.5, 20x20 1.15,
# 24x24 to 40x40 0.9. A layer alone takes stored ones from nearer caches: 256 of 14x14 0.9, of 4x4 1.9.)
TYPICAL, MANY, PAIRS = (14, 14), 32, range(5 << 10, (1 << 16) + 1)
DIRECT_COST = 1.1  # of a direct convolution, beside its products
SHOWN = 0.25  # of the time that weights take to load, what shows although products are computed meanwhile
TRAINED_IMAGES = 8  # of a batch whose size is open: what small networks are trained with
# The transforms beside the products, at 64 to 128 channels, by stride: F(2x2) at stride 2 takes additions alone
TRANSFORM_COST = {1: 1.25, 2: 1.15}
# Of images of few channels, which lie dense (16 lanes: up to 7): m results along a column; F(4, 5) would need 8 points
DENSE_CHANNELS, ROWS, MOST_TAPS = 7, 4, 4
LARGEST_ROWS = 16  # of filters: the code holds all their taps, and its matrices grow with the square
# Filters of so many rows and more are transformed along columns alone (winograd_large.py), in blocks of so many tiles
LARGE_ROWS, BLOCK_ROWS, BLOCK_COLUMNS = 6, 4, 16
FEW = 7  # rows and columns of results from which on these are filtered: fewer wait for the weights
# Cycles for a sum of products: stored, loaded, and combined to results, which takes about 2 operations
RESULT_COST = 2.0
# With so many output channels, M has room for half of them at a time
MANY_OUTPUTS = 256


@dataclass(frozen=True)
class Shape:
    """The constants of one layer."""

    lanes: int
    vectors: int
    pixels: int
    c: int
    k: int
    rows: Transform
    columns: Transform
    late: bool = False  # whether weights are transformed in every run, a few channels at a time
    edges: tuple[Transform | None, Transform | None] = None, None  # what makes the last tiles, if these are smaller

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width of the filters."""
        return self.rows.r, self.columns.r

    @property
    def form(self) -> str:
        """Such as 4x4_3x3, or 4x1_7x7_stride2."""
        (r, s), m, n, stride = self.kernel, self.rows.m, self.columns.m, self.stride
        return f"{m}x{n}_{r}x{s}" + (f"_stride{stride}" if stride > 1 else "")

    @property
    def name(self) -> str:
        """Of the kernel."""
        return f"winograd{self.form}_{self.vectors}x{self.pixels}{'_late' if self.late else ''}"

    @property
    def axes(self) -> Form:
        """What is done to rows and to columns."""
        return self.rows, self.columns

    @property
    def stride(self) -> int:
        """From one row of inputs to the next of its phase."""
        return self.rows.stride

    @property
    def large(self) -> bool:
        """Whether WinogradLarge computes it."""
        return _sums_runs(self.axes)

    @property
    def products(self) -> int:
        """Products for a tile and a pair of channels."""
        return self.rows.products * self.columns.products

    @property
    def places(self) -> int:
        """Sums of products for a tile and an output channel."""
        return self.rows.places * self.columns.places

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
    def half_tiles(self) -> int:
        """Register tiles of output channels in one of two tasks that share a block; all, if each has half of its tiles.

        Half of the channels needs all inputs transformed, half of the tiles needs all weights, which were transformed
        twice if that is done late. Three register tiles of channels are shared as 2 + 1: with 2 threads, 192 channels
        of 17x17 take 28 % less time with half of the tiles.
        """
        return self.k_tiles if self.k_tiles % 2 and not self.late else -(-self.k_tiles // 2)

    @property
    def most_tiles(self) -> int:
        """Register tiles of output channels that are computed together at most."""
        if self.late:
            return 1
        return self.k_tiles if self.k < MANY_OUTPUTS else -(-self.k_tiles // 2)

    @property
    def tiles(self) -> int:
        """Tiles of results in a block."""
        if self.large:
            return BLOCK_ROWS * BLOCK_COLUMNS
        scaled = TILES[self.late or self.c + self.k > FEW_CHANNELS] * 36 // self.products
        return max(1, min(MOST_TILES, scaled) // self.pixels) * self.pixels

    @property
    def pass_channels(self) -> int:
        """Input channels whose weights, stored, serve all tiles of a block before the next ones do."""
        phases = self.rows.phases * self.columns.phases
        block = 4 * phases * self.vectors * self.lanes * self.lanes  # bytes of the weights at a place
        room = PASS_BYTES if self.c_blocks * block > ONE_PASS else ONE_PASS
        return max(1, min(room // block, CHUNK // phases)) * self.lanes

    @property
    def v_place(self) -> int:
        """Elements from one place of V to the next."""
        return (self.c_blocks * self.tiles | 1) * self.lanes

    @property
    def m_place(self) -> int:
        """Elements from one place of M to the next."""
        return (self.most_tiles * self.vectors * self.tiles | 1) * self.lanes

    @property
    def u_place(self) -> int:
        """Elements from one place of the weights that are transformed late to the next."""
        return (LATE_CHANNELS * self.vectors | 1) * self.lanes

    @property
    def late_elements(self) -> int:
        """Of a row of the weights that are transformed late."""
        return self.rows.phases * self.columns.products * self.u_place if self.late else 0

    def cycles(self, p: int, q: int) -> float:
        """About how long an image of so many results takes, for each pair of channels."""
        tiles, numbers = self.count_tiles(p, q), self.products
        blocks, far = -(-tiles // self.tiles), 4 * numbers * self.c * self.k > SECOND_CACHE
        counts = [_count_products(*axis) for axis in zip(self.axes, self.edges, (p, q), strict=True)]
        fewest = (FEWEST_LATE if self.late else FEWEST_TILES) * self.products
        computed = max(counts[0] * counts[1], fewest) * TRANSFORM_COST[self.stride]
        if self.late:
            numbers = self.kernel[0] * self.kernel[1]
            computed = computed * LATE_SUMS[self.stride] + blocks * self.products * LATE_COST[self.stride]
        loaded = 4 * numbers * (1 / FAR + (blocks - 1) / LAST if far else blocks / NEAR)  # cycles
        return max(computed / (2 * self.lanes), loaded) + loaded * SHOWN

    def count_tiles(self, p: int, q: int) -> int:
        """How many cover p x q results."""
        return -(-p // self.rows.m) * -(-q // self.columns.m)


@dataclass(frozen=True)
class BySize:
    """Two shapes of one form for results whose size is open: for many of them, and for few."""

    many: Shape
    few: Shape

    @property
    def name(self) -> str:
        """Of both."""
        return f"{self.many.name} or {self.few.name}"

    def choices(self, p: DimLike, q: DimLike) -> list[tuple[Shape, DimLike]]:
        """Each shape, and 1 in a run with p x q results that takes it, else 0."""
        many = dims.product([dims.minimum(1, dims.floor_div(d, MANY)) for d in (p, q)])
        return [(self.many, many), (self.few, 1 - many)]


def _sums_runs(form: Form) -> bool:
    """Whether filters are cut into runs of taps, whose products are added: see winograd_large.py."""
    return form[0].phases > form[0].stride


def _count_products(axis: Transform, edge: Transform | None, extent: int) -> int:
    """Of so many results along an axis, for a pair of channels."""
    return extent // axis.m * axis.products + (edge or axis).products * (extent % axis.m > 0)


def list_forms(op: Conv2d, kernel: tuple[int, int]) -> tuple[Form, ...]:
    """The forms that there are for a convolution, whatever its channels."""
    if op.dilation != (1, 1) or op.groups > 1:
        return ()
    (r, s), forms = kernel, FORMS.get((kernel, op.stride), ())
    if not forms and op.stride == (1, 1) and LARGE_ROWS <= r <= LARGEST_ROWS and s <= LARGEST_ROWS:
        return ((sum_runs(ROWS, r, MOST_TAPS), take_taps(s)),)
    return forms


def list_shapes(op: Conv2d, w: Buffer, y: Buffer, target: Target, fresh: bool = False) -> list[Shape | BySize]:
    """Every shape of a layer with these weights and results, first the one that takes least time by the model.

    Of results whose size is open: first those of the form for large images, then those for small ones. `fresh` weights
    are others in every run, and are not made in two ways.
    """
    (k, c, r, s), size = w.type.static_shape(), _find_size(y)
    shapes = [
        [_make_shape(form, k, c, target, late, size) for late in (False, True) if late or not _sums_runs(form)]
        for form in list_forms(op, (r, s))
    ]
    cycles = lambda shape: shape.cycles(*(size or TYPICAL))  # noqa: E731
    if size is not None:
        return sorted(chain(*shapes), key=cycles)
    first, *others = (sorted(form, key=cycles) for form in shapes)
    both = [BySize(first[1], first[0])] if first[0].late and not fresh and _may_be_both(first[0].axes, c * k) else []
    return [*both, *first, *chain(*others)]


def _find_size(y: Buffer) -> tuple[int, int] | None:
    """Height and width, unless they are open."""
    p, q = y.shape[2:]
    return (p, q) if isinstance(p, int) and isinstance(q, int) else None


def _make_shape(form: Form, k: int, c: int, target: Target, late: bool, size: tuple[int, int] | None) -> Shape:
    """Where the size is known and all tiles are one block, the last ones may be smaller: see winograd_tiles.py."""
    blocks = -(-k // target.lanes)
    tile = narrow_tile(blocks, target) if late else split_vectors(blocks, target)
    shape = Shape(target.lanes, *tile, c, k, *form, late)
    if size is None or shape.count_tiles(*size) > shape.tiles:
        return shape
    high, wide = (_find_edge(*axis) for axis in zip(form, size, strict=True))
    return replace(shape, edges=(high, wide))


def _find_edge(axis: Transform, extent: int) -> Transform | None:
    left = extent % axis.m
    return axis.edges[left - 1] if left and axis.edges else None


def winograd_fits(op: Conv2d, w: Buffer | Value) -> bool:
    """Whether there is a form for the convolution, and enough channels."""
    k, c, r, s = w.type.static_shape()
    return bool(list_forms(op, (r, s))) and min(k, c) >= FEWEST_CHANNELS


def fewest_results(forms: Sequence[Form], pairs: int) -> int:
    """So many rows and columns of results, or more, are computed in one way by a kernel for these pairs of channels.

    A tile must have as many, unless the image has fewer: then its results have the bits of the image's.
    """
    if any(_sums_runs(form) for form in forms):
        return FEW
    return MANY if any(_may_be_both(form, pairs) for form in forms) else 1


def _may_be_both(form: Form, pairs: int) -> bool:
    return form == (FOUR, FOUR) and pairs in PAIRS


def winograd_pays(op: Conv2d, w: Buffer, y: Buffer, shape: Shape | BySize, target: Target, fresh: bool = False) -> bool:
    """Whether a convolution takes less time in this shape than directly, by what both multiply and load.

    `fresh` weights are others in every run, which transforms them then.
    """
    _, _, r, s = w.type.static_shape()
    size = _find_size(y)
    if size is None:
        return True  # as for a large image
    assert isinstance(shape, Shape)
    images = y.shape[0] if isinstance(y.shape[0], int) else TRAINED_IMAGES
    direct = size[0] * size[1] * r * s * DIRECT_COST / (2 * target.lanes) + r * s * 4 / FAR * SHOWN
    # what is written more than directly; a store loads its line before
    written = (shape.products - r * s) * 4 * 2 / FAR if fresh and not shape.late else 0.0
    return images * shape.cycles(*size) + written < images * direct


def find_rows(op: Conv2d, weights: Sequence[int]) -> Form | None:
    """What transforms the rows of a dense image, if that saves more products than it costs; weights are K, C, R, S."""
    (k, c, r, s), (stride, _) = weights, op.stride
    if op.groups > 1 or op.dilation != (1, 1) or c > DENSE_CHANNELS or max(r, s) > LARGEST_ROWS:
        return None
    if not stride < r <= MOST_TAPS * stride:
        return None
    rows = split_phases(ROWS, r, stride)
    saved = c * s * (r - rows.products / rows.m) / 2  # cycles for a vector of results
    factors = sum(1 for line in rows.data for x in line if x)
    cost = RESULT_COST * rows.places / rows.m + c * op.stride[1] * factors / (2 * rows.m * k)
    return (rows, take_taps(s)) if saved > cost else None


def make_rows_shape(form: Form, w: Buffer, vectors: int, pixels: int, target: Target) -> Shape:
    """The shape of a layer of few channels, with such a register tile."""
    k, c, _, _ = w.type.static_shape()
    return Shape(target.lanes, vectors, pixels, c, k, *form)
