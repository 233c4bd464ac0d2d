"""From graph to running code: the one module that sees every part of the compiler."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from graphc.codegen.layout import Layout
from graphc.codegen.plan import Plan, make_plan
from graphc.codegen.target import Target, check_runs_here, limit_cpu, make_targets
from graphc.emission import SYMBOL, Lowered, emit_module, find_code, source_hash, stamped_network, step_seconds
from graphc.errors import InputError, ValueDependentError
from graphc.geometry import describe_geometry
from graphc.halos import find_rule
from graphc.ir import Array, Graph, Value
from graphc.passes import optimize
from graphc.reference import random_inputs
from graphc.runtime.host import find_target
from graphc.runtime.jit import JitCode, make_network
from graphc.runtime.lending import LentWeights
from graphc.runtime.network import Network, check_threads
from graphc.runtime.specializing import SpecializingNetwork
from graphc.runtime.tiling import META_KEY, refuse
from graphc.strips import find_carry, make_strip_rule
from graphc.tuning import choose_sizes, tune_plan

if TYPE_CHECKING:
    from onnx import ModelProto

TRIALS = 10  # of each candidate: the least time of so many is within some 2 % of the least of a hundred
Layouts = Mapping[Value, Layout] | None


@overload
def compile(
    graph: Graph,
    threads: int | None = None,
    cpu: str = "native",
    optimized: bool = True,
    precise: bool = False,
    tune: bool | Mapping[str, int] = False,
) -> Network: ...


@overload
def compile(
    graph: "str | os.PathLike[str] | ModelProto",
    threads: int | None = None,
    cpu: str = "native",
    optimized: bool = True,
    precise: bool = False,
    tune: bool | Mapping[str, int] = False,
) -> Network | SpecializingNetwork: ...


def compile(
    graph: "Graph | str | os.PathLike[str] | ModelProto",
    threads: int | None = None,
    cpu: str = "native",
    optimized: bool = True,
    precise: bool = False,
    tune: bool | Mapping[str, int] = False,
) -> Network | SpecializingNetwork:
    """Compile a graph, or an ONNX model or the file of one, to machine code in this process.

    A model whose shapes depend on the values of inputs is compiled when it is called, for these values, and kept.

    `threads` counts the calling thread; None takes GRAPHC_NUM_THREADS or every CPU that this process may use. `cpu` is
    "native" or a level such as "x86-64-v3"; GRAPHC_CPU lowers it. Without `optimized`, the graph is compiled node by
    node as it stands.

    The machine code is kept in the user's cache folder (GRAPHC_CACHE) and loaded from there when it is wanted again.

    A convolution stays within 5e-6 of its largest output against float64. With `precise`, which gives up Winograd's
    minimal filtering for 3x3 at stride 1, the bound is 1e-6.

    With `tune`, each convolution takes the kernel that was fastest of all candidates, measured on this machine at the
    sizes that `tune` says, such as {"H": 480, "W": 640} (by default one image of 224x224), and kept for the next time.
    """
    check_runs_here(limit_cpu(cpu))
    count = check_threads(threads)
    if not isinstance(graph, Graph):
        return _compile_model(graph, threads, cpu, optimized, precise, tune)
    final, target = optimize(graph) if optimized else graph, find_target(limit_cpu(cpu))
    plan = plan_network(final, target, count, precise, tune)
    code = JitCode(*find_code([(plan, target)], describe(graph, final, precise)))
    recipe = compile, (graph, threads, cpu, optimized, precise, tune)
    return make_network(code, SYMBOL, LentWeights(plan), count, recipe)


def plan_network(
    graph: Graph, target: Target, threads: int, precise: bool, tune: bool | Mapping[str, int], layouts: Layouts = None
) -> Plan:
    """The plan by the analytic model, or by measurements on so many threads."""
    if tune is False:
        return make_plan(graph, target, layouts, precise, carry=find_carry(graph, not precise))

    def measure(plans: Sequence[Plan], sizes: Mapping[str, int]) -> Sequence[NDArray[np.float64]]:
        """The least seconds of every step of every plan.

        They run in turn, twice each: the first run brings weights into the caches, from where the others drove them.
        """
        weights, inputs = plans[0].weight_block(), random_inputs(graph, sizes)
        lowered = [emit_module([(plan, target)], SYMBOL, describe(graph, graph), profile=True) for plan in plans]
        networks = [stamped_network(one, weights, threads) for one in lowered]
        best = [np.full(len(plan.steps), np.inf) for plan in plans]
        for _ in range(TRIALS):
            for i, (network, stamps) in enumerate(networks):
                network(*inputs)
                network(*inputs)
                best[i] = np.minimum(best[i], step_seconds(stamps))
        return best

    return tune_plan(graph, target, precise, choose_sizes(graph, tune), f"{source_hash()} {threads}", measure)


def _compile_model(
    source: "str | os.PathLike[str] | ModelProto",
    threads: int | None,
    cpu: str,
    optimized: bool,
    precise: bool,
    tune: bool | Mapping[str, int],
) -> Network | SpecializingNetwork:
    from onnx import ModelProto

    from graphc.onnx.importing import from_model, read_inputs, read_model

    if isinstance(source, ModelProto):
        model, label, name, folder, lifted = source, source.graph.name or "model", None, None, None
    elif isinstance(source, os.PathLike) or (isinstance(source, str) and source.endswith(".onnx")):
        file = Path(source)
        (model, lifted), label, name, folder = read_model(file), file.name, file.stem, file.parent
    else:
        got = repr(source) if isinstance(source, str) else type(source).__name__
        raise InputError(f"compile: expected a graph or an ONNX model, got {got}")

    def specialize(values: Mapping[str, Array]) -> Network:
        return compile(from_model(model, name, folder, values, lifted), threads, cpu, optimized, precise, tune)

    try:
        return specialize({})
    except ValueDependentError as error:
        recipe = _compile_model, (source, threads, cpu, optimized, precise, tune)
        return SpecializingNetwork(name or label, read_inputs(model), error.inputs, specialize, recipe)


def lower(
    graph: Graph,
    symbol: str,
    cpu: str,
    optimized: bool = True,
    artefact: bool = False,
    embed: bool = False,
    layouts: Layouts = None,
    precise: bool = False,
    profile: bool = False,
    tune: bool | Mapping[str, int] = False,
) -> Lowered:
    """The network's LLVM module, optimised; its functions are called `symbol_*`.

    `cpu` may be several levels with commas between; the code for the best that the CPU has then runs. GRAPHC_CPU lowers
    what it says, but not for an artefact, which reads it itself.

    An `artefact` carries the hash of its weights, and with `embed` a reference to them as a data section. `layouts`
    says how values of `graph` lie in memory, where not dense. With `profile`, every step of a run notes its time.
    `tune` is as in `compile`, for targets that run here.
    """
    targets, final = make_targets(cpu if artefact else limit_cpu(cpu)), optimize(graph) if optimized else graph
    plans = [(plan_network(final, t, check_threads(None), precise, tune, layouts), t) for t in targets]
    header = weights_header(plans[0][0]) if artefact else b""
    return emit_module(plans, symbol, describe(graph, final, precise), header, embed, profile)


def describe(graph: Graph, final: Graph, precise: bool = False) -> str:
    """What a compiled network says of itself, as JSON; `final` is the graph that its code was made from."""
    rule, carry = find_rule(final, not precise), find_carry(final, not precise)
    if isinstance(rule, str):
        tiling = refuse(rule)
    else:
        tiling = replace(rule, strips=make_strip_rule(final, carry) if carry else None).to_json()
    return json.dumps(
        {
            "name": graph.name,
            "inputs": [(v.name, str(v.type)) for v in graph.inputs],
            "outputs": [(name, str(v.type)) for name, v in zip(graph.output_names, graph.outputs, strict=True)],
            "symbols": graph.symbols,
            "meta": {**describe_geometry(graph).meta, META_KEY: tiling},
        }
    )


def weights_header(plan: Plan) -> bytes:
    """The first 64 bytes of a weights file: a mark, and the hash of the weights that follow."""
    digest = hashlib.sha256()
    for chunk in plan.weight_chunks():
        digest.update(chunk)
    return b"graphc weights 1\n".ljust(32, b"\0") + digest.digest()
