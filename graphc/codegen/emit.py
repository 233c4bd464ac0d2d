"""From a loop nest to vector code: the generic kernel, which runs every op.

ALGORITHM  whatever graphc/codegen/nest.py can write down.

SCHEDULE   * One loop variable runs across the lanes of a vector: the one along which most loads and stores are
             contiguous (`choose_vector`). Its last, partly filled vector is the same code under a lane mask.
           * The loops outside it are flattened into tasks, which the thread pool hands out; one element has one task,
             so the number of threads cannot change a bit.
           * A reduction is computed in the outermost loop in which its operands are known; where no loop runs across
             lanes, its own innermost variable does, and the lanes are folded in a fixed order at the end.
           * Several values of an outer loop variable are computed side by side where their reductions share loads
             (`choose_copies`): each is a chain of additions, and one alone would wait for its own latency.
           * A load whose index may be outside reads under a mask, never out of bounds.
"""

from collections.abc import Callable, Sequence

from llvmlite import ir

from graphc.codegen.arithmetic import constant, emit_primitive, identity_of
from graphc.codegen.blocks import (
    I1, I8, I64, IR_TYPES, VOID, address, fold_lanes, i64, intrinsic, iota, is_vector, mangle, repeat, splat, when,
)  # fmt: skip
from graphc.codegen.nest import (
    Buffer, Load, Nest, Reduce, Size, Var, children, free_vars, offset, stride_along, walk,
)  # fmt: skip
from graphc.ir import Dim, DType, dims
from graphc.ops.scalar import Call, Expr, Lit

# how many chains run side by side: on AVX-512, FMAs take 4 cycles and start 2 a cycle, so 8 fill the pipes; 8 with a
# shared operand also fit the 16 registers of AVX2
COPIES = (8, 6, 4, 3, 2)
CHUNK = 4096  # elements of a nest's only loop that make one task: 16 KiB of float32, half of a first-level cache


def choose_vector(loops: Sequence[Var], accesses: Sequence[Load], lanes: int, store: Load | None) -> Var | None:
    """The variable to run across lanes, or None if scalar code is better than any.

    A contiguous access saves what vectors can save (+1, a store +2), a strided one is gathered lane by lane: at best
    even (-1 for a small constant stride, -2 else). A short loop leaves lanes idle.
    """

    def score(v: Var) -> float:
        if v.extent == 1:
            return -1.0
        total = 0.0
        for access in accesses:
            stride = stride_along(access.buffer, access.index, v)
            total += 1 if stride == 1 else 0 if stride == 0 else -1 if stride is not None and abs(stride) <= 8 else -2
        if store is not None:
            total += 2 if stride_along(store.buffer, store.index, v) == 1 else -4
        return total * (min(1.0, v.extent / lanes) if isinstance(v.extent, int) and total > 0 else 1.0)

    best = max(loops, key=score, default=None)
    return best if best is not None and score(best) >= 0 else None


def vector_variable(nest: Nest, lanes: int) -> Var | None:
    """The loop of the nest that runs across lanes; None where a reduction's variable, or nothing, does instead."""
    expressions = [*nest.index, nest.value, *([nest.where] if nest.where else [])]
    loads = [e for root in expressions for e in walk(root) if isinstance(e, Load)]
    if any(isinstance(i, Load) for root in nest.index for i in walk(root)):
        return None  # scatter: the place of one element depends on data, so elements are stored one by one
    store = Load(nest.output, nest.index)
    chosen = choose_vector(nest.loops, loads, lanes, store)
    for reduce in (e for root in expressions for e in walk(root) if isinstance(e, Reduce)):
        inside = [e for e in walk(reduce.body) if isinstance(e, Load)]
        inner = choose_vector(reduce.vars[-1:], inside, lanes, None)
        if chosen is not None and inner is not None and chosen in free_vars(reduce):
            gathers = sum(stride_along(x.buffer, x.index, chosen) not in (0, 1) for x in inside)
            long_enough = not isinstance(inner.extent, int) or inner.extent >= lanes
            if gathers and long_enough:
                return None  # a dot product along memory beats gathering across it
    return chosen


def choose_copies(nest: Nest, outer: Sequence[Var]) -> tuple[Var | None, int]:
    """The outer loop variable of which several values are computed at once, and how many: one whose extent divides
    evenly, and along which some reduction reuses what it loads."""
    for v in outer:
        count = next((c for c in COPIES if isinstance(v.extent, int) and v.extent % c == 0), 1)
        for reduce in (e for e in walk(nest.value) if isinstance(e, Reduce) and v in free_vars(e)):
            if count > 1 and any(isinstance(x, Load) and v not in free_vars(x) for x in walk(reduce.body)):
                return v, count
    return None, 1


class NestEmitter:
    """Emits one nest as `void name(ptr buffers..., i64 sizes..., i64 begin, i64 end)` over the tasks begin..end-1."""

    def __init__(self, nest: Nest, lanes: int) -> None:
        self.nest, self.lanes = nest, lanes
        self.vector = vector_variable(nest, lanes)
        position = nest.loops.index(self.vector) if self.vector else len(nest.loops)
        self.outer = nest.loops[: min(position, nest.parallel)]
        self.chunked = position == 0 and self.vector is not None and nest.parallel > 0
        self.copied, self.copies = choose_copies(nest, self.outer)
        self.buffers = _buffers(nest)
        self.sizes = _sizes(nest)

    @property
    def tasks(self) -> dims.DimLike:
        """How many independent parts the work has."""
        if self.chunked and self.vector is not None:
            return dims.ceil_div(self.vector.extent, CHUNK)
        return dims.product([v.extent for v in self.outer]) // self.copies

    def emit(self, b: ir.IRBuilder, function: ir.Function) -> None:
        """Fill the function's body."""
        self.b = b
        *operands, begin, end = function.args
        self.pointers = {x.name: p for x, p in zip(self.buffers, operands[: len(self.buffers)], strict=True)}
        self.size_args: dict[Dim, ir.Value] = dict(zip(self.sizes, operands[len(self.buffers) :], strict=True))
        self.env: dict[Expr, ir.Value | tuple[ir.Value, ...]] = {}  # a tuple holds a value for each copy
        self.copy = 0  # the one that code is emitted for
        self.lane_mask: ir.Value | None = None
        self.across: Var | None = None  # the variable that runs across lanes at this point of the code

        def task(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            self.env.clear()
            bounds = None
            if self.chunked and self.vector is not None:
                start = b.mul(number, i64(CHUNK))
                extent, stop = self._dim(self.vector.extent), b.add(start, i64(CHUNK))
                bounds = (start, b.select(b.icmp_signed("<", stop, extent), stop, extent))
            else:
                self._decode(number)
            self._loops(self.nest.loops[len(self.outer) :], bounds)
            return []

        repeat(b, begin, end, 1, [], task)
        b.ret_void()

    def _decode(self, number: ir.Value) -> None:
        """Set the outer loop variables from the number of the task."""
        for v in reversed(self.outer):
            extent = self._dim(v.extent // self.copies if v == self.copied else v.extent)
            digit = number if v == self.outer[0] else self.b.urem(number, extent)
            number = self.b.udiv(number, extent)
            self.env[v] = digit
            if v == self.copied:
                first = self.b.mul(digit, i64(self.copies))
                self.env[v] = tuple(self.b.add(first, i64(i)) for i in range(self.copies))

    def _loops(self, loops: Sequence[Var], bounds: tuple[ir.Value, ir.Value] | None) -> None:
        self._hoist()
        if not loops:
            for self.copy in range(self.copies):
                self._store()
            return
        v, rest = loops[0], loops[1:]
        if v == self.vector:
            start, stop = bounds or (i64(0), self._dim(v.extent))
            self._strips(v, start, stop, [], lambda _: (self._loops(rest, None), [])[1])
            return

        def body(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            outside = dict(self.env)
            self.env[v] = i
            self._loops(rest, None)
            self.env = outside
            return []

        repeat(self.b, i64(0), self._dim(v.extent), 1, [], body)

    def _strips(self, v: Var, start: ir.Value, stop: ir.Value, carried: list[ir.Value],
                body: Callable[[list[ir.Value]], list[ir.Value]]) -> list[ir.Value]:
        """Run `v` from start to stop across lanes: full vectors, then the rest under a mask."""
        b = self.b
        outside = dict(self.env)

        def strip(i: ir.Value, values: list[ir.Value], mask: ir.Value | None) -> list[ir.Value]:
            self.env = outside | {v: i}
            self.across, self.lane_mask = v, mask
            results = body(values)
            self.across, self.lane_mask, self.env = None, None, dict(outside)
            return results

        whole = b.and_(b.sub(stop, start), i64(-self.lanes))
        middle = b.add(start, whole)
        carried = repeat(b, start, middle, self.lanes, carried, lambda i, values: strip(i, values, None))

        def tail() -> list[ir.Value]:
            left = b.sub(stop, middle)
            mask = b.icmp_signed("<", iota(self.lanes), splat(b, left, self.lanes))
            return strip(middle, carried, mask)

        return when(b, b.icmp_signed("<", middle, stop), tail, carried)

    def _hoist(self) -> None:
        """Compute each reduction whose variables are all known by now, once, outside the loops that remain."""
        roots = [*self.nest.index, self.nest.value, *([self.nest.where] if self.nest.where else [])]

        def visit(e: Expr) -> None:
            if isinstance(e, Reduce) and e not in self.env and all(v in self.env for v in free_vars(e)):
                self.env[e] = self._reduce(e)
            elif e not in self.env:
                for child in children(e):
                    visit(child)

        for root in roots:
            visit(root)

    def _reduce(self, e: Reduce) -> ir.Value | tuple[ir.Value, ...]:
        """The value of a reduction: one for each copy if they differ."""
        copies = self.copies if self.copied in free_vars(e) else 1
        outer, inner = e.vars[:-1], e.vars[-1]
        loads = [x for x in walk(e.body) if isinstance(x, Load)]
        own_lanes = self.across is None and choose_vector([inner], loads, self.lanes, None) is not None and bool(loads)
        wide = own_lanes or (self.across is not None and self.across in free_vars(e))
        element = IR_TYPES[e.dtype]
        type = ir.VectorType(element, self.lanes) if wide else element
        combine = self._combiner(e.kind)

        def step(values: list[ir.Value]) -> list[ir.Value]:
            results = []
            for self.copy, value in enumerate(values):
                results.append(self._accumulate(e, value, combine, type))
            return results

        def nested(vars: Sequence[Var], values: list[ir.Value]) -> list[ir.Value]:
            if not vars:
                return self._strips(inner, i64(0), self._dim(inner.extent), values, step) if own_lanes else step(values)
            v = vars[0]

            def body(i: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
                outside = dict(self.env)
                self.env[v] = i
                results = nested(vars[1:], carried)
                self.env = outside
                return results

            return repeat(self.b, i64(0), self._dim(v.extent), 1, values, body)

        results = nested(outer if own_lanes else e.vars, [identity_of(e.kind, type)] * copies)
        if own_lanes:
            results = [fold_lanes(self.b, r, combine) for r in results]
        return tuple(results) if copies > 1 else results[0]

    def _combiner(self, kind: str) -> Callable[[ir.Value, ir.Value], ir.Value]:
        return lambda x, y: emit_primitive(self.b, "add" if kind == "sum" else kind, [x, y])

    def _accumulate(self, e: Reduce, so_far: ir.Value, combine: Callable[[ir.Value, ir.Value], ir.Value],
                    type: ir.Type) -> ir.Value:
        """One more element; lanes beyond the end keep what they have where the lanes are the reduction's own."""
        b = self.b
        if e.kind == "sum" and e.dtype.is_float and isinstance(e.body, Call) and e.body.fn == "mul":
            x, y = (self._as(self._emit(a, e.dtype), type) for a in e.body.args)
            result = intrinsic(b, f"llvm.fmuladd.{mangle(type)}", type, [x, y, so_far])
        else:
            result = combine(so_far, self._as(self._emit(e.body, e.dtype), type))
        own = self.across == e.vars[-1]
        return b.select(self.lane_mask, result, so_far) if own and self.lane_mask is not None else result

    def _as(self, value: ir.Value, type: ir.Type) -> ir.Value:
        return splat(self.b, value, self.lanes) if isinstance(type, ir.VectorType) else value

    def _dim(self, d: dims.DimLike) -> ir.Value:
        return self.size_args[d] if isinstance(d, Dim) else i64(d)

    def _emit(self, e: Expr, like: DType | None = None) -> ir.Value:
        """The value of an expression here: a vector where it differs between lanes, else a scalar."""
        if e in self.env:
            known = self.env[e]
            known = known[self.copy] if isinstance(known, tuple) else known
            return self.b.add(splat(self.b, known, self.lanes), iota(self.lanes)) if e == self.across else known
        match e:
            case Lit(value=v):
                return constant(IR_TYPES[like or e.dtype], v)
            case Size(dim=d):
                return self.size_args[d]
            case Load():
                return self._load(e)
            case Call(fn=fn, args=args):
                return self._call(fn, args, like)
            case Reduce():  # inside another reduction, on whose variables it depends
                copy = self.copy
                result = self._reduce(e)
                self.copy = copy
                return result[copy] if isinstance(result, tuple) else result
        raise AssertionError(f"{e} is not known here")

    def _call(self, fn: str, args: tuple[Expr, ...], like: DType | None) -> ir.Value:
        typed = args[1:] if fn == "select" else args
        dtype = next((a.dtype for a in typed if not isinstance(a, Lit)), like if fn not in _KEEPS_TYPE else None)
        values = [self._emit(a, dtype) for a in typed]
        if fn == "select":
            values.insert(0, self._emit(args[0], DType.BOOL))
        if any(is_vector(v) for v in values):
            values = [splat(self.b, v, self.lanes) for v in values]
        return emit_primitive(self.b, fn, values)

    def _load(self, e: Load) -> ir.Value:
        b, buffer = self.b, e.buffer
        lane_step = stride_along(buffer, e.index, self.across) if self.across else 0
        element = IR_TYPES[buffer.type.dtype]
        stored = I8 if element == I1 else element
        base = self.pointers[buffer.name]
        inside = self._inside(e)
        position = offset(buffer.layout.stored_shape(buffer.shape), buffer.layout.stored_index(e.index))
        if lane_step == 0:
            where = self._emit(position)
            if inside is not None:  # element 0 always exists: read it instead of what lies outside
                where = b.select(inside, where, i64(0))
            value = b.load(address(b, base, where, stored), typ=stored, align=buffer.type.dtype.size)
        else:
            mask = inside if self.lane_mask is None or inside is None else b.and_(
                splat(b, inside, self.lanes), self.lane_mask)
            mask = self.lane_mask if mask is None else splat(b, mask, self.lanes)
            fill = constant(ir.VectorType(stored, self.lanes), e.fill or 0)
            value = self._load_lanes(base, position, stored, buffer.type.dtype.size, lane_step, mask, fill)
            inside = None if lane_step is not None and mask is None else inside
        if element == I1:
            value = b.icmp_unsigned("!=", value, constant(value.type, 0))
        if inside is None or lane_step != 0:
            return value
        return b.select(inside, value, constant(value.type, e.fill or 0))

    def _load_lanes(self, base: ir.Value, position: Expr, stored: ir.Type, align: int, lane_step: int | None,
                    mask: ir.Value | None, fill: ir.Constant) -> ir.Value:
        """Load one element for each lane; lanes that the mask leaves out read nothing and give `fill`."""
        b, type = self.b, fill.type
        if lane_step == 1:
            across, self.across = self.across, None  # the address of lane 0
            place = address(b, base, self._emit(position), stored)
            self.across = across
            if mask is None:
                return b.load(place, typ=type, align=align)
            return intrinsic(b, f"llvm.masked.load.{mangle(type)}.p0", type, [place, mask, fill])
        places = address(b, base, splat(b, self._emit(position), self.lanes), stored)
        every = mask if mask is not None else ir.Constant(ir.VectorType(I1, self.lanes), [1] * self.lanes)
        name = f"llvm.masked.gather.{mangle(type)}.v{self.lanes}p0"
        return intrinsic(b, name, type, [places, every, fill])

    def _inside(self, e: Load) -> ir.Value | None:
        """Whether the index lies inside the buffer, for a load that may be outside; None if it always does."""
        if e.fill is None:
            return None
        inside: ir.Value | None = None
        for i, extent in zip(e.index, e.buffer.shape, strict=True):
            if isinstance(i, Var) and i.extent == extent:
                continue
            value = self._emit(i, DType.I64)
            bound = self._dim(extent)
            bound = splat(self.b, bound, self.lanes) if is_vector(value) else bound
            within = self.b.icmp_unsigned("<", value, bound)  # a negative index is a huge unsigned number
            if inside is not None and is_vector(inside) != is_vector(within):
                inside, within = (splat(self.b, x, self.lanes) for x in (inside, within))
            inside = within if inside is None else self.b.and_(inside, within)
        return inside

    def _store(self) -> None:
        nest, b = self.nest, self.b
        buffer = nest.output
        element = IR_TYPES[buffer.type.dtype]
        value = self._emit(nest.value, buffer.type.dtype)
        mask = self._emit(nest.where, DType.BOOL) if nest.where else None
        if element == I1:
            value = b.zext(value, ir.VectorType(I8, self.lanes) if is_vector(value) else I8)
        stored = I8 if element == I1 else element
        position = offset(buffer.layout.stored_shape(buffer.shape), buffer.layout.stored_index(nest.index))
        base = self.pointers[buffer.name]
        if self.across is None:
            place_and_store = lambda: (b.store(  # noqa: E731
                value, address(b, base, self._emit(position), stored), align=buffer.type.dtype.size), [])[1]
            if mask is None:
                place_and_store()
            else:
                when(b, mask, place_and_store)
            return
        value = splat(b, value, self.lanes)
        if self.lane_mask is not None:
            mask = self.lane_mask if mask is None else b.and_(splat(b, mask, self.lanes), self.lane_mask)
        self._store_lanes(base, position, stored, value, None if mask is None else splat(b, mask, self.lanes))

    def _store_lanes(self, base: ir.Value, position: Expr, stored: ir.Type, value: ir.Value, mask: ir.Value | None,
                     ) -> None:
        b, nest = self.b, self.nest
        align = nest.output.type.dtype.size
        assert self.across is not None
        if stride_along(nest.output, nest.index, self.across) == 1:
            across, self.across = self.across, None
            place = address(b, base, self._emit(position), stored)
            self.across = across
            if mask is None:
                b.store(value, place, align=align)
            else:
                intrinsic(b, f"llvm.masked.store.{mangle(value.type)}.p0", VOID, [value, place, mask])
            return
        places = address(b, base, self._emit(position), stored)
        every = mask if mask is not None else ir.Constant(ir.VectorType(I1, self.lanes), [1] * self.lanes)
        name = f"llvm.masked.scatter.{mangle(value.type)}.v{self.lanes}p0"
        intrinsic(b, name, VOID, [value, places, every])


# primitives whose literal operands take their type from each other, not from the result
_KEEPS_TYPE = {"lt", "le", "gt", "ge", "eq", "ne", "to_f32", "to_f64", "to_i32", "to_i64", "to_bool"}


def _expressions(nest: Nest) -> list[Expr]:
    roots = [*nest.index, nest.value, *([nest.where] if nest.where else [])]
    return [e for root in roots for e in walk(root)]


def _buffers(nest: Nest) -> list[Buffer]:
    """Every buffer of the nest once, in order of first use; the output first."""
    found = {nest.output.name: nest.output}
    for e in _expressions(nest):
        if isinstance(e, Load):
            found.setdefault(e.buffer.name, e.buffer)
    return list(found.values())


def _sizes(nest: Nest) -> list[Dim]:
    """Every symbolic dim that the code of the nest needs, once."""
    found: list[dims.DimLike] = [v.extent for v in nest.loops]
    found += nest.output.layout.stored_shape(nest.output.shape)
    for e in _expressions(nest):
        match e:
            case Load(buffer=buffer):
                found += buffer.layout.stored_shape(buffer.shape)
                found += buffer.shape
            case Reduce(vars=vars):
                found += [v.extent for v in vars]
            case Size(dim=d):
                found.append(d)
    return [d for d in dict.fromkeys(found) if isinstance(d, Dim)]
