"""The register tile: the inner loop of every convolution and product here, where nearly all time goes.

ALGORITHM  for c in a few input channels: for v in vectors of output channels: for i in pixels:
               sums[v][i] += weights[c][v] * x[i][c]

SCHEDULE   The sums stay in registers. Each weight vector that is loaded serves all pixels, each input element, spread
           over the lanes, all vectors. On AVX-512, two FMAs start in a cycle and take four: 24 sums hide that latency
           three times over, and 4 + 6 loads for 24 FMAs stay below two loads a cycle. Meanwhile the weights that
           come next are asked for (Winograd, 512 channels of 28x28: 520 GFLOP/s without, 620 with).

EMIT       `accumulate` for one run of channels, `sum_channels` for all of them, `for_strips` around that.
"""

from collections.abc import Callable, Sequence

from llvmlite import ir

from graphc.codegen.blocks import (
    F32,
    I32,
    I64,
    VOID,
    Body,
    address,
    constant,
    i64,
    intrinsic,
    mangle,
    repeat,
    splat,
    when,
)
from graphc.codegen.target import Target
from graphc.ir import DimLike

# Cache lines asked for with each channel: with 2, the first strips wait for them (DenseNet-121, Inception v3: 3 % more
# time, ResNet-50 and a U-Net 1 to 2), with 4 all the more (Winograd at 14x14: 10 %)
AHEAD = 1
RUN = 4  # input channels that are unrolled: 16 are no faster, and four times the code to compile
LINE = 64  # bytes of a cache line
CHUNK = 8  # blocks of input channels that are summed before they are added to the others
# (registers, whether multiply-add is one instruction) -> {vectors: the most pixels beside them}: vectors * pixels sums,
# the weight vectors and a spread element fit the registers. With 2 x 12, which would fit 32, LLVM spills and repeats
# loads (half the speed of 4 x 6). AVX2: 95 to 99 % of the peak with 2 x 6, 75 to 90 % with 3 x 4. SSE keeps products
# in registers too, and two instructions spread an element, so more vectors share it: 75 % with 4 x 2, 65 % with 2 x 6.
PIXELS = {
    (32, True): {4: 6, 3: 8, 2: 10, 1: 14},
    (16, True): {2: 6, 1: 9},
    (16, False): {4: 2, 3: 3, 2: 4, 1: 8},
}
OVERHEAD = {4: 1.0, 3: 1.02, 2: 1.01, 1: 1.1}  # measured on 384 channels; a tile of one vector is bound by its loads


def split_vectors(count: int, target: Target, width: DimLike | None = None) -> tuple[int, int]:
    """How many vectors a tile takes where there are `count`, and the pixels beside them, in rows of `width` pixels.

    The cheapest, by what is computed and not needed, and by the cycles in which weights come from the second-level
    cache, 32 bytes in each, where a strip has few pixels to serve.
    """

    tiles = PIXELS[target.registers, target.fused]

    def cost(vectors: int) -> float:
        pixels = tiles[vectors]
        strip = width / -(-width // pixels) if isinstance(width, int) else pixels
        cycles = max(vectors * strip / 2, vectors * target.lanes * 4 / 32) / strip
        return -(-count // vectors) * cycles * OVERHEAD[vectors]

    vectors = min(tiles, key=cost)
    return vectors, tiles[vectors]


def narrow_tile(count: int, target: Target) -> tuple[int, int]:
    """A tile of at most 2 vectors: as fast, where its weights come from the first-level cache."""
    vectors = min(count, 2)
    return vectors, PIXELS[target.registers, target.fused][vectors]


def list_tiles(count: int, target: Target) -> list[tuple[int, int]]:
    """Every tile that makes sense for `count` vectors, vectors and pixels; of one vector only for one vector."""
    tiles = PIXELS[target.registers, target.fused]
    return [(v, pixels) for v, pixels in tiles.items() if v <= count and (v > 1 or count == 1)]


def zeros(lanes: int, vectors: int, pixels: int) -> list[ir.Value]:
    """The sums at first, vector by vector."""
    return [constant(ir.VectorType(F32, lanes), 0)] * (vectors * pixels)


def accumulate(
    b: ir.IRBuilder,
    lanes: int,
    sums: Sequence[ir.Value],
    vectors: int,
    weights: ir.Value,
    x: ir.Value,
    channels: Sequence[int],
    pixel_step: int,
    ahead: ir.Value | None = None,
    lines: int = 0,
) -> list[ir.Value]:
    """The sums after these input channels: element c of a pixel lies at x + channels[c], its weights follow each other.

    `weights` points to [channel][vector][lane], `x` to the first pixel, the others lie `pixel_step` elements apart.
    For each channel, `lines` vectors at the pointer `ahead` are asked for, so that these weights come from memory while
    this is computed.
    """
    type, sums = ir.VectorType(F32, lanes), list(sums)
    pixels = len(sums) // vectors
    for number, channel in enumerate(channels):
        row = [
            b.load(address(b, weights, i64((number * vectors + v) * lanes), F32), typ=type, align=4)
            for v in range(vectors)
        ]
        if ahead is not None:
            for at in range(number * lines, (number + 1) * lines):
                if at * lanes * 4 % LINE == 0:  # a run begins at a whole line
                    prefetch(b, address(b, ahead, i64(at * lanes), F32), level=2)
        for i in range(pixels):
            element = b.load(address(b, x, i64(i * pixel_step + channel), F32), typ=F32, align=4)
            spread = splat(b, element, lanes)
            for v in range(vectors):
                at = v * pixels + i
                sums[at] = intrinsic(b, f"llvm.fmuladd.{mangle(type)}", type, [row[v], spread, sums[at]])
    return sums


def prefetch(b: ir.IRBuilder, line: ir.Value, write: bool = False, level: int = 1) -> None:
    """Ask for a cache line, into the first- or second-level cache; an address that does not exist does no harm."""
    hints = (int(write), 4 - level, 1)  # 1: data
    intrinsic(b, "llvm.prefetch.p0", VOID, [line, *(ir.Constant(I32, n) for n in hints)])


def ask_for(b: ir.IRBuilder, at: ir.Value, targets: Sequence[ir.Value]) -> None:
    """Prefetch the line at offset `at` of a result, the first of `targets`, and of the epilogue's operands.

    A store waits for its line as a load does. Asked for before the sums, it is there after them: SqueezeNet takes 10 %
    less time for that, MobileNet 15 %.
    """
    for i, target in enumerate(targets):
        prefetch(b, address(b, target, at, F32), write=i == 0)


def coming_weights(b: ir.IRBuilder, distance: ir.Value, vectors: int, number: ir.Value | None) -> tuple[ir.Value, int]:
    """How far from the weights that a strip reads those lie that it asks for, and how many vectors for each channel.

    Strips that read the same weights, told apart by `number`, share those `distance` elements ahead: the first ones ask
    for AHEAD vectors each, the others for what is there already. Without a number, each asks for all.
    """
    if number is None:
        return distance, vectors
    share = b.udiv(b.mul(b.mul(distance, number), i64(AHEAD)), i64(vectors))
    needed = b.icmp_unsigned("<", number, i64(-(-vectors // AHEAD)))
    return b.select(needed, b.add(distance, share), i64(0)), min(AHEAD, vectors)


def sum_channels(
    b: ir.IRBuilder,
    lanes: int,
    sums: Sequence[ir.Value],
    vectors: int,
    weights: ir.Value,
    x: ir.Value,
    channels: int,
    pixel_step: int,
    ahead: ir.Value | None = None,
    lines: int = 0,
) -> list[ir.Value]:
    """`accumulate` over the first `channels` of one block of input channels."""

    def run(c: ir.Value, sums: list[ir.Value], count: int = RUN) -> list[ir.Value]:
        w = address(b, weights, b.mul(c, i64(vectors * lanes)), F32)
        following = ahead and address(b, ahead, b.mul(c, i64(lines * lanes)), F32)
        return accumulate(b, lanes, sums, vectors, w, address(b, x, c, F32), range(count), pixel_step, following, lines)

    whole = channels // RUN * RUN
    sums = repeat(b, i64(0), i64(whole), RUN, sums, run) if whole else list(sums)
    return run(i64(whole), sums, channels % RUN) if channels % RUN else sums


def save_sums(b: ir.IRBuilder, places: Sequence[ir.Value], sums: Sequence[ir.Value]) -> list[ir.Value]:
    """Store sums where they lie until others are added to them."""
    for place, value in zip(places, sums, strict=True):
        b.store(value, place, align=4)
    return []


def add_saved(
    b: ir.IRBuilder, before: ir.Value, places: Sequence[ir.Value], sums: Sequence[ir.Value]
) -> list[ir.Value]:
    """The sums, and what lies at their places, if there were some `before`."""

    def add() -> list[ir.Value]:
        return [b.fadd(b.load(at, typ=x.type, align=4), x) for at, x in zip(places, sums, strict=True)]

    return when(b, before, add, sums)


def sum_blocks(
    b: ir.IRBuilder,
    count: ir.Value,
    before: ir.Value,
    places: Sequence[ir.Value],
    none: Sequence[ir.Value],
    block: Body,
    partly: Body | None = None,
) -> list[ir.Value]:
    """What `block(number, sums)` adds for each of `count` blocks of input channels, and `partly` for one after them,
    and the sums `before`, if there are some: these lie at `places`. `none` are sums of nothing.

    Each CHUNK is summed from 0. One chain over all channels would round too often: over 3x3 times 512 channels its
    error is 3e-6 of the largest output, so it is below 1e-6. Meanwhile, the sums of the chunks before lie at `places`:
    as values, they would be spilled, and loaded, where there is one chunk too (ResNet-50: 5 % more time).
    """

    def one(start: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        end = b.add(start, i64(CHUNK))
        more = b.icmp_signed("<", end, count)
        sums = repeat(b, start, b.select(more, end, count), 1, none, block)
        if partly:
            sums = when(b, b.not_(more), lambda: partly(count, sums), sums)
        sums = add_saved(b, b.or_(before, b.icmp_signed(">", start, i64(0))), places, sums)
        when(b, more, lambda: save_sums(b, places, sums))
        return sums

    stop = b.select(b.icmp_signed(">", count, i64(0)), count, i64(1)) if partly else count
    return repeat(b, i64(0), stop, CHUNK, none, one)


def for_padded_strips(
    b: ir.IRBuilder, length: ir.Value, most: int, step: int, strip: Callable[[ir.Value, int], None]
) -> None:
    """Cut `length` pixels into strips of `most` and one of what is left, rounded up to a multiple of `step`.

    So fewer lengths need code of their own, where what lies beyond `length`, up to a multiple of `most`, may be read
    and written.
    """

    def one(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        start = b.mul(i, i64(most))
        left = b.sub(length, start)
        left = b.select(b.icmp_signed("<", left, i64(most)), left, i64(most))
        sizes = [min(n * step, most) for n in range(1, -(-most // step) + 1)]
        _choose_strip(b, b.udiv(b.add(left, i64(step - 1)), i64(step)), sizes, lambda size: strip(start, size))
        return []

    repeat(b, i64(0), b.udiv(b.add(length, i64(most - 1)), i64(most)), 1, [], one)


def for_strips(b: ir.IRBuilder, length: ir.Value, most: int, strip: Callable[[ir.Value, int], None]) -> None:
    """Cut `length` pixels into as few strips as it takes, of nearly equal lengths: `strip(start, pixels)`."""
    count = b.udiv(b.add(length, i64(most - 1)), i64(most))
    base, longer = b.udiv(length, count), b.urem(length, count)

    def one(i: ir.Value, values: list[ir.Value]) -> list[ir.Value]:
        (start,) = values
        size = b.add(base, b.zext(b.icmp_unsigned("<", i, longer), I64))
        _choose_strip(b, size, range(1, most + 1), lambda pixels: strip(start, pixels))
        return [b.add(start, size)]

    repeat(b, i64(0), count, 1, [i64(0)], one)


def _choose_strip(b: ir.IRBuilder, number: ir.Value, sizes: Sequence[int], strip: Callable[[int], None]) -> None:
    """Run `strip(sizes[number - 1])`."""
    after = b.append_basic_block("after_strip")
    choice = b.switch(number, after)
    for i, pixels in enumerate(sizes, start=1):
        block = b.append_basic_block(f"strip{pixels}")
        choice.add_case(i64(i), block)
        b.position_at_end(block)
        strip(pixels)
        b.branch(after)
    b.position_at_end(after)
