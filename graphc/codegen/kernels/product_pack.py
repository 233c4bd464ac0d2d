"""Pieces of matrices copied to where the register tile reads them from one line after the other."""

from llvmlite import ir

from graphc.codegen.blocks import F32, address, i64, repeat, when
from graphc.codegen.kernels.borders import least
from graphc.codegen.kernels.transpose import load_some, transpose


def copy_rows(
    b: ir.IRBuilder,
    lanes: int,
    target: ir.Value,
    target_pitch: ir.Value,
    source: ir.Value,
    pitch: ir.Value,
    rows: ir.Value,
    length: ir.Value,
    usual: int = 0,
) -> None:
    """Copy `rows` rows of `length` elements, which lie `pitch` apart; without a loop where the length is the usual one.

    In `target`, zeros follow them up to a whole vector.
    """
    type, whole = ir.VectorType(F32, lanes), b.and_(length, i64(-lanes))
    rest = b.sub(length, whole)

    def row(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        here, there = address(b, source, b.mul(i, pitch), F32), address(b, target, b.mul(i, target_pitch), F32)

        def vector(at: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            b.store(b.load(address(b, here, at, F32), typ=type, align=4), address(b, there, at, F32), align=4)
            return []

        def last() -> list[ir.Value]:
            b.store(load_some(b, lanes, address(b, here, whole, F32), rest), address(b, there, whole, F32), align=4)
            return []

        repeat(b, i64(0), whole, lanes, [], vector)
        return when(b, b.icmp_signed(">", rest, i64(0)), last)

    def unrolled(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        here, there = address(b, source, b.mul(i, pitch), F32), address(b, target, b.mul(i, target_pitch), F32)
        for at in range(0, usual, lanes):
            value = b.load(address(b, here, i64(at), F32), typ=type, align=4)
            b.store(value, address(b, there, i64(at), F32), align=4)
        return []

    if not usual:
        repeat(b, i64(0), rows, 1, [], row)
        return
    with b.if_else(b.icmp_signed("==", length, i64(usual))) as (same, other):
        with same:
            repeat(b, i64(0), rows, 1, [], unrolled)
        with other:
            repeat(b, i64(0), rows, 1, [], row)


def copy_panel(
    b: ir.IRBuilder,
    lanes: int,
    vectors: int,
    target: ir.Value,
    source: ir.Value,
    pitch: ir.Value,
    depth: ir.Value,
    width: ir.Value,
) -> None:
    """Of `depth` rows, `pitch` apart, the first `vectors` vectors, as [row][vector][lane]; only `width` are there."""
    size = vectors * lanes
    copy_rows(b, lanes, target, i64(size), source, pitch, depth, width, size)


def turn_panel(
    b: ir.IRBuilder,
    lanes: int,
    vectors: int,
    target: ir.Value,
    source: ir.Value,
    pitch: ir.Value,
    depth: ir.Value,
    width: ir.Value,
) -> None:
    """`width` rows of `depth` elements, `pitch` apart, as [element][vector][lane], where a lane is a row.

    Squares of them are transposed in registers. `target` has room for whole squares; rows that are missing are zeros.
    """
    type, size = ir.VectorType(F32, lanes), vectors * lanes

    def square(e: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        count = least(b, b.sub(depth, e), i64(lanes))
        for v in range(vectors):
            rows = [address(b, source, b.add(b.mul(i64(v * lanes + i), pitch), e), F32) for i in range(lanes)]
            present = b.sub(width, i64(v * lanes))
            there = b.and_(b.icmp_signed(">=", present, i64(lanes)), b.icmp_signed("==", count, i64(lanes)))

            def store(columns: list[ir.Value], v: int = v) -> None:
                for i, column in enumerate(columns):
                    at = b.add(b.mul(b.add(e, i64(i)), i64(size)), i64(v * lanes))
                    b.store(column, address(b, target, at, F32), align=4)

            with b.if_else(there) as (whole, some):
                with whole:
                    store(transpose(b, [b.load(row, typ=type, align=4) for row in rows]))
                with some:
                    counts = [b.select(b.icmp_signed("<", i64(i), present), count, i64(0)) for i in range(lanes)]
                    store(transpose(b, [load_some(b, lanes, row, n) for row, n in zip(rows, counts, strict=True)]))
        return []

    repeat(b, i64(0), depth, lanes, [], square)
