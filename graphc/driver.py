"""From graph to running code: the one module that sees every part of the compiler."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache as cached
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, overload

import llvmlite
import llvmlite.binding as llvm

from graphc.codegen.layout import Layout
from graphc.codegen.module import NetworkModule
from graphc.codegen.plan import Plan, make_plan
from graphc.codegen.target import Target, base_machine, check_runs_here, limit_cpu, make_target, make_targets
from graphc.errors import InputError, ValueDependentError
from graphc.geometry import describe_geometry
from graphc.ir import Array, Graph, Value
from graphc.passes import optimize
from graphc.runtime import cache
from graphc.runtime.jit import JitCode, make_network
from graphc.runtime.network import Network, check_threads
from graphc.runtime.specializing import SpecializingNetwork
from graphc.settings import dump_folder

if TYPE_CHECKING:
    from onnx import ModelProto

SYMBOL = "net"  # what the functions of a network in this process are called
Plans = Sequence[tuple[Plan, Target]]  # of one graph, for each CPU level


@dataclass
class Lowered:
    """A network as LLVM IR, with what it was made from."""

    symbol: str
    plans: Plans
    module: llvm.ModuleRef
    machine: llvm.TargetMachine

    @property
    def plan(self) -> Plan:
        """The plan for the first target. All have the same graph and the same weights at the same places."""
        return self.plans[0][0]

    def object_code(self) -> bytes:
        """The object file; emission leaves the module as it is."""
        return bytes(self.machine.emit_object(self.module.clone()))


@overload
def compile(
    graph: Graph, threads: int | None = None, cpu: str = "native", optimized: bool = True, precise: bool = False
) -> Network: ...


@overload
def compile(
    graph: "str | os.PathLike[str] | ModelProto",
    threads: int | None = None,
    cpu: str = "native",
    optimized: bool = True,
    precise: bool = False,
) -> Network | SpecializingNetwork: ...


def compile(
    graph: "Graph | str | os.PathLike[str] | ModelProto",
    threads: int | None = None,
    cpu: str = "native",
    optimized: bool = True,
    precise: bool = False,
) -> Network | SpecializingNetwork:
    """Compile a graph, or an ONNX model or the file of one, to machine code in this process.

    A model whose shapes depend on the values of inputs is compiled when it is called, for these values, and kept.

    `threads` counts the calling thread; None takes GRAPHC_NUM_THREADS or every CPU that this process may use. `cpu` is
    "native" or a level such as "x86-64-v3"; GRAPHC_CPU lowers it. Without `optimized`, the graph is compiled node by
    node as it stands.

    The machine code is kept in the user's cache folder (GRAPHC_CACHE) and loaded from there when it is wanted again.

    A convolution stays within 5e-6 of its largest output against float64. With `precise`, which gives up Winograd's
    minimal filtering for 3x3 at stride 1, the bound is 1e-6.
    """
    check_runs_here(limit_cpu(cpu))
    count = check_threads(threads)
    if not isinstance(graph, Graph):
        return _compile_model(graph, threads, cpu, optimized, precise)
    final, target = optimize(graph) if optimized else graph, make_target(limit_cpu(cpu))
    plan = make_plan(final, target, precise=precise)
    code = JitCode(_find_code([(plan, target)], describe(graph)))
    return make_network(code, SYMBOL, plan.weight_block(), count, (compile, (graph, threads, cpu, optimized, precise)))


def _find_code(plans: Plans, metadata: str) -> bytes:
    """The object file of a network of this process: as it was kept (GRAPHC_CACHE), or new, and then kept."""
    if dump_folder():
        return emit_module(plans, SYMBOL, metadata).object_code()
    key = code_key(plans, SYMBOL, metadata)
    code = cache.load(key)
    if code is None:
        code = emit_module(plans, SYMBOL, metadata).object_code()
        cache.store(key, code)
    return code


def _compile_model(
    source: "str | os.PathLike[str] | ModelProto", threads: int | None, cpu: str, optimized: bool, precise: bool
) -> Network | SpecializingNetwork:
    from onnx import ModelProto

    from graphc.onnx.importing import from_model, read_inputs, read_model

    if isinstance(source, ModelProto):
        model, label, name, folder = source, source.graph.name or "model", None, None
    elif isinstance(source, os.PathLike) or (isinstance(source, str) and source.endswith(".onnx")):
        file = Path(source)
        model, label, name, folder = read_model(file), file.name, file.stem, file.parent
    else:
        got = repr(source) if isinstance(source, str) else type(source).__name__
        raise InputError(f"compile: expected a graph or an ONNX model, got {got}")

    def specialize(values: Mapping[str, Array]) -> Network:
        return compile(from_model(model, name, folder, values), threads, cpu, optimized, precise)

    try:
        return specialize({})
    except ValueDependentError as error:
        recipe = _compile_model, (source, threads, cpu, optimized, precise)
        return SpecializingNetwork(name or label, read_inputs(model), error.inputs, specialize, recipe)


def lower(
    graph: Graph,
    symbol: str,
    cpu: str,
    optimized: bool = True,
    artefact: bool = False,
    embed: bool = False,
    layouts: Mapping[Value, Layout] | None = None,
    precise: bool = False,
    profile: bool = False,
) -> Lowered:
    """The network's LLVM module, optimised; its functions are called `symbol_*`.

    `cpu` may be several levels with commas between; the code for the best that the CPU has then runs. GRAPHC_CPU lowers
    what it says, but not for an artefact, which reads it itself.

    An `artefact` carries the hash of its weights, and with `embed` a reference to them as a data section. `layouts`
    says how values of `graph` lie in memory, where not dense. With `profile`, every step of a run notes its time.
    """
    targets, final = make_targets(cpu if artefact else limit_cpu(cpu)), optimize(graph) if optimized else graph
    plans = [(make_plan(final, target, layouts, precise), target) for target in targets]
    header = weights_header(plans[0][0]) if artefact else b""
    return emit_module(plans, symbol, describe(graph), header, embed, profile)


def emit_module(
    plans: Plans, symbol: str, metadata: str, header: bytes = b"", embed: bool = False, profile: bool = False
) -> Lowered:
    """The optimised LLVM module of a network's plans."""
    triple = plans[0][1].triple
    built = NetworkModule(plans, symbol, metadata, header, embed, profile)
    cpuid = "cpuid_x86_64.ll" if triple.startswith("x86_64") else "cpuid_other.ll"
    llvm.initialize_native_asmparser()  # the texts hold instructions that LLVM IR has no words for
    module = llvm.parse_assembly(built.text(*map(_runtime_text, ("pool.ll", "levels.ll", cpuid, "api.ll"))))
    module.verify()
    machine = base_machine(triple)
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = tuning.slp_vectorization = False  # the kernels are vector code already
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    lowered = Lowered(symbol, plans, module, machine)
    if folder := dump_folder():
        dump_code(lowered, folder)
    return lowered


def dump_code(lowered: Lowered, folder: Path) -> None:
    """Write the plan, each kernel's optimised LLVM IR and the whole assembly into `folder` (GRAPHC_DUMP)."""
    plans = (f"{target.cpu}:\n{describe_plan(plan)}" for plan, target in lowered.plans)
    (folder / "plan.txt").write_text("\n".join(plans))
    for function in lowered.module.functions:
        if function.name.startswith("graphc_") and not function.is_declaration:
            (folder / f"{function.name}.ll").write_text(str(function))
    (folder / "module.s").write_text(lowered.machine.emit_assembly(lowered.module.clone()))  # emission changes it


def describe_plan(plan: Plan) -> str:
    """One line for each step: kernel, node, operands with their places, tasks, and why this kernel."""
    lines = []
    for i, step in enumerate(plan.steps):
        kernel = step.kernel
        places = (plan.places[b.memory] for b in kernel.buffers)
        operands = ", ".join(f"{b.name}@{p.kind} {p.index}" for b, p in zip(kernel.buffers, places, strict=True))
        lines.append(f"{i:4} {kernel.name:24} {step.node.name}: {operands}; tasks {kernel.tasks}; {kernel.reason}")
    return "\n".join(lines) + "\n"


def code_key(plans: Plans, symbol: str, metadata: str) -> bytes:
    """The SHA-256 of everything that the code of these plans depends on: of the weights, where they lie, not what."""
    digest = hashlib.sha256()

    def add(*parts: object) -> None:
        for part in parts:
            digest.update(f"{part}\n".encode())

    add(source_hash(), llvmlite.__version__, llvm.llvm_version_info, symbol, metadata)
    for plan, target in plans:
        add(target.cpu, target.features, target.triple, target.lanes, target.registers, target.level)
        add(sorted(target.needs), plan.graph, plan.places, plan.slots, plan.weight_bytes, plan.packed_bytes)
        for k in (step.kernel for step in (*plan.setup, *plan.steps)):
            add(k.key, k.buffers, k.sizes, k.scratch, k.tasks, k.work)
    return digest.digest()


@cached
def source_hash() -> str:
    """The hash of graphc's own files from which code is made: another version of them makes other code."""
    digest, root = hashlib.sha256(), Path(__file__).parent
    for pattern in ("driver.py", "codegen/**/*.py", "ir/*.py", "ops/*.py", "runtime/*.ll"):
        for file in sorted(root.glob(pattern)):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def describe(graph: Graph) -> str:
    """What a compiled network says of itself, as JSON."""
    return json.dumps(
        {
            "name": graph.name,
            "inputs": [(v.name, str(v.type)) for v in graph.inputs],
            "outputs": [(name, str(v.type)) for name, v in zip(graph.output_names, graph.outputs, strict=True)],
            "symbols": graph.symbols,
            "meta": dict(describe_geometry(graph).meta),
        }
    )


def weights_header(plan: Plan) -> bytes:
    """The first 64 bytes of a weights file: a mark, and the hash of the weights that follow."""
    digest = hashlib.sha256()
    for chunk in plan.weight_chunks():
        digest.update(chunk)
    return b"graphc weights 1\n".ljust(32, b"\0") + digest.digest()


def _runtime_text(name: str) -> str:
    return resources.files("graphc.runtime").joinpath(name).read_text()
