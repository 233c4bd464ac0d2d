"""Helpers over llvmlite's IRBuilder: types, constants, loops, branches, masks. Nothing here knows of tensors."""

from collections.abc import Callable, Sequence
from functools import cache

from llvmlite import ir

from graphc.ir import DType

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F32, F64, PTR, VOID = ir.FloatType(), ir.DoubleType(), ir.PointerType(), ir.VoidType()
IR_TYPES: dict[DType, ir.Type] = {
    DType.F32: F32, DType.F64: F64, DType.F16: I16, DType.BF16: I16,  # of halves their bits
    DType.I8: I8, DType.I16: I16, DType.I32: I32, DType.I64: I64,
    DType.U8: I8, DType.U16: I16, DType.U32: I32, DType.U64: I64, DType.BOOL: I1,
}  # fmt: skip

Body = Callable[[ir.Value, list[ir.Value]], list[ir.Value]]


class _Short(ir.Constant):  # type: ignore[misc]
    """A vector constant that LLVM's text has a word for; llvmlite writes every lane."""

    def __init__(self, type: ir.VectorType, lanes: object, word: str) -> None:
        super().__init__(type, lanes)
        self._word = word

    def _get_reference(self) -> str:
        return self._word


def i64(value: int) -> ir.Constant:
    """An i64 constant."""
    return ir.Constant(I64, value)


def constant(type: ir.Type, value: float | int) -> ir.Constant:
    """A number as a constant of a scalar or vector type."""
    element = type.element if isinstance(type, ir.VectorType) else type
    number = ir.Constant(element, (float if isinstance(element, (ir.FloatType, ir.DoubleType)) else int)(value))
    return _Short(type, number, f"splat ({number})") if isinstance(type, ir.VectorType) else number


@cache
def undefined(type: ir.VectorType) -> ir.Constant:
    """A vector of which nothing is known."""
    return _Short(type, ir.Undefined, "undef")


@cache
def _lanes(order: tuple[int, ...]) -> ir.Constant:
    type = ir.VectorType(I32, len(order))
    return ir.Constant(type, order) if any(order) else _Short(type, order, "zeroinitializer")


def shuffle(b: ir.IRBuilder, x: ir.Value, order: Sequence[int], y: ir.Value | None = None) -> ir.Value:
    """The lanes of x in this order; numbers from that of its lanes on are those of y."""
    return b.shuffle_vector(x, undefined(x.type) if y is None else y, _lanes(tuple(order)))


def is_vector(value: ir.Value) -> bool:
    """Whether an LLVM value is a vector."""
    return isinstance(value.type, ir.VectorType)


def splat(b: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    """A vector with `value` in every lane; a vector stays as it is."""
    if is_vector(value):
        return value
    type = ir.VectorType(value.type, lanes)
    if isinstance(value, ir.Constant):
        return constant(type, value.constant)
    first = b.insert_element(undefined(type), value, ir.Constant(I32, 0))
    return shuffle(b, first, [0] * lanes)


def iota(lanes: int, type: ir.Type = I64) -> ir.Constant:
    """The vector 0, 1, 2, ..."""
    return ir.Constant(ir.VectorType(type, lanes), list(range(lanes)))


def address(b: ir.IRBuilder, base: ir.Value, offset: ir.Value, element: ir.Type) -> ir.Value:
    """base + offset elements; a vector of addresses if `offset` is a vector."""
    result = b.gep(base, [offset], source_etype=element)
    # llvmlite infers neither a vector of addresses nor, over an alloca, an opaque pointer
    result.type = ir.VectorType(PTR, offset.type.count) if is_vector(offset) else PTR
    return result


def intrinsic(b: ir.IRBuilder, name: str, result: ir.Type, args: Sequence[ir.Value]) -> ir.Value:
    """Call an LLVM intrinsic by its full, mangled name."""
    found = b.module.globals.get(name)
    if found is None:
        found = ir.Function(b.module, ir.FunctionType(result, [a.type for a in args]), name)
    return b.call(found, args)


def mangle(type: ir.Type) -> str:
    """A type as intrinsic names spell it: f32, v16f32, p0."""
    if isinstance(type, ir.VectorType):
        return f"v{type.count}{mangle(type.element)}"
    if isinstance(type, ir.PointerType):
        return "p0"
    return {F32: "f32", F64: "f64"}[type] if isinstance(type, (ir.FloatType, ir.DoubleType)) else f"i{type.width}"


def repeat(
    b: ir.IRBuilder,
    start: ir.Value,
    stop: ir.Value,
    step: int,
    carried: Sequence[ir.Value],
    body: Body,
) -> list[ir.Value]:
    """A loop `for i in range(start, stop, step)` that carries values in registers; returns their last state.

    `body(i, values)` emits one round and returns the values for the next.
    """
    entry = b.block
    head, inside, after = (b.append_basic_block(n) for n in ("head", "inside", "after"))
    b.branch(head)
    b.position_at_end(head)
    i = b.phi(I64)
    i.add_incoming(start, entry)
    phis = []
    for value in carried:
        phi = b.phi(value.type)
        phi.add_incoming(value, entry)
        phis.append(phi)
    b.cbranch(b.icmp_signed("<", i, stop), inside, after)
    b.position_at_end(inside)
    results = body(i, list(phis))
    following = b.add(i, i64(step), flags=["nsw"])
    for phi, value in zip([i, *phis], [following, *results], strict=True):
        phi.add_incoming(value, b.block)
    b.branch(head)
    b.position_at_end(after)
    return list(phis)


def when(
    b: ir.IRBuilder, condition: ir.Value, body: Callable[[], Sequence[ir.Value]], otherwise: Sequence[ir.Value] = ()
) -> list[ir.Value]:
    """Emit `body` under a scalar condition; its results, or `otherwise` where the condition does not hold."""
    before = b.block
    inside, after = b.append_basic_block("then"), b.append_basic_block("after")
    b.cbranch(condition, inside, after)
    b.position_at_end(inside)
    results = body()
    last = b.block
    b.branch(after)
    b.position_at_end(after)
    merged = []
    for value, other in zip(results, otherwise, strict=True):
        phi = b.phi(value.type)
        phi.add_incoming(value, last)
        phi.add_incoming(other, before)
        merged.append(phi)
    return merged


def fold_lanes(b: ir.IRBuilder, vector: ir.Value, combine: Callable[[ir.Value, ir.Value], ir.Value]) -> ir.Value:
    """All lanes combined pairwise in a fixed order: halves with halves, down to one."""
    lanes = vector.type.count
    while lanes > 1:
        lanes //= 2
        vector = combine(*(shuffle(b, vector, range(start, start + lanes)) for start in (0, lanes)))
    return b.extract_element(vector, ir.Constant(I32, 0))
