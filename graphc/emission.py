"""From the plans of a network to machine code: LLVM's module, its optimisation, the object file, the cache."""

import ctypes
import gc
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache as cached
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from graphc.codegen.compiling import HelperError, Helpers, compile_part, optimize_text
from graphc.codegen.module import NetworkModule
from graphc.codegen.plan import Plan
from graphc.codegen.target import Target, base_machine
from graphc.errors import GraphcError
from graphc.runtime import cache
from graphc.runtime.host import llvm_build
from graphc.runtime.jit import JitCode, make_network
from graphc.runtime.network import Network
from graphc.settings import dump_folder, num_compilers

if TYPE_CHECKING:
    import llvmlite.binding as llvm

SYMBOL = "net"  # what the functions of a network in this process are called
MANY_KERNELS = 10  # functions, from which on to start processes that compile them pays
MUCH_TEXT = 2 << 20  # bytes of LLVM IR: LeNet-5 has 9 MB, a layer 0.5; to look for garbage takes up to 0.2 s each time
Plans = Sequence[tuple[Plan, Target]]  # of one graph, for each CPU level


@dataclass
class Lowered:
    """A network as LLVM IR, with what it was made from."""

    symbol: str
    plans: Plans
    module: "llvm.ModuleRef"
    machine: "llvm.TargetMachine"

    @property
    def plan(self) -> Plan:
        """The plan for the first target. All have the same graph and the same weights at the same places."""
        return self.plans[0][0]

    def object_code(self) -> bytes:
        """The object file; emission leaves the module as it is."""
        return bytes(self.machine.emit_object(self.module.clone()))


def emit_module(
    plans: Plans, symbol: str, metadata: str, header: bytes = b"", embed: bool = False, profile: bool = False
) -> Lowered:
    """The optimised LLVM module of a network's plans; an artefact's has a header, that of its weights."""
    built = _build_module(plans, symbol, metadata, header, embed, profile)
    machine = base_machine(plans[0][1].triple)
    module = optimize_text(built.text(*_runtime_texts(plans, header)), machine, built.nests)
    lowered = Lowered(symbol, plans, module, machine)
    if folder := dump_folder():
        dump_code(lowered, folder)
    return lowered


def emit_objects(plans: Plans, symbol: str, metadata: str) -> list[bytes]:
    """The same code as object files, each of some functions.

    Those of a large network are compiled in processes of their own. LLVM has one in memory at a time, and nothing else
    is there then but texts: all at once took 30 MB more.
    """
    with _start_helpers(plans) as helpers:
        built = _build_module(plans, symbol, metadata)
        nests, parts = built.nests, built.parts(*_runtime_texts(plans))
        parts.reverse()  # the kernels first, which the rest calls
        del built
        much = sum(map(len, parts)) > MUCH_TEXT
        if much:
            _return_memory()
        if helpers:
            with suppress(HelperError):  # if something is wrong with the code, it is told below
                return helpers.compile(parts, nests)
    machine, objects = base_machine(plans[0][1].triple), []
    while parts:
        objects.append(compile_part(parts.pop(0), machine, nests))
    if much:
        _return_memory()
    return objects


def _start_helpers(plans: Plans) -> AbstractContextManager[Helpers | None]:
    """Processes that will compile these plans; None if this one shall."""
    kernels = sum(len({step.kernel.key for step in (*plan.setup, *plan.steps)}) for plan, _ in plans)
    count = num_compilers()
    if count == 0 or kernels < MANY_KERNELS:
        return nullcontext()
    try:
        return closing(Helpers(plans[0][1].triple, count))
    except HelperError:
        return nullcontext()


def _build_module(
    plans: Plans, symbol: str, metadata: str, header: bytes = b"", embed: bool = False, profile: bool = False
) -> NetworkModule:
    with _without_collecting():
        return NetworkModule(plans, symbol, metadata, header, embed, profile)


def _runtime_texts(plans: Plans, header: bytes = b"") -> Iterator[str]:
    cpuid = "cpuid_x86_64.ll" if plans[0][1].triple.startswith("x86_64") else "cpuid_other.ll"
    own = () if header else ("in_process.ll",)
    for name in ("pool.ll", "levels.ll", cpuid, "buffers.ll", "api.ll", "calls.ll", *own):
        yield resources.files("graphc.runtime").joinpath(name).read_text()


@contextmanager
def _without_collecting() -> Iterator[None]:
    """No garbage is looked for meanwhile, which took a third of the time that building a module takes."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


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


def find_code(plans: Plans, metadata: str) -> list[bytes]:
    """The object files of a network of this process: as they were kept (GRAPHC_CACHE), or new, and then kept."""
    if dump_folder():
        return [emit_module(plans, SYMBOL, metadata).object_code()]
    key = code_key(plans, SYMBOL, metadata)
    kept = cache.load(key)
    if kept is not None:
        return _split(kept)
    code = emit_objects(plans, SYMBOL, metadata)
    cache.store(key, _join(code))
    return code


def _join(objects: Sequence[bytes]) -> bytes:
    """How many there are, how long each is (8 bytes each), then all of them."""
    return np.array([len(objects), *map(len, objects)], "<i8").tobytes() + b"".join(objects)


def _split(joined: bytes) -> list[bytes]:
    count = int(np.frombuffer(joined, "<i8", 1)[0])
    ends = np.cumsum(np.frombuffer(joined, "<i8", count, 8)) + 8 * (count + 1)
    return [joined[start:end] for start, end in pairwise([8 * (count + 1), *map(int, ends)])]


def _return_memory() -> None:
    """Give the system back what building or compiling a module needed, some 30 MB, before the next step needs more."""
    gc.collect()  # llvmlite's objects refer to each other in circles
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim:
        trim(0)


def code_key(plans: Plans, symbol: str, metadata: str) -> bytes:
    """The SHA-256 of everything that the code of these plans depends on: of the weights, where they lie, not what."""
    digest = hashlib.sha256()

    def add(*parts: object) -> None:
        for part in parts:
            digest.update(f"{part}\n".encode())

    add(source_hash(), llvm_build(), symbol, metadata)
    for plan, target in plans:
        add(target.cpu, target.features, target.triple, target.lanes, target.registers, target.level)
        add(sorted(target.needs), plan.graph, plan.places, plan.slots, plan.carried, plan.carry)
        add(plan.weight_bytes, plan.packed_bytes)
        for k in (step.kernel for step in (*plan.setup, *plan.steps)):
            add(k.key, k.buffers, k.sizes, k.scratch, k.tasks, k.work)
    return digest.digest()


@cached
def source_hash() -> str:
    """The hash of graphc's own files from which code is made: another version of them makes other code."""
    digest, root = hashlib.sha256(), Path(__file__).parent
    for pattern in ("emission.py", "codegen/**/*.py", "ir/*.py", "ops/*.py", "runtime/*.ll"):
        for file in sorted(root.glob(pattern)):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def stamped_network(lowered: Lowered, weights: NDArray[np.uint8], threads: int) -> tuple[Network, NDArray[np.int64]]:
    """The network of a module that was made with `profile`, and its stamps i64[steps + 1, 2]: seconds, nanoseconds."""
    code = JitCode(lowered.object_code())
    network = make_network(code, lowered.symbol, weights, threads, (_refuse, ()))
    words = 2 * len(lowered.plan.steps) + 2
    place = code.function(f"{lowered.symbol}_stamps", ctypes.c_void_p, ())()
    return network, np.ctypeslib.as_array((ctypes.c_int64 * words).from_address(place)).reshape(-1, 2)


def step_seconds(stamps: NDArray[np.int64]) -> NDArray[np.float64]:
    """What each step of the last run took."""
    seconds: NDArray[np.float64] = np.diff(stamps, axis=0) @ np.array([1.0, 1e-9])
    return seconds


def _refuse() -> Network:
    """What unpickling would call: stamps belong to one process."""
    raise GraphcError("a network whose steps are timed: expected in the process that made it, got another")
