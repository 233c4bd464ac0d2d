"""From a loop nest to vector code: the generic kernel, which runs every op.

ALGORITHM  whatever graphc/codegen/nest.py can write down.

SCHEDULE   (graphc/codegen/schedule.py decides)
           * One loop variable runs across the lanes of a vector: the one along which most loads and stores are
             contiguous. Its last, partly filled vector is the same code under a lane mask.
           * The loops outside it are flattened into tasks, which the thread pool hands out; one element has one task,
             so the number of threads cannot change a bit.
           * A reduction is computed in the outermost loop in which its operands are known; where no loop runs across
             lanes, its own innermost variable does, and the lanes are folded in a fixed order at the end.
           * Several values of an outer loop variable, and two vectors, are computed side by side where their reductions
             share loads: each is a chain of additions, and one alone would wait for its own latency. (A 3x3 convolution
             of 64 to 64 maps of 56x56, one thread of an AVX-512 machine whose peak is 245 GFLOP/s: 30 with one chain,
             142 with 8, 220 with 8 x 2.)
           * A load whose index may be outside reads under a mask, never out of bounds.

EMIT       graphc/codegen/values.py for expressions, loads and stores; here, the loops around them.
"""

from collections.abc import Callable, Sequence

from llvmlite import ir

from graphc.codegen.arithmetic import emit_primitive, identity_of
from graphc.codegen.blocks import IR_TYPES, fold_lanes, i64, intrinsic, mangle, repeat, when
from graphc.codegen.nest import Buffer, Load, Nest, Reduce, Size, Var, children, free_vars, walk
from graphc.codegen.schedule import CHUNK, Schedule, choose_vector, expressions
from graphc.codegen.values import ValueEmitter
from graphc.ir import Dim, DimLike
from graphc.ops.scalar import Call, Expr

Values = list[ir.Value]


class NestEmitter(ValueEmitter):
    """Emits one nest as `void name(ptr buffers..., i64 sizes..., i64 begin, i64 end)` over the tasks begin..end-1."""

    def __init__(self, nest: Nest, schedule: Schedule, lanes: int, b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        buffers, sizes = buffers_of(nest), sizes_of(nest)
        pointers = {x.address: p for x, p in zip(buffers, args, strict=False)}
        super().__init__(b, lanes, pointers, dict(zip(sizes, args[len(buffers) :], strict=False)))
        self.nest, self.schedule = nest, schedule
        self.copies = schedule.copies  # how many values are computed side by side at this point of the code
        self._begin, self._end = args[-2:]

    def emit(self) -> None:
        """Fill the function's body."""

        def task(number: ir.Value, _: Values) -> Values:
            self.known.clear()
            self.steps.clear()
            start: ir.Value | None = None
            if self.schedule.chunked and self.schedule.vector is not None:
                chunks = self.b.add(self.dim(self.schedule.vector.extent), i64(CHUNK - 1))
                chunks = self.b.udiv(chunks, i64(CHUNK))
                start = self.b.mul(self.b.urem(number, chunks), i64(CHUNK))
                number = self.b.udiv(number, chunks)
            self._decode(number)
            self._loops(self.nest.loops[len(self.schedule.outer) :], start)
            return []

        repeat(self.b, self._begin, self._end, 1, [], task)
        self.b.ret_void()

    def _decode(self, number: ir.Value) -> None:
        """Set the outer loop variables from the number of the task."""
        outer, copied, copies = self.schedule.outer, self.schedule.copied, self.schedule.copies
        for v in reversed(outer):
            extent = self.dim(v.extent // copies if v == copied else v.extent)
            digit = number if v == outer[0] else self.b.urem(number, extent)
            number = self.b.udiv(number, extent)
            self.known[v] = digit
            if v == copied:
                first = self.b.mul(digit, i64(copies))
                self.known[v] = tuple(self.b.add(first, i64(i)) for i in range(copies))
                self.steps[v] = tuple(range(copies))

    # -- loops --------------------------------------------------------------------------------------------------------

    def _loops(self, loops: Sequence[Var], chunk: ir.Value | None = None) -> None:
        """The loops that remain, and the store inside them. `chunk` is where the first of them starts, if it is cut."""
        self._hoist()
        if not loops:
            for copy in range(self.copies):
                self.copy = copy
                where = self.value(self.nest.where) if self.nest.where else None
                value = self.value(self.nest.value, self.nest.output.type.dtype)
                self.store(self.nest.output, self.nest.index, value, where)
            return
        v, rest = loops[0], loops[1:]

        def body(_: Values) -> Values:
            self._loops(rest)
            return []

        if v == self.schedule.vector:
            start, stop = chunk or i64(0), self.dim(v.extent)
            if chunk is not None:
                end = self.b.add(chunk, i64(CHUNK))
                stop = self.b.select(self.b.icmp_signed("<", end, stop), end, stop)
            self._across_lanes(v, start, stop, [], body, self.schedule.strips)
        else:
            self._one_by_one(v, [], body)

    def _one_by_one(self, v: Var, carried: Values, body: Callable[[Values], Values]) -> Values:
        """A loop over all values of `v`."""

        def one(i: ir.Value, values: Values) -> Values:
            outside = dict(self.known)
            self.known[v] = i
            results = body(values)
            self.known = outside
            return results

        return repeat(self.b, i64(0), self.dim(v.extent), 1, carried, one)

    def _across_lanes(
        self,
        v: Var,
        start: ir.Value,
        stop: ir.Value,
        carried: Values,
        body: Callable[[Values], Values],
        strips: int = 1,
    ) -> Values:
        """Run `v` from start to stop across lanes, `strips` vectors at a time, then the rest under a mask."""
        b = self.b
        width = self.lanes * strips
        full = b.add(start, b.and_(b.sub(stop, start), i64(-width)))
        carried = repeat(
            b, start, full, width, carried, lambda i, values: self._side_by_side(v, i, strips, values, body)
        )
        left = b.sub(stop, full)

        def rest(count: int) -> Values:
            return self._side_by_side(v, full, count, carried, body, left)

        if strips > 1:  # of the rest, one vector if that is enough
            few = b.icmp_signed("<=", left, i64(self.lanes))
            when(b, b.not_(few), lambda: rest(strips))
            left_one = b.and_(few, b.icmp_signed(">", left, i64(0)))
            return when(b, left_one, lambda: rest(1))
        return when(b, b.icmp_signed(">", left, i64(0)), lambda: rest(1), carried)

    def _side_by_side(
        self,
        v: Var,
        first: ir.Value,
        strips: int,
        values: Values,
        body: Callable[[Values], Values],
        left: ir.Value | None = None,
    ) -> Values:
        """The body with `v` across `strips` vectors from `first` on, of which `left` lanes count (None: all).

        The vectors multiply the copies: what differed between copies is now known once for each of them in each vector.
        """
        b, outside, copies, steps = self.b, self.known, self.copies, self.steps
        starts = [strip * self.lanes for strip in range(strips) for _ in range(copies)]
        self.known = {e: x * strips if isinstance(x, tuple) else x for e, x in outside.items()}
        self.known[v] = tuple(b.add(first, i64(start)) for start in starts)
        self.steps = {e: x * strips for e, x in steps.items()} | {v: tuple(starts)}
        if left is not None:
            self.lane_masks = tuple(self.lanes_between(i64(0), b.sub(left, i64(start))) for start in starts)
        self.across, self.copies = v, copies * strips
        results = body(values)
        self.known, self.steps, self.lane_masks, self.across, self.copies = outside, steps, None, None, copies
        return results

    # -- reductions ---------------------------------------------------------------------------------------------------

    def _hoist(self) -> None:
        """Compute each reduction whose variables are all known by now, once, outside the loops that remain."""

        def visit(e: Expr) -> None:
            if e in self.known:
                return
            for child in children(e):  # a reduction inside another, such as softmax's maximum, is known before that
                visit(child)
            if isinstance(e, Reduce) and all(v in self.known for v in free_vars(e)):
                self.known[e] = self._reduce(e)

        for root in (*self.nest.index, self.nest.value, *((self.nest.where,) if self.nest.where else ())):
            visit(root)

    def nested_reduction(self, e: Reduce) -> ir.Value:
        copy = self.copy
        result = self._reduce(e)
        self.copy = copy
        return result[copy] if isinstance(result, tuple) else result

    def _reduce(self, e: Reduce) -> ir.Value | tuple[ir.Value, ...]:
        """The value of a reduction: one for each copy if they differ."""
        differs = self.schedule.copied in free_vars(e) or self.schedule.vector in free_vars(e)
        copies = self.copies if differs else 1
        loads = [x for x in walk(e.body) if isinstance(x, Load)]
        own_lanes = self.across is None and bool(loads) and choose_vector(e.vars[-1:], loads, self.lanes) is not None
        wide = own_lanes or (self.across is not None and self.across in free_vars(e))
        type = ir.VectorType(IR_TYPES[e.dtype], self.lanes) if wide else IR_TYPES[e.dtype]

        def step(values: Values) -> Values:
            results = []
            for copy, value in enumerate(values):
                self.copy = copy
                results.append(self._accumulate(e, value))
            return results

        def loops(vars: Sequence[Var], values: Values) -> Values:
            if not vars:
                return step(values)
            if own_lanes and len(vars) == 1:
                return self._across_lanes(vars[0], i64(0), self.dim(vars[0].extent), values, step)
            return self._one_by_one(vars[0], values, lambda carried: loops(vars[1:], carried))

        results = loops(e.vars, [identity_of(e.kind, type, e.dtype)] * copies)
        if own_lanes:
            results = [fold_lanes(self.b, r, lambda x, y: self._combine(e, x, y)) for r in results]
        return tuple(results) if copies > 1 else results[0]

    def _combine(self, e: Reduce, x: ir.Value, y: ir.Value) -> ir.Value:
        return emit_primitive(self.b, {"sum": "add", "prod": "mul"}.get(e.kind, e.kind), [x, y], e.dtype)

    def _accumulate(self, e: Reduce, so_far: ir.Value) -> ir.Value:
        """One more element; lanes that do not count keep what they have where the lanes are the reduction's own."""
        type = so_far.type

        def operand(x: Expr) -> ir.Value:
            value = self.value(x, e.dtype)
            return self.spread(value) if isinstance(type, ir.VectorType) else value

        if e.kind == "sum" and e.dtype.is_float and isinstance(e.body, Call) and e.body.fn == "mul":
            x, y = map(operand, e.body.args)
            result = intrinsic(self.b, f"llvm.fmuladd.{mangle(type)}", type, [x, y, so_far])
        else:
            result = self._combine(e, so_far, operand(e.body))
        if self.across == e.vars[-1] and self.lane_mask is not None:
            return self.b.select(self.as_lanes(self.lane_mask), result, so_far)
        return result


def buffers_of(nest: Nest) -> list[Buffer]:
    """Every buffer of the nest once, in order of first use; the output first."""
    found = {nest.output.address: nest.output}
    for e in expressions(nest):
        if isinstance(e, Load):
            found.setdefault(e.buffer.address, e.buffer)
    return list(found.values())


def sizes_of(nest: Nest) -> list[Dim]:
    """Every symbolic dim that the code of the nest needs, once."""
    found: list[DimLike] = [v.extent for v in nest.loops]
    found += [*nest.output.stored_shape, nest.output.pitch or 0, *nest.output.shape]
    for e in expressions(nest):
        match e:
            case Load(buffer=buffer):
                found += [*buffer.stored_shape, buffer.pitch or 0, *buffer.shape]
            case Reduce(vars=vars):
                found += [v.extent for v in vars]
            case Size(dim=d):
                found.append(d)
    return [d for d in dict.fromkeys(found) if isinstance(d, Dim)]
