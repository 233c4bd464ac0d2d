"""One LLVM module for one network: its kernels, the code that prepares a shape, the run itself, and the C entry points.

The module joins two texts that are the same for every network, the thread pool and the C interface (runtime/pool.ll and
runtime/api.ll, whose head says which names this file defines), with what is generated here.
"""

import re
from collections.abc import Sequence

from llvmlite import ir

from graphc.codegen.blocks import I8, I32, I64, PTR, VOID, address, i64, intrinsic
from graphc.codegen.kernels.base import Kernel
from graphc.codegen.kernels.loop_nest import LoopNestKernel
from graphc.codegen.nest import Buffer
from graphc.codegen.plan import ALIGNMENT, Place, Plan, Step, align, buffer_bytes
from graphc.codegen.shapes import ShapeCode
from graphc.codegen.target import Target
from graphc.ir import Dim, DimLike, Graph
from graphc.ir.verify import requirements

ERROR_SIZE, ERROR_TOO_LARGE, ERROR_FIXED_SIZE, FIRST_REQUIREMENT = 2, 3, 9, 100  # the codes of runtime/api.ll
LARGEST_SIZE = 2**31 - 1  # of one symbol; products are checked for overflow
LARGEST_TENSOR = 2**62  # bytes of a workspace; beyond it, sums of slots could overflow
SERIAL_WORK = 20_000  # scalar operations: below about 2 us of work, waking threads costs more than it saves
# the words of the frame that a run passes on
FRAME_TABLE, FRAME_WEIGHTS, FRAME_WORKSPACE, FRAME_OWN, FRAME_INPUTS = 0, 1, 2, 3, 4
CLOCK_MONOTONIC = 1  # of Linux's clock_gettime, which takes 20 ns
WEIGHTS_LABEL = "graphc_weights_data"


class NetworkModule:
    """Builds the module of a plan. `text(pool, api)` is the whole, ready to be parsed."""

    def __init__(
        self, plan: Plan, target: Target, name: str, metadata: str, header: bytes, embed: bool, profile: bool = False
    ) -> None:
        self.plan, self.target, self.name = plan, target, name
        self.module = ir.Module(name)
        self.module.triple = target.triple
        self._table: dict[DimLike | tuple[str, int], int] = {("workspace", 0): 0}
        self._kernels: dict[tuple[str | int, ...], ir.Function] = {}
        self._updated = find_updated(plan.graph)
        self.nests: set[str] = set()  # the functions of a run that loop nests became
        self._define_constants(metadata, header, embed)
        self._scratch = max((align(s.kernel.scratch) for s in (*plan.setup, *plan.steps)), default=0)
        self._constant("graphc_packed_bytes", i64(plan.packed_bytes))
        self._constant("graphc_scratch_bytes", i64(self._scratch))
        self._emit_sequence("setup", plan.setup, None)
        self._emit_sequence("forward", plan.steps, self._define_stamps() if profile else None)
        self._emit_output_dims()
        self._emit_prepare()
        self._emit_c_functions()
        self._constant("graphc_table_words", ir.Constant(I64, len(self._table)))

    def text(self, pool: str, api: str) -> str:
        """The module as LLVM IR, with the pool and the interface."""
        return join_ir(str(self.module), pool, api.replace("NAME", self.name))  # LLVM wants the triple first

    # -- constants ----------------------------------------------------------------------------------------------------

    def _define_constants(self, metadata: str, header: bytes, embed: bool) -> None:
        graph = self.plan.graph
        inputs, outputs = len(graph.inputs), len(graph.outputs)
        counts = {"symbols": len(graph.symbols), "inputs": inputs, "outputs": outputs,
                  "frame_words": FRAME_INPUTS + inputs + outputs, "weight_bytes": self.plan.weight_bytes}  # fmt: skip
        for key, value in counts.items():
            self._constant(f"graphc_{key}", ir.Constant(I64, value))
        self._string("graphc_metadata", metadata)
        self._constant("graphc_weights_header", ir.Constant(ir.ArrayType(I8, 64), bytearray(header.ljust(64, b"\0"))))
        self._requirements = requirements(graph)
        messages = [self._string(f"graphc_r{i}", r.message) for i, r in enumerate(self._requirements)]
        self._constant("graphc_messages", ir.Constant(ir.ArrayType(PTR, len(messages)), messages))
        self._constant("graphc_message_count", ir.Constant(I32, len(messages)))
        masks = [ir.Constant(I64, v.type.dtype.size - 1) for v in (*graph.inputs, *graph.outputs)]
        self._constant("graphc_alignments", ir.Constant(ir.ArrayType(I64, len(masks)), masks))
        weights: ir.Value = ir.Constant(PTR, None)
        if embed and self.plan.weight_bytes:
            weights = ir.GlobalVariable(self.module, I8, WEIGHTS_LABEL)
            weights.global_constant = True
            weights.storage_class = ""
        self._constant("graphc_weights", weights)

    def _constant(self, name: str, value: ir.Value) -> ir.GlobalVariable:
        variable = ir.GlobalVariable(self.module, value.type, name)
        variable.linkage, variable.global_constant, variable.initializer = "internal", True, value
        return variable

    def _string(self, name: str, text: str) -> ir.GlobalVariable:
        data = bytearray(text.replace("\0", "?").encode() + b"\0")
        return self._constant(name, ir.Constant(ir.ArrayType(I8, len(data)), data))

    # -- the run ------------------------------------------------------------------------------------------------------

    def _function(self, name: str, result: ir.Type, args: Sequence[ir.Type], internal: bool = True) -> ir.Function:
        function = ir.Function(self.module, ir.FunctionType(result, list(args)), name)
        function.linkage = "internal" if internal else ""
        self.target.annotate(function)
        return function

    def _kernel(self, kernel: Kernel) -> ir.Function:
        """The kernel's function, emitted once for all steps with equal keys, and again where it works in place."""
        result, *operands = (self.plan.places[buffer.memory] for buffer in kernel.buffers)
        shared = {i for i, p in enumerate(operands, 1) if p == self._updated.get(result)}
        key: tuple[str | int, ...] = (kernel.key, *sorted(shared))
        if key not in self._kernels:
            args = [PTR] * len(kernel.buffers) + [I64] * (len(kernel.sizes) + 2) + [PTR]
            function = self._function(f"graphc_{kernel.name}_{len(self._kernels)}", VOID, args)
            function.attributes.add("noinline")
            for i, argument in enumerate(function.args[: len(kernel.buffers)]):
                if not shared or i not in {0, *shared}:
                    argument.add_attribute("noalias")
            kernel.emit(ir.IRBuilder(function.append_basic_block("entry")), function)
            self._kernels[key] = function
        return self._kernels[key]

    def _emit_step(self, name: str, kernel: Kernel) -> ir.Function:
        """`void step(ptr frame, i64 begin, i64 end, i64 thread)`: the kernel on this step's buffers and sizes."""
        function = self._function(name, VOID, [PTR, I64, I64, I64])
        frame, begin, end, thread = function.args
        b = ir.IRBuilder(function.append_basic_block("entry"))
        table = _word(b, frame, FRAME_TABLE, PTR)
        pointers = [self._address(b, frame, table, buffer) for buffer in kernel.buffers]
        sizes = [self._load_entry(b, table, d) for d in kernel.sizes]
        scratch: ir.Value = ir.Constant(PTR, None)
        if kernel.scratch:
            start = b.add(i64(self.plan.packed_bytes), b.mul(thread, i64(self._scratch)))
            scratch = address(b, _word(b, frame, FRAME_OWN, PTR), start, I8)
        b.call(self._kernel(kernel), [*pointers, *sizes, begin, end, scratch])
        b.ret_void()
        return function

    def _address(self, b: ir.IRBuilder, frame: ir.Value, table: ir.Value, buffer: Buffer) -> ir.Value:
        whole = self._whole_address(b, frame, table, self.plan.places[buffer.memory])
        if buffer.whole is None:
            return whole
        return address(b, whole, self._load_entry(b, table, buffer.start * buffer.type.dtype.size), I8)

    def _whole_address(self, b: ir.IRBuilder, frame: ir.Value, table: ir.Value, place: Place) -> ir.Value:
        match place.kind:
            case "input":
                return _word(b, frame, FRAME_INPUTS + place.index, PTR)
            case "output":
                return _word(b, frame, FRAME_INPUTS + len(self.plan.graph.inputs) + place.index, PTR)
            case "weights":
                return address(b, _word(b, frame, FRAME_WEIGHTS, PTR), i64(place.index), I8)
            case "packed":
                return address(b, _word(b, frame, FRAME_OWN, PTR), i64(place.index), I8)
        start = _word(b, table, self._entry(("slot", place.index)), I64)
        return address(b, _word(b, frame, FRAME_WORKSPACE, PTR), start, I8)

    def _entry(self, key: DimLike | tuple[str, int]) -> int:
        return self._table.setdefault(key, len(self._table))

    def _load_entry(self, b: ir.IRBuilder, table: ir.Value, d: DimLike) -> ir.Value:
        return _word(b, table, self._entry(d), I64) if isinstance(d, Dim) else i64(d)

    def _emit_sequence(self, name: str, steps: Sequence[Step], stamps: ir.GlobalVariable | None) -> None:
        """`void graphc_NAME(ptr frame, ptr pool)`: the steps in order, on the pool where it is worth it."""
        functions = [self._emit_step(f"graphc_{name}_{i}", step.kernel) for i, step in enumerate(steps)]
        if name == "forward":
            self.nests = {self._kernel(s.kernel).name for s in steps if isinstance(s.kernel, LoopNestKernel)}
        pool_run = self.module.globals.get("graphc_pool_run") or ir.Function(
            self.module, ir.FunctionType(VOID, [PTR, PTR, PTR, I64]), "graphc_pool_run"
        )
        sequence = self._function(f"graphc_{name}", VOID, [PTR, PTR])
        frame, pool = sequence.args
        b = ir.IRBuilder(sequence.append_basic_block("entry"))
        table = _word(b, frame, FRAME_TABLE, PTR)
        for i, (step, function) in enumerate(zip(steps, functions, strict=True)):
            _emit_stamp(b, stamps, i)
            tasks = self._load_entry(b, table, step.kernel.tasks)
            work = self._load_entry(b, table, step.kernel.work)
            with b.if_else(b.icmp_signed("<", work, i64(SERIAL_WORK))) as (alone, together):
                with alone:
                    b.call(function, [frame, i64(0), tasks, i64(0)])
                with together:
                    b.call(pool_run, [pool, function, frame, tasks])
        _emit_stamp(b, stamps, len(steps))
        b.ret_void()

    def _define_stamps(self) -> ir.GlobalVariable:
        """Where a profiled run notes when each step begins, and when the last one ends; `NAME_stamps()` is its address.

        A stamp is the two words of a `struct timespec`: seconds, nanoseconds.
        """
        stamps = ir.GlobalVariable(self.module, ir.ArrayType(I64, 2 * len(self.plan.steps) + 2), "graphc_stamps")
        stamps.linkage, stamps.initializer = "internal", ir.Constant(stamps.value_type, None)
        function = self._function(f"{self.name}_stamps", PTR, [], False)
        ir.IRBuilder(function.append_basic_block("entry")).ret(stamps)
        return stamps

    # -- shapes -------------------------------------------------------------------------------------------------------

    def _emit_prepare(self) -> None:
        """`i32 graphc_prepare(ptr sizes, ptr table)`; emitted last, when every table entry is known."""
        function = self._function("graphc_prepare", I32, [PTR, PTR])
        sizes, table = function.args
        b = ir.IRBuilder(function.append_basic_block("entry"))

        def refuse_if(condition: ir.Value, code: int) -> None:
            with b.if_then(condition, likely=False):
                b.ret(ir.Constant(I32, code))

        symbols = {s: _word(b, sizes, i, I64) for i, s in enumerate(self.plan.graph.symbols)}
        for value in symbols.values():
            refuse_if(b.icmp_unsigned(">=", b.sub(value, i64(1)), i64(LARGEST_SIZE)), ERROR_SIZE)
        code = ShapeCode(b, symbols)
        for i, r in enumerate(self._requirements):
            a, bound = code.emit(r.a), code.emit(1 if r.b is None else r.b)
            refuse_if(b.icmp_signed("<" if r.b is None else "!=", a, bound), FIRST_REQUIREMENT + i)
        for buffer in (Buffer(v.name, v.type) for v in (*self.plan.graph.inputs, *self.plan.graph.outputs)):
            code.emit(buffer_bytes(buffer))  # for its overflow check
        for key, index in self._table.items():
            if isinstance(key, Dim):
                b.store(code.emit(key), address(b, table, i64(index), I64))
        total: ir.Value = i64(ALIGNMENT)  # never 0: the interface takes 0 for "not prepared"
        for slot, members in enumerate(self.plan.slots):
            start, size = total, i64(0)
            for member in members:
                value = code.emit(member)
                size = b.select(b.icmp_signed(">", value, size), value, size)
            rounded = b.and_(code.checked("sadd", size, i64(ALIGNMENT - 1)), i64(-ALIGNMENT))
            total = code.checked("sadd", total, rounded)
            b.store(start, address(b, table, i64(self._entry(("slot", slot))), I64))
        refuse_if(b.or_(code.overflow, b.icmp_signed(">", total, i64(LARGEST_TENSOR))), ERROR_TOO_LARGE)
        b.store(total, table)
        b.ret(ir.Constant(I32, 0))

    def _emit_output_dims(self) -> None:
        """`void graphc_output_dims(ptr table, i32 output, ptr dims)`."""
        function = self._function("graphc_output_dims", VOID, [PTR, I32, PTR])
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

    # -- C ------------------------------------------------------------------------------------------------------------

    def _emit_c_functions(self) -> None:
        """NAME_run, _run_in, _output_shape and _workspace_bytes, for networks whose sizes are N, H and W."""
        graph = self.plan.graph
        if not has_image_sizes(graph):
            return
        ins, outs = [PTR] * len(graph.inputs), [PTR] * len(graph.outputs)
        call = ir.Function(self.module, ir.FunctionType(I32, [PTR, PTR, PTR, PTR, PTR, I64]), f"{self.name}_call")
        for suffix, extra in (("run", []), ("run_in", [PTR, I64])):
            function = self._function(f"{self.name}_{suffix}", I32, [PTR, *ins, I64, I64, I64, *outs, *extra], False)
            net, *rest = function.args
            inputs, sizes = rest[: len(ins)], rest[len(ins) : len(ins) + 3]
            outputs = rest[len(ins) + 3 : len(ins) + 3 + len(outs)]
            workspace = rest[len(ins) + 3 + len(outs) :] or [ir.Constant(PTR, None), i64(0)]
            b = ir.IRBuilder(function.append_basic_block("entry"))
            packed = self._check_and_pack(b, sizes, ir.Constant(I32, ERROR_FIXED_SIZE))
            b.ret(b.call(call, [net, _array(b, inputs), packed, _array(b, outputs), *workspace]))
        self._emit_output_shape()
        function = self._function(f"{self.name}_workspace_bytes", I64, [I64, I64, I64, I32], False)
        b = ir.IRBuilder(function.append_basic_block("entry"))
        packed = self._check_and_pack(b, function.args[:3], i64(-ERROR_FIXED_SIZE))
        with b.if_then(b.icmp_signed("<", function.args[3], ir.Constant(I32, 0)), likely=False):
            b.ret(i64(-1))
        query = ir.Function(self.module, ir.FunctionType(I64, [PTR]), f"{self.name}_workspace")
        b.ret(b.call(query, [packed]))

    def _emit_output_shape(self) -> None:
        """`int NAME_output_shape(n, h, w, int64_t out[4])`: of the first output; dims beyond its rank are 1."""
        rank = self.plan.graph.outputs[0].type.rank
        if rank > 4:
            return
        function = self._function(f"{self.name}_output_shape", I32, [I64, I64, I64, PTR], False)
        b = ir.IRBuilder(function.append_basic_block("entry"))
        out = function.args[3]
        with b.if_then(b.icmp_unsigned("==", b.ptrtoint(out, I64), i64(0)), likely=False):
            b.ret(ir.Constant(I32, 1))
        packed = self._check_and_pack(b, function.args[:3], ir.Constant(I32, ERROR_FIXED_SIZE))
        for axis in range(rank, 4):
            b.store(i64(1), address(b, out, i64(axis), I64))
        query = ir.Function(self.module, ir.FunctionType(I32, [PTR, I32, PTR]), f"{self.name}_output_dims")
        b.ret(b.call(query, [packed, ir.Constant(I32, 0), out]))

    def _check_and_pack(self, b: ir.IRBuilder, sizes: Sequence[ir.Value], error: ir.Constant) -> ir.Value:
        """n, h, w as the array of symbols; a size that is fixed must equal the first input's."""
        graph = self.plan.graph
        given = dict(zip("NHW", sizes, strict=True))
        code = ShapeCode(b, {s: given[s] for s in graph.symbols})
        for size, fixed in fixed_sizes(graph).items():
            with b.if_then(b.icmp_signed("!=", given[size], code.emit(fixed)), likely=False):
                b.ret(error)
        return _array(b, [given[s] for s in graph.symbols])


def _emit_stamp(b: ir.IRBuilder, stamps: ir.GlobalVariable | None, number: int) -> None:
    """Note the time, if this is profiled. The cycle counter would be nearer, but not every CPU lets it be read."""
    if stamps:
        place = address(b, stamps, i64(2 * number), I64)
        intrinsic(b, "clock_gettime", I32, [ir.Constant(I32, CLOCK_MONOTONIC), place])


def find_updated(graph: Graph) -> dict[Place, Place]:
    """The outputs that may have an input's address, and that input."""
    return {
        Place("output", graph.output_names.index(name)): Place("input", graph.inputs.index(state))
        for name, state in graph.updates.items()
    }


def has_image_sizes(graph: Graph) -> bool:
    """Whether the sizes of this network are among N, H and W, so that NAME_run and its like exist."""
    return bool(graph.inputs) and set(graph.symbols) <= {"N", "H", "W"}


def fixed_sizes(graph: Graph) -> dict[str, DimLike]:
    """What N, H and W must be where they are no symbols: the first input's dim, or 1 if it has none there."""
    shape = graph.inputs[0].type.shape
    at = {"N": 0, "H": 2, "W": 3}
    return {s: shape[i] if i < len(shape) else 1 for s, i in at.items() if s not in graph.symbols}


def _word(b: ir.IRBuilder, base: ir.Value, index: int, type: ir.Type) -> ir.Value:
    return b.load(address(b, base, i64(index), I64), typ=type, align=8)


def _array(b: ir.IRBuilder, values: Sequence[ir.Value]) -> ir.Value:
    """The values side by side on the stack, 8 bytes each (at least one word, so that the address exists)."""
    array = b.alloca(I64, max(1, len(values)))
    for i, value in enumerate(values):
        b.store(value, address(b, array, i64(i), I64))
    return address(b, array, i64(0), I64)


def join_ir(*texts: str) -> str:
    """Texts of LLVM IR as one: what one defines, another may declare; each declaration stands once."""
    whole = "\n".join(texts)
    defined = set(re.findall(r'^define [^@]*@"?([\w.$]+)"?\(', whole, re.MULTILINE))
    lines: list[str] = []
    for line in whole.splitlines():
        declared = re.match(r'declare [^@]*@"?([\w.$]+)"?\(', line)
        if declared and declared[1] in defined:
            continue
        if declared:
            defined.add(declared[1])
        lines.append(line)
    return "\n".join(lines)
