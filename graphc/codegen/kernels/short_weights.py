"""Weights of a fully connected layer in 24 bits: for one image they are read once, and their way from memory is all.

ALGORITHM  blocks of BLOCK weights along a row of w [N,K], each of them an integer m of 24 bits times the block's scale:
           m = round(w / scale), |m| <= 2**23; the scale is the least power of two for that

           A weight differs from its float32 by 2**-24 of the power of two above its block's largest, so a sum of K
           products does as if rounded once or twice more. Weights of 23 significant bits below one power of two, as
           integers are, stay as they are. A block with an infinity or a NaN is all NaN. (Blocks that share a scale:
           Drumond et al., Training DNNs with hybrid block floating point, NeurIPS 2018.)

SCHEDULE   A block is 3 * BLOCK bytes and the scale, a float32. A vector of weights is loaded with 3 bytes for a lane,
           spread by a shuffle into the upper bytes of 32-bit integers, converted and multiplied: four instructions,
           while memory takes six cycles or more for a vector. So AlexNet's first layer, 9216 to 4096, takes 7.4 ms
           instead of 9.3.

EMIT       `ShortenWeights.emit` makes them, when the network is created; `load_short` reads a vector.
"""

from llvmlite import ir

from graphc.codegen.blocks import (
    F32,
    I1,
    I8,
    I32,
    VOID,
    address,
    constant,
    fold_lanes,
    i64,
    intrinsic,
    mangle,
    repeat,
    shuffle,
    splat,
)
from graphc.codegen.kernels.borders import least
from graphc.codegen.kernels.transpose import load_some
from graphc.codegen.nest import Buffer
from graphc.codegen.target import Target
from graphc.ir import DimLike, DType, TensorType

BLOCK = 64  # weights with a scale of their own
BLOCK_BYTES = 3 * BLOCK + 4
BEHIND = 16  # bytes that follow the last block: a vector is loaded with a quarter more than it takes
BITS = 23  # of m beside its sign
LEAST_EXPONENT = -95  # of a block's largest weight: below it, the scale would be a denormal number


class ShortenWeights:
    """The rows of w, float32 [N,K], in blocks."""

    name, scratch, bands = "shorten_weights", 0, None
    reason = f"blocks of {BLOCK} weights of 24 bits with a scale"

    def __init__(self, w: Buffer, y: Buffer, target: Target) -> None:
        rows, depth = w.type.static_shape()
        stored = TensorType(DType.U8, (rows * -(-depth // BLOCK) * BLOCK_BYTES + BEHIND,))
        self.buffers, self.lanes = [y.temporary("weights", stored), w], target.lanes
        self.sizes: list[DimLike] = [depth]
        self.tasks: DimLike = rows
        self.work: DimLike = rows * depth
        self.key = f"{self.name} {self.lanes}"

    def emit(self, b: ir.IRBuilder, function: ir.Function) -> None:
        """A task is a row."""
        y, w, depth, begin, end, _ = function.args
        pitch = short_pitch(b, depth)

        def row(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            source, target = address(b, w, b.mul(number, depth), F32), address(b, y, b.mul(number, pitch), I8)

            def block(at: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                there = least(b, b.sub(depth, at), i64(BLOCK))
                self._shorten(b, address(b, source, at, F32), there, short_block(b, target, at))
                return []

            return repeat(b, i64(0), depth, BLOCK, [], block)

        repeat(b, begin, end, 1, [], row)
        b.ret_void()

    def _shorten(self, b: ir.IRBuilder, source: ir.Value, there: ir.Value, target: ir.Value) -> None:
        """One block, of which so many weights are `there`; zeros follow them."""
        lanes, whole, bits = self.lanes, ir.VectorType(F32, self.lanes), ir.VectorType(I32, self.lanes)
        values = [
            load_some(b, lanes, address(b, source, i64(at), F32), b.sub(there, i64(at)))
            for at in range(0, BLOCK, lanes)
        ]
        magnitude = splat(b, ir.Constant(I32, 0x7FFFFFFF), lanes)
        most = b.and_(b.bitcast(values[0], bits), magnitude)  # floats of one sign are ordered as their bits
        for value in values[1:]:
            most = self._larger(b, most, b.and_(b.bitcast(value, bits), magnitude))
        largest = fold_lanes(b, most, lambda x, y: self._larger(b, x, y))
        exponent = b.sub(b.lshr(largest, ir.Constant(I32, 23)), ir.Constant(I32, 126))  # largest < 2**exponent
        exponent = self._larger(b, exponent, ir.Constant(I32, LEAST_EXPONENT))
        scale = self._power(b, b.sub(exponent, ir.Constant(I32, BITS + 8)))  # m stands in the upper 24 of 32 bits
        finite = b.icmp_signed("<", largest, ir.Constant(I32, 0x7F800000))
        scale = b.select(finite, scale, ir.Constant(F32, float("nan")))
        factor = splat(b, self._power(b, b.sub(ir.Constant(I32, BITS), exponent)), lanes)
        greatest = splat(b, ir.Constant(I32, 2**BITS - 1), lanes)  # 2**BITS takes one more bit, but for its negative
        zero = constant(whole, 0)
        for i, value in enumerate(values):
            scaled = b.select(finite, b.fmul(value, factor), zero)
            m = b.fptosi(intrinsic(b, f"llvm.rint.{mangle(whole)}", whole, [scaled]), bits)
            m = b.select(b.icmp_signed("<", m, greatest), m, greatest)
            self._store(b, m, address(b, target, i64(3 * i * lanes), I8))
        b.store(scale, address(b, target, i64(3 * BLOCK), I8), align=1)

    def _store(self, b: ir.IRBuilder, m: ir.Value, target: ir.Value) -> None:
        """The lower 3 bytes of each lane."""
        lanes, words = self.lanes, 3 * self.lanes // 4
        lower = [4 * lane + byte for lane in range(lanes) for byte in range(3)]
        value = b.bitcast(shuffle(b, b.bitcast(m, ir.VectorType(I8, 4 * lanes)), lower + lower[:lanes]), m.type)
        mask = ir.Constant(ir.VectorType(I1, lanes), [int(i < words) for i in range(lanes)])
        intrinsic(b, f"llvm.masked.store.{mangle(m.type)}.p0", VOID, [value, target, mask])

    @staticmethod
    def _larger(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
        return b.select(b.icmp_signed(">", x, y), x, y)

    @staticmethod
    def _power(b: ir.IRBuilder, exponent: ir.Value) -> ir.Value:
        """2.0 to an exponent of -126 to 127."""
        return b.bitcast(b.shl(b.add(exponent, ir.Constant(I32, 127)), ir.Constant(I32, 23)), F32)


def load_short(b: ir.IRBuilder, lanes: int, block: ir.Value, start: ir.Value) -> ir.Value:
    """A vector of weights, from number `start` of the block at this address on."""
    loaded = b.load(address(b, block, b.mul(start, i64(3)), I8), typ=ir.VectorType(I8, 4 * lanes), align=1)
    order = [min(3 * lane + byte, 4 * lanes - 1) for lane in range(lanes) for byte in range(4)]
    bits = ir.VectorType(I32, lanes)
    m = b.shl(b.bitcast(shuffle(b, loaded, order), bits), constant(bits, 8))
    scale = b.load(address(b, block, i64(3 * BLOCK), I8), typ=F32, align=1)
    return b.fmul(b.sitofp(m, ir.VectorType(F32, lanes)), splat(b, scale, lanes))


def short_pitch(b: ir.IRBuilder, depth: ir.Value) -> ir.Value:
    """Bytes from one row of so many weights to the next."""
    return b.mul(b.udiv(b.add(depth, i64(BLOCK - 1)), i64(BLOCK)), i64(BLOCK_BYTES))


def short_block(b: ir.IRBuilder, row: ir.Value, at: ir.Value) -> ir.Value:
    """The address of the block that has the weight `at` of a row."""
    return address(b, row, b.mul(b.udiv(at, i64(BLOCK)), i64(BLOCK_BYTES)), I8)
