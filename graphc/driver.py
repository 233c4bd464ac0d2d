"""From graph to running code: the one module that sees every part of the compiler."""

import hashlib
import json
from dataclasses import dataclass
from importlib import resources

import llvmlite.binding as llvm

from graphc.codegen.module import NetworkModule
from graphc.codegen.plan import Plan, make_plan
from graphc.codegen.target import Target, check_runs_here, make_target
from graphc.errors import InputError
from graphc.ir import Graph
from graphc.passes import optimize
from graphc.runtime.jit import JitCode, make_network
from graphc.runtime.network import Network
from graphc.settings import num_threads


@dataclass
class Lowered:
    """A network as LLVM IR, with what it was made from."""

    symbol: str
    plan: Plan
    target: Target
    module: llvm.ModuleRef
    machine: llvm.TargetMachine


def compile(graph: Graph, threads: int | None = None, cpu: str = "native", optimized: bool = True) -> Network:
    """Compile a graph to machine code in this process.

    `threads` counts the calling thread; None takes GRAPHC_NUM_THREADS or every CPU that this process may use. `cpu` is
    "native" or a level such as "x86-64-v3". Without `optimized`, the graph is compiled node by node as it stands.
    """
    if not isinstance(graph, Graph):
        raise InputError(f"compile: expected a graph, got {type(graph).__name__}")
    check_runs_here(cpu)
    count = check_threads(threads)
    lowered = lower(graph, "net", cpu, optimized)
    code = JitCode(lowered.module, lowered.machine)
    weights = lowered.plan.weight_block()
    return make_network(code, lowered.symbol, weights, count, (compile, (graph, threads, cpu, optimized)))


def check_threads(threads: int | None) -> int:
    """The thread count for the native code, with the setting or all CPUs in place of None."""
    if threads is None:
        return num_threads()
    if not isinstance(threads, int) or not 1 <= threads <= 1024:
        raise InputError(f"threads: expected 1 to 1024, got {threads}")
    return threads


def lower(graph: Graph, symbol: str, cpu: str, optimized: bool = True, artefact: bool = False, embed: bool = False) -> Lowered:
    """The network's LLVM module, optimised; its functions are called `symbol_*`."""
    target = make_target(cpu)
    plan = make_plan(optimize(graph) if optimized else graph, target)
    header = weights_header(plan) if artefact else b""
    built = NetworkModule(plan, target, symbol, describe(graph), header, embed)
    module = llvm.parse_assembly(built.text(_runtime_text("pool.ll"), _runtime_text("api.ll")))
    module.verify()
    machine = target.machine()
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = tuning.slp_vectorization = False  # the kernels are vector code already
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    return Lowered(symbol, plan, target, module, machine)


def describe(graph: Graph) -> str:
    """What a compiled network says of itself, as JSON."""
    return json.dumps({
        "name": graph.name,
        "inputs": [(v.name, str(v.type)) for v in graph.inputs],
        "outputs": [(name, str(v.type)) for name, v in zip(graph.output_names, graph.outputs, strict=True)],
        "symbols": graph.symbols,
        "meta": dict(graph.meta),
    })


def weights_header(plan: Plan) -> bytes:
    """The first 64 bytes of a weights file: a mark, and the hash of the weights that follow."""
    return b"graphc weights 1\n".ljust(32, b"\0") + hashlib.sha256(plan.weight_block()).digest()


def _runtime_text(name: str) -> str:
    return resources.files("graphc.runtime").joinpath(name).read_text()
