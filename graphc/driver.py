"""From graph to running code: the one module that sees every part of the compiler."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, overload

import llvmlite.binding as llvm

from graphc.codegen.layout import Layout
from graphc.codegen.module import NetworkModule
from graphc.codegen.optimizing import optimize_code
from graphc.codegen.plan import Plan, make_plan
from graphc.codegen.target import Target, check_runs_here, make_target
from graphc.errors import InputError, ValueDependentError
from graphc.geometry import describe_geometry
from graphc.ir import Array, Graph, Value
from graphc.passes import optimize
from graphc.runtime.jit import JitCode, make_network
from graphc.runtime.network import Network, check_threads
from graphc.runtime.specializing import SpecializingNetwork
from graphc.settings import dump_folder

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass
class Lowered:
    """A network as LLVM IR, with what it was made from."""

    symbol: str
    plan: Plan
    target: Target
    module: llvm.ModuleRef
    machine: llvm.TargetMachine


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
    "native" or a level such as "x86-64-v3". Without `optimized`, the graph is compiled node by node as it stands.

    A convolution stays within 5e-6 of its largest output against float64. With `precise`, which gives up Winograd's
    minimal filtering for 3x3 at stride 1, the bound is 1e-6.
    """
    check_runs_here(cpu)
    count = check_threads(threads)
    if not isinstance(graph, Graph):
        return _compile_model(graph, threads, cpu, optimized, precise)
    lowered = lower(graph, "net", cpu, optimized, precise=precise)
    code = JitCode(lowered.module, lowered.machine)
    weights = lowered.plan.weight_block()
    return make_network(code, lowered.symbol, weights, count, (compile, (graph, threads, cpu, optimized, precise)))


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

    An `artefact` carries the hash of its weights, and with `embed` a reference to them as a data section. `layouts`
    says how values of `graph` lie in memory, where not dense. With `profile`, every step of a run notes its time.
    """
    target = make_target(cpu)
    plan = make_plan(optimize(graph) if optimized else graph, target, layouts, precise)
    header = weights_header(plan) if artefact else b""
    built = NetworkModule(plan, target, symbol, describe(graph), header, embed, profile)
    module = llvm.parse_assembly(built.text(_runtime_text("pool.ll"), _runtime_text("api.ll")))
    module.verify()
    machine = target.machine()
    optimize_code(module, machine, built.nests)
    lowered = Lowered(symbol, plan, target, module, machine)
    if folder := dump_folder():
        dump_code(lowered, folder)
    return lowered


def dump_code(lowered: Lowered, folder: Path) -> None:
    """Write the plan, each kernel's optimised LLVM IR and the whole assembly into `folder` (GRAPHC_DUMP)."""
    (folder / "plan.txt").write_text(describe_plan(lowered.plan))
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
