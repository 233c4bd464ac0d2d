"""A square of vectors transposed in registers: what brings channels from lanes into rows, and back."""

from collections.abc import Sequence

from llvmlite import ir

from graphc.codegen.blocks import F32, VOID, address, constant, i64, intrinsic, iota, mangle, shuffle, splat


def transpose(b: ir.IRBuilder, rows: Sequence[ir.Value]) -> list[ir.Value]:
    """Vector j of the result holds lane j of each row; as many rows as lanes, a power of two.

    Blocks of half the size change places, then blocks of a quarter, down to single lanes: log2(lanes) shuffles a row.
    """
    rows, lanes = list(rows), len(rows)
    size = lanes // 2
    while size:
        keep = [i if not i & size else lanes + i - size for i in range(lanes)]
        bring = [i + size if not i & size else lanes + i for i in range(lanes)]
        for i in range(lanes):
            if not i & size:
                x, y = rows[i], rows[i + size]
                rows[i], rows[i + size] = shuffle(b, x, keep, y), shuffle(b, x, bring, y)
        size //= 2
    return rows


def load_columns(b: ir.IRBuilder, rows: Sequence[ir.Value], count: int, existing: ir.Value) -> list[ir.Value]:
    """The first `count` columns of as many rows as lanes, given by address; zeros for all but `existing` rows."""
    lanes = len(rows)
    columns: list[ir.Value] = []
    for start in range(0, count, lanes):
        width = min(lanes, count - start)
        squares = []
        for i, row in enumerate(rows):
            present = b.select(b.icmp_signed("<", i64(i), existing), i64(width), i64(0))
            squares.append(load_some(b, lanes, address(b, row, i64(start), F32), present))
        columns += transpose(b, squares)[:width]
    return columns


def load_some(b: ir.IRBuilder, lanes: int, pointer: ir.Value, count: ir.Value) -> ir.Value:
    """The first `count` lanes from memory, zeros behind them; nothing else is read."""
    type = ir.VectorType(F32, lanes)
    mask = b.icmp_signed("<", iota(lanes), splat(b, count, lanes))
    name = f"llvm.masked.load.{mangle(type)}.p0"
    return intrinsic(b, name, type, [pointer, mask, constant(type, 0)])


def store_some(b: ir.IRBuilder, value: ir.Value, pointer: ir.Value, count: ir.Value) -> None:
    """Store the first `count` lanes; nothing else is written."""
    lanes = value.type.count
    mask = b.icmp_signed("<", iota(lanes), splat(b, count, lanes))
    intrinsic(b, f"llvm.masked.store.{mangle(value.type)}.p0", VOID, [value, pointer, mask])
