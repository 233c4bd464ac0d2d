"""The code of one network for one CPU level: its kernels, what prepares a shape, the run itself.

A level is what runtime/levels.ll says it is; several stand in one module, and their functions are called after them.
"""

import gc
from collections.abc import Callable, Sequence

from llvmlite import ir

from graphc.codegen.blocks import I1, I8, I32, I64, PTR, VOID, address, i64, intrinsic, repeat
from graphc.codegen.carrying import CONTINUED, CONTINUES, OWN, Span
from graphc.codegen.constants import string
from graphc.codegen.cpuid import WORDS, needed_words
from graphc.codegen.kernels.base import Bands, Kernel
from graphc.codegen.kernels.borders import least
from graphc.codegen.kernels.loop_nest import LoopNestKernel
from graphc.codegen.nest import Buffer
from graphc.codegen.plan import ALIGNMENT, Place, Plan, Step, align, buffer_bytes
from graphc.codegen.shapes import ShapeCode
from graphc.codegen.target import Target
from graphc.ir import Dim, DimLike, Graph, dims
from graphc.ir.verify import requirements

ERROR_SIZE, ERROR_TOO_LARGE, FIRST_REQUIREMENT = 2, 3, 100  # the codes of runtime/api.ll
LARGEST_SIZE = 2**31 - 1  # of one symbol; products are checked for overflow
LARGEST_TENSOR = 2**62  # bytes of a workspace; beyond it, sums of slots could overflow
SERIAL_WORK = 20_000  # scalar operations: below about 2 us of work, waking threads costs more than it saves
# the words of the frame that a run passes on
FRAME_TABLE, FRAME_OWN, FRAME_WEIGHTS, FRAME_CARRIED, FRAME_WORKSPACE, FRAME_INPUTS = 0, 1, 2, 3, 4, 5
SIZES_AT_ONCE = 64  # table entries without a branch: for long blocks LLVM takes quadratic time (2,000 entries: 7 s)
CLOCK_MONOTONIC = 1  # of Linux's clock_gettime, which takes 20 ns


class LevelCode:
    """Adds to `module` the functions of a plan, with `suffix` in their names; `record` describes them.

    With `stamps`, the name of a function, that returns where a run notes the time of every step.
    """

    def __init__(
        self, module: ir.Module, plan: Plan, target: Target, number: int, suffix: str, stamps: str | None
    ) -> None:
        self.module, self.plan, self._group, self._suffix = module, plan, f"#{number}", suffix
        self._tensors = [Buffer(v.name, v.type) for v in (*plan.graph.inputs, *plan.graph.outputs)]
        # runtime/buffers.ll reads these first words: the bytes of the workspace, of what is carried, and of each tensor
        self._table: dict[DimLike | tuple[str, int], int] = {("workspace", 0): 0, ("all carried", 0): 1}
        self._table |= {("tensor", i): 2 + i for i in range(len(self._tensors))}
        self._short: dict[Dim, Dim] = {}  # symbols for sizes of which long expressions are made
        self._kernels: dict[tuple[str | int, ...], ir.Function] = {}
        self._updated = find_updated(plan.graph)
        self.nests: set[str] = set()  # the functions of a run that loop nests became
        self.texts: list[str] = []  # the kernels: their functions in the module are declarations
        self._scratch = max((align(s.kernel.scratch) for s in (*plan.setup, *plan.steps)), default=0)
        setup = self._emit_sequence("setup", plan.setup, None)
        forward = self._emit_sequence("forward", plan.steps, self._define_stamps(stamps) if stamps else None)
        strip: ir.Value = self._emit_sequence("strip", plan.steps, None) if plan.carry else ir.Constant(PTR, None)
        output_dims = self._emit_output_dims()
        prepare = self._emit_prepare()
        words = ir.Constant(ir.ArrayType(I32, WORDS), needed_words(target.needs))
        self.record = ir.Constant.literal_struct(
            [
                *(prepare, setup, forward, output_dims),
                *(i64(len(self._table)), i64(plan.packed_bytes), i64(self._scratch)),
                *(string(module, f"graphc_cpu{suffix}", target.cpu), i64(target.level), words, strip),
            ]
        )

    # -- the run ------------------------------------------------------------------------------------------------------

    def _function(self, name: str, result: ir.Type, args: Sequence[ir.Type]) -> ir.Function:
        function = ir.Function(self.module, ir.FunctionType(result, list(args)), f"graphc_{name}{self._suffix}")
        function.linkage = "internal"
        set.add(function.attributes, self._group)  # llvmlite's own add() knows no such attribute
        return function

    def _kernel(self, kernel: Kernel) -> ir.Function:
        """The kernel's function, emitted once for all steps with equal keys, and again where it works in place."""
        result, *operands = (self.plan.places[buffer.memory] for buffer in kernel.buffers)
        shared = {i for i, p in enumerate(operands, 1) if p == self._updated.get(result)}
        key: tuple[str | int, ...] = (kernel.key, *sorted(shared))
        if key not in self._kernels:
            args = [PTR] * len(kernel.buffers) + [I64] * (len(kernel.sizes) + 2) + [PTR]
            function = self._function(f"{kernel.name}_{len(self._kernels)}", VOID, args)
            function.attributes.add("noinline")
            for i, argument in enumerate(function.args[: len(kernel.buffers)]):
                if not shared or i not in {0, *shared}:
                    argument.add_attribute("noalias")
            kernel.emit(ir.IRBuilder(function.append_basic_block("entry")), function)
            self._kernels[key] = function
            self._write(function)
        return self._kernels[key]

    def _write(self, function: ir.Function) -> None:
        """Keep the finished function as text, and a declaration of it in the module.

        A network's instructions as objects, all at once, took 60 to 160 MB. They refer to each other in circles.
        """
        self.texts.append(str(function))
        function.blocks.clear()
        gc.collect(0)  # all that is young, if nothing was collected meanwhile: see emit_module

    def _emit_step(self, name: str, kernel: Kernel, rows: Span | None) -> ir.Function:
        """`void step(ptr frame, i64 begin, i64 end, i64 thread)`: the kernel on this step's buffers and sizes.

        The tasks begin..end-1 are of those that have results in these rows.
        """
        function = self._function(name, VOID, [PTR, I64, I64, I64])
        frame, begin, end, thread = function.args
        b = ir.IRBuilder(function.append_basic_block("entry"))
        table = load_word(b, frame, FRAME_TABLE, PTR)
        pointers = [self._address(b, frame, table, buffer) for buffer in kernel.buffers]
        sizes = [self._load_entry(b, table, d) for d in kernel.sizes]
        scratch: ir.Value = ir.Constant(PTR, None)
        if kernel.scratch:
            start = b.add(i64(self.plan.packed_bytes), b.mul(thread, i64(self._scratch)))
            scratch = address(b, load_word(b, frame, FRAME_OWN, PTR), start, I8)

        def run(begin: ir.Value, end: ir.Value) -> None:
            b.call(self._kernel(kernel), [*pointers, *sizes, begin, end, scratch])

        if kernel.bands is None or rows is None:
            run(begin, end)
        else:
            self._emit_parts(b, table, kernel.bands.map(self._shorten), rows, (begin, end), run)
        b.ret_void()
        return function

    def _emit_parts(
        self,
        b: ir.IRBuilder,
        table: ir.Value,
        bands: Bands,
        rows: Span,
        tasks: tuple[ir.Value, ir.Value],
        run: Callable[[ir.Value, ir.Value], None],
    ) -> None:
        """`run(begin, end)` for those tasks of each part that have results in these rows, of which all are numbered."""
        first, count = bands.cut(rows)
        skipped = self._load_entry(b, table, dims.product([first, bands.inner]))
        wanted = self._load_entry(b, table, dims.product([count, bands.inner]))
        wanted = b.select(b.icmp_signed("<", wanted, i64(1)), i64(1), wanted)  # without any, there are no tasks
        whole = self._load_entry(b, table, dims.product([bands.count, bands.inner]))
        last = b.mul(whole, self._load_entry(b, table, bands.outer))
        shared = self._load_entry(b, table, bands.shared)
        begin, end = tasks

        def part(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            number, base = b.mul(i, wanted), b.add(b.mul(i, whole), skipped)
            start = b.sub(begin, number)
            start = b.select(b.icmp_signed("<", start, i64(0)), i64(0), start)
            stop = b.add(base, least(b, b.sub(end, number), wanted))
            run(b.add(base, start), b.add(stop, b.select(b.icmp_signed("==", stop, last), shared, i64(0))))
            return []

        repeat(b, b.udiv(begin, wanted), b.udiv(b.add(end, b.sub(wanted, i64(1))), wanted), 1, [], part)

    def _address(self, b: ir.IRBuilder, frame: ir.Value, table: ir.Value, buffer: Buffer) -> ir.Value:
        whole = self._whole_address(b, frame, table, self.plan.places[buffer.memory])
        if buffer.whole is None:
            return whole
        return address(b, whole, self._load_entry(b, table, buffer.start * buffer.type.dtype.size), I8)

    def _whole_address(self, b: ir.IRBuilder, frame: ir.Value, table: ir.Value, place: Place) -> ir.Value:
        match place.kind:
            case "input":
                return load_word(b, frame, FRAME_INPUTS + place.index, PTR)
            case "output":
                return load_word(b, frame, FRAME_INPUTS + len(self.plan.graph.inputs) + place.index, PTR)
            case "weights":
                return address(b, load_word(b, frame, FRAME_WEIGHTS, PTR), i64(place.index), I8)
            case "packed":
                return address(b, load_word(b, frame, FRAME_OWN, PTR), i64(place.index), I8)
        start = load_word(b, table, self._entry((place.kind, place.index)), I64)
        base = FRAME_CARRIED if place.kind == "carried" else FRAME_WORKSPACE
        return address(b, load_word(b, frame, base, PTR), start, I8)

    def _shorten(self, d: DimLike) -> DimLike:
        """A symbol for a size: a dim has a limited length."""
        return self._short.setdefault(d, dims.symbol(f"{OWN}size{len(self._short)}")) if isinstance(d, Dim) else d

    def _entry(self, key: DimLike | tuple[str, int]) -> int:
        return self._table.setdefault(key, len(self._table))

    def _load_entry(self, b: ir.IRBuilder, table: ir.Value, d: DimLike) -> ir.Value:
        return load_word(b, table, self._entry(d), I64) if isinstance(d, Dim) else i64(d)

    def _emit_sequence(self, name: str, steps: Sequence[Step], stamps: ir.GlobalVariable | None) -> ir.Function:
        """`void graphc_NAME(ptr frame, ptr pool)`: the steps in order, on the pool where it is worth it.

        Setup has a third argument, `visit`, which is told of the weights that a step reads. A strip's tile leaves out
        the rows that it knows, and carries some over.
        """
        if name == "strip":
            steps = [one for step in steps for one in (step, *step.carrying)]
        spans = [step.rows if name == "strip" else None for step in steps]
        pairs = zip(steps, spans, strict=True)
        functions = [self._emit_step(f"{name}_{i}", step.kernel, rows) for i, (step, rows) in enumerate(pairs)]
        if name == "forward":
            self.nests = {self._kernel(s.kernel).name for s in steps if isinstance(s.kernel, LoopNestKernel)}
        pool_run = self.module.globals.get("graphc_pool_run") or ir.Function(
            self.module, ir.FunctionType(VOID, [PTR, PTR, PTR, I64]), "graphc_pool_run"
        )
        sequence = self._function(name, VOID, [PTR] * (3 if name == "setup" else 2))
        frame, pool, *visit = sequence.args
        b = ir.IRBuilder(sequence.append_basic_block("entry"))
        table = load_word(b, frame, FRAME_TABLE, PTR)
        for i, (step, rows, function) in enumerate(zip(steps, spans, functions, strict=True)):
            _emit_stamp(b, stamps, i)
            self._emit_visits(b, frame, visit, step.kernel, after=False)
            tasks = self._load_entry(b, table, count_tasks(step.kernel, rows, self._shorten))
            work = self._load_entry(b, table, step.kernel.work)
            with b.if_else(b.icmp_signed("<", work, i64(SERIAL_WORK))) as (alone, together):
                with alone:
                    b.call(function, [frame, i64(0), tasks, i64(0)])
                with together:
                    b.call(pool_run, [pool, function, frame, tasks])
            self._emit_visits(b, frame, visit, step.kernel, after=True)
        _emit_stamp(b, stamps, len(steps))
        b.ret_void()
        return sequence

    def _emit_visits(
        self, b: ir.IRBuilder, frame: ir.Value, visit: Sequence[ir.Value], kernel: Kernel, after: bool
    ) -> None:
        """Tell `visit`, if this is setup, which weights the kernel is about to read, or has read."""
        for told in visit:
            for buffer in kernel.buffers:
                place = self.plan.places[buffer.memory]
                if place.kind == "weights":
                    size = buffer_bytes(buffer)
                    assert isinstance(size, int)
                    weights = load_word(b, frame, FRAME_WEIGHTS, PTR)
                    args = [told, weights, i64(place.index), i64(size), ir.Constant(I32, int(after))]
                    intrinsic(b, "graphc_visit", VOID, args)

    def _define_stamps(self, name: str) -> ir.GlobalVariable:
        """Where a profiled run notes when each step begins, and when the last one ends; `name()` is its address.

        A stamp is the two words of a `struct timespec`: seconds, nanoseconds.
        """
        stamps = ir.GlobalVariable(self.module, ir.ArrayType(I64, 2 * len(self.plan.steps) + 2), "graphc_stamps")
        stamps.linkage, stamps.initializer = "internal", ir.Constant(stamps.value_type, None)
        function = ir.Function(self.module, ir.FunctionType(PTR, []), name)
        ir.IRBuilder(function.append_basic_block("entry")).ret(stamps)
        return stamps

    # -- shapes -------------------------------------------------------------------------------------------------------

    def _emit_prepare(self) -> ir.Function:
        """`i32 graphc_prepare(ptr sizes, ptr table, i64 carries, i64 part)`.

        It is emitted last, when every table entry is known.
        """
        function = self._function("prepare", I32, [PTR, PTR, I64, I64])
        sizes, table, carries, part = function.args
        b = ir.IRBuilder(function.append_basic_block("entry"))

        def refuse_if(condition: ir.Value, code: int) -> None:
            with b.if_then(condition, likely=False):
                b.ret(ir.Constant(I32, code))

        symbols = {s: load_word(b, sizes, i, I64) for i, s in enumerate(self.plan.graph.symbols)}
        for value in symbols.values():
            refuse_if(b.icmp_unsigned(">=", b.sub(value, i64(1)), i64(LARGEST_SIZE)), ERROR_SIZE)
        if carry := self.plan.carry:  # a lower tile has not the rows that the next one needs
            low = b.icmp_signed("<", symbols[str(carry.height)], b.mul(carries, i64(carry.overlap)))
            refuse_if(low, ERROR_SIZE)
        told = {CONTINUES: b.and_(part, i64(1)), CONTINUED: b.lshr(part, i64(1))}
        code = ShapeCode(b, symbols | told)
        for d, short in self._short.items():
            code.define(short, code.emit(d))
        for i, r in enumerate(requirements(self.plan.graph)):
            a, bound = code.emit(r.a), code.emit(1 if r.b is None else r.b)
            refuse_if(b.icmp_signed("<" if r.b is None else "!=", a, bound), FIRST_REQUIREMENT + i)
        for i, tensor in enumerate(self._tensors):
            b.store(code.emit(buffer_bytes(tensor)), address(b, table, i64(self._entry(("tensor", i))), I64))
        for key, index in self._table.items():
            if isinstance(key, Dim):
                b.store(code.emit(key), address(b, table, i64(index), I64))
            if index % SIZES_AT_ONCE == 0:
                refuse_if(code.overflow, ERROR_TOO_LARGE)
                code.overflow = ir.Constant(I1, 0)
        carried = self._emit_places(code, table, "carried", [[size] for size in self.plan.carried], i64(0))
        # never 0: the interface takes 0 for "not prepared"
        total = self._emit_places(code, table, "slot", self.plan.slots, i64(ALIGNMENT))
        large = b.icmp_signed(">", code.checked("sadd", total, carried), i64(LARGEST_TENSOR))
        refuse_if(b.or_(code.overflow, large), ERROR_TOO_LARGE)
        b.store(total, table)
        b.store(b.mul(carried, carries), address(b, table, i64(self._entry(("all carried", 0))), I64))
        b.ret(ir.Constant(I32, 0))
        return function

    def _emit_places(
        self, code: ShapeCode, table: ir.Value, kind: str, slots: Sequence[Sequence[DimLike]], first: ir.Value
    ) -> ir.Value:
        """Store where each slot begins, from byte `first` on, one after the other; where the last one ends."""
        b, total = code.b, first
        for slot, members in enumerate(slots):
            size: ir.Value = i64(0)
            for member in members:
                value = code.emit(member)
                size = b.select(b.icmp_signed(">", value, size), value, size)
            b.store(total, address(b, table, i64(self._entry((kind, slot))), I64))
            rounded = b.and_(code.checked("sadd", size, i64(ALIGNMENT - 1)), i64(-ALIGNMENT))
            total = code.checked("sadd", total, rounded)
        return total

    def _emit_output_dims(self) -> ir.Function:
        """`void graphc_output_dims(ptr table, i32 output, ptr dims)`."""
        function = self._function("output_dims", VOID, [PTR, I32, PTR])
        table, output, result = function.args
        b = ir.IRBuilder(function.append_basic_block("entry"))
        last = b.append_basic_block("last")
        choice = b.switch(output, last)
        for i, v in enumerate(self.plan.graph.outputs):
            block = b.append_basic_block(f"output{i}")
            choice.add_case(ir.Constant(I32, i), block)
            b.position_at_end(block)
            for axis, d in enumerate(v.type.shape):
                b.store(self._load_entry(b, table, d), address(b, result, i64(axis), I64))
            b.branch(last)
        b.position_at_end(last)
        b.ret_void()
        return function


def _emit_stamp(b: ir.IRBuilder, stamps: ir.GlobalVariable | None, number: int) -> None:
    """Note the time, if this is profiled. The cycle counter would be nearer, but not every CPU lets it be read."""
    if stamps:
        place = address(b, stamps, i64(2 * number), I64)
        intrinsic(b, "clock_gettime", I32, [ir.Constant(I32, CLOCK_MONOTONIC), place])


def count_tasks(kernel: Kernel, rows: Span | None, change: Callable[[DimLike], DimLike]) -> DimLike:
    """The tasks of a kernel; if they follow the rows of its result, those that have results in these.

    `change` is done to every size of which that is made, but for the rows.
    """
    if kernel.bands is None or rows is None:
        return kernel.tasks
    bands = kernel.bands.map(change)
    return dims.product([bands.outer, bands.cut(rows)[1], bands.inner])


def find_updated(graph: Graph) -> dict[Place, Place]:
    """The outputs that may have an input's address, and that input."""
    return {
        Place("output", graph.output_names.index(name)): Place("input", graph.inputs.index(state))
        for name, state in graph.updates.items()
    }


def load_word(b: ir.IRBuilder, base: ir.Value, index: int, type: ir.Type) -> ir.Value:
    return b.load(address(b, base, i64(index), I64), typ=type, align=8)
