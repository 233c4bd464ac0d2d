"""One LLVM module for one network: its code for each CPU level, and the C entry points.

The module joins texts that are the same for every network, the thread pool, the choice of the level, the buffers of a
run and the C interface (runtime/pool.ll, levels.ll, buffers.ll, api.ll, calls.ll, whose heads tell what this file
defines), with what it generates.
"""

import re
from collections.abc import Sequence

from llvmlite import ir

from graphc.codegen.blocks import I8, I32, I64, PTR, address, i64
from graphc.codegen.constants import constant, string
from graphc.codegen.level import FRAME_INPUTS, LevelCode, find_updated
from graphc.codegen.plan import Plan
from graphc.codegen.shapes import ShapeCode
from graphc.codegen.target import Target
from graphc.ir import DimLike, Graph
from graphc.ir.verify import requirements

ERROR_FIXED_SIZE = 9  # the code of runtime/api.ll
ERROR_CPU = (
    "the CPU lacks instructions that the network was compiled for, or GRAPHC_CPU forbids them"  # and then what that is
)
WEIGHTS_LABEL = "graphc_weights_data"


class NetworkModule:
    """Builds the module of a network's plans, one for each target. `text(...)` is the whole, ready to be parsed.

    With `profile`, for one target, `NAME_stamps()` is where a run notes the time of every step.
    """

    def __init__(
        self,
        plans: Sequence[tuple[Plan, Target]],
        name: str,
        metadata: str,
        header: bytes,
        embed: bool,
        profile: bool = False,
    ) -> None:
        (plan, _), *_ = plans
        self.graph, self._weight_bytes, self.name = plan.graph, plan.weight_bytes, name
        self.targets = [target for _, target in plans]
        self.module = ir.Module(name)
        self.module.triple = self.targets[0].triple
        self._define_constants(metadata, header, embed)
        stamps = f"{name}_stamps" if profile else None
        suffixes = [f"_{target.label}" if len(plans) > 1 else "" for target in self.targets]
        levels = [
            LevelCode(self.module, plan, target, i, suffixes[i], stamps) for i, (plan, target) in enumerate(plans)
        ]
        self.nests = set[str]().union(*(level.nests for level in levels))  # functions that loop nests became
        self._kernels = [text for level in levels for text in level.texts]
        records = [level.record for level in levels]
        constant(self.module, "graphc_levels", ir.Constant(ir.ArrayType(records[0].type, len(records)), records))
        constant(self.module, "graphc_level_count", i64(len(records)))
        self._emit_c_functions()

    def text(self, *runtime: str) -> str:
        """The module as LLVM IR, with the texts of runtime/."""
        texts = (text.replace("NAME", self.name) for text in runtime)
        return spell_types(join_ir(f"{self.module}\n{self._groups}", *self._kernels, *texts))

    def parts(self, *runtime: str) -> list[str]:
        """The same as several modules that refer to each other: the rest, then each kernel."""
        texts = (text.replace("NAME", self.name) for text in runtime)
        own = f"{self.module}\n{self._groups}".replace("\ndeclare internal ", "\ndeclare ")
        head = f'target triple = "{self.module.triple}"\n{self._groups}'
        declared = {name: str(value) for name, value in self.module.globals.items() if _is_declaration(value)}
        parts = [spell_types(join_ir(own, *texts))]
        for kernel in self._kernels:
            _, *used = dict.fromkeys(re.findall(r'@"?([\w.$]+)"?', kernel))  # the first one is its own name
            parts.append(
                "".join([head, *(declared[n] for n in used), kernel.replace("define internal ", "define ", 1)])
            )
        return parts

    @property
    def _groups(self) -> str:
        return "".join(f"attributes #{i} = {{ {target.attributes} }}\n" for i, target in enumerate(self.targets))

    def _function(self, name: str, result: ir.Type, args: Sequence[ir.Type]) -> ir.Function:
        """A function of the C interface, for every CPU."""
        function = ir.Function(self.module, ir.FunctionType(result, list(args)), name)
        function.attributes.add("nounwind")
        return function

    # -- constants ----------------------------------------------------------------------------------------------------

    def _define_constants(self, metadata: str, header: bytes, embed: bool) -> None:
        graph = self.graph
        inputs, outputs = len(graph.inputs), len(graph.outputs)
        counts = {"symbols": len(graph.symbols), "inputs": inputs, "outputs": outputs,
                  "frame_words": FRAME_INPUTS + inputs + outputs, "weight_bytes": self._weight_bytes}  # fmt: skip
        for key, value in counts.items():
            constant(self.module, f"graphc_{key}", ir.Constant(I64, value))
        string(self.module, "graphc_metadata", metadata)
        levels = ", ".join(t.cpu for t in self.targets)
        string(self.module, "graphc_e10", f"{ERROR_CPU}: {levels}")
        constant(
            self.module, "graphc_weights_header", ir.Constant(ir.ArrayType(I8, 64), bytearray(header.ljust(64, b"\0")))
        )
        messages = [string(self.module, f"graphc_r{i}", r.message) for i, r in enumerate(requirements(graph))]
        constant(self.module, "graphc_messages", ir.Constant(ir.ArrayType(PTR, len(messages)), messages))
        constant(self.module, "graphc_message_count", ir.Constant(I32, len(messages)))
        masks = [ir.Constant(I64, v.type.dtype.size - 1) for v in (*graph.inputs, *graph.outputs)]
        constant(self.module, "graphc_alignments", ir.Constant(ir.ArrayType(I64, len(masks)), masks))
        updated = {o.index: i.index for o, i in find_updated(graph).items()}
        updates = [i64(updated.get(i, -1)) for i in range(outputs + 2)]  # then the workspace, what is carried
        constant(self.module, "graphc_updates", ir.Constant(ir.ArrayType(I64, len(updates)), updates))
        weights: ir.Value = ir.Constant(PTR, None)
        if embed and self._weight_bytes:
            weights = ir.GlobalVariable(self.module, I8, WEIGHTS_LABEL)
            weights.global_constant = True
            weights.storage_class = ""
        constant(self.module, "graphc_weights", weights)

    # -- C ------------------------------------------------------------------------------------------------------------

    def _emit_c_functions(self) -> None:
        """NAME_run, _run_in, _output_shape and _workspace_bytes, for networks whose sizes are N, H and W."""
        graph = self.graph
        if not has_image_sizes(graph):
            return
        ins, outs = [PTR] * len(graph.inputs), [PTR] * len(graph.outputs)
        call = ir.Function(self.module, ir.FunctionType(I32, [PTR, PTR, PTR, PTR, PTR, I64]), f"{self.name}_call")
        for suffix, extra in (("run", []), ("run_in", [PTR, I64])):
            function = self._function(f"{self.name}_{suffix}", I32, [PTR, *ins, I64, I64, I64, *outs, *extra])
            net, *rest = function.args
            inputs, sizes = rest[: len(ins)], rest[len(ins) : len(ins) + 3]
            outputs = rest[len(ins) + 3 : len(ins) + 3 + len(outs)]
            workspace = rest[len(ins) + 3 + len(outs) :] or [ir.Constant(PTR, None), i64(0)]
            b = ir.IRBuilder(function.append_basic_block("entry"))
            packed = self._check_and_pack(b, sizes, ir.Constant(I32, ERROR_FIXED_SIZE))
            b.ret(b.call(call, [net, _array(b, inputs), packed, _array(b, outputs), *workspace]))
        self._emit_output_shape()
        function = self._function(f"{self.name}_workspace_bytes", I64, [I64, I64, I64, I32])
        b = ir.IRBuilder(function.append_basic_block("entry"))
        packed = self._check_and_pack(b, function.args[:3], i64(-ERROR_FIXED_SIZE))
        with b.if_then(b.icmp_signed("<", function.args[3], ir.Constant(I32, 0)), likely=False):
            b.ret(i64(-1))
        query = ir.Function(self.module, ir.FunctionType(I64, [PTR]), f"{self.name}_workspace")
        b.ret(b.call(query, [packed]))

    def _emit_output_shape(self) -> None:
        """`int NAME_output_shape(n, h, w, int64_t out[4])`: of the first output; dims beyond its rank are 1."""
        rank = self.graph.outputs[0].type.rank
        if rank > 4:
            return
        function = self._function(f"{self.name}_output_shape", I32, [I64, I64, I64, PTR])
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
        graph = self.graph
        given = dict(zip("NHW", sizes, strict=True))
        code = ShapeCode(b, {s: given[s] for s in graph.symbols})
        for size, fixed in fixed_sizes(graph).items():
            with b.if_then(b.icmp_signed("!=", given[size], code.emit(fixed)), likely=False):
                b.ret(error)
        return _array(b, [given[s] for s in graph.symbols])


def has_image_sizes(graph: Graph) -> bool:
    """Whether the sizes of this network are among N, H and W, so that NAME_run and its like exist."""
    return bool(graph.inputs) and set(graph.symbols) <= {"N", "H", "W"}


def fixed_sizes(graph: Graph) -> dict[str, DimLike]:
    """What N, H and W must be where they are no symbols: the first input's dim, or 1 if it has none there."""
    shape = graph.inputs[0].type.shape
    at = {"N": 0, "H": 2, "W": 3}
    return {s: shape[i] if i < len(shape) else 1 for s, i in at.items() if s not in graph.symbols}


def _is_declaration(value: ir.GlobalValue) -> bool:
    return isinstance(value, ir.Function) and not value.blocks


def _array(b: ir.IRBuilder, values: Sequence[ir.Value]) -> ir.Value:
    """The values side by side on the stack, 8 bytes each (at least one word, so that the address exists)."""
    array = b.alloca(I64, max(1, len(values)))
    for i, value in enumerate(values):
        b.store(value, address(b, array, i64(i), I64))
    return address(b, array, i64(0), I64)


def spell_types(text: str) -> str:
    """The text with what its named types of one line stand for.

    LLVM numbers a name that another module of the process has, so that texts would differ.
    """
    definition = re.compile(r"^(%[\w.]+) = type (\{.*\})\n", re.MULTILINE)
    types = dict(definition.findall(text))
    text = definition.sub("", text)
    for name, meaning in types.items():
        text = re.sub(rf"{re.escape(name)}(?![\w.])", lambda _, meaning=meaning: meaning, text)  # type: ignore[misc]
    return text


def join_ir(*texts: str) -> str:
    """Texts of LLVM IR as one: what one defines, another may declare; each declaration stands once."""
    whole = "\n".join(texts)
    known = set(re.findall(r'^define [^@]*@"?([\w.$]+)"?\(', whole, re.MULTILINE))

    def keep_first(declaration: re.Match[str]) -> str:
        name = declaration[1]
        if name in known:
            return ""
        known.add(name)
        return declaration[0]

    return re.sub(r'^declare [^@\n]*@"?([\w.$]+)"?\(.*\n', keep_first, whole, flags=re.MULTILINE)
