"""What code generation knows of a CPU: vector width, registers, caches. No kernel holds such a number itself."""

from dataclasses import dataclass
from functools import cache

import llvmlite.binding as llvm
from llvmlite import ir

from graphc.errors import GraphcError

# x86-64 levels of the System V psABI: what each needs beyond the one before, and its float32 lanes and vector registers
_LEVELS = {
    "x86-64": ("sse2", 4, 16),
    "x86-64-v2": ("sse4.2 popcnt", 4, 16),
    "x86-64-v3": ("avx2 fma bmi2 f16c lzcnt movbe", 8, 16),
    "x86-64-v4": ("avx512f avx512bw avx512cd avx512dq avx512vl", 16, 32),
}


@dataclass(frozen=True)
class Target:
    """A CPU to compile for; `lanes` float32 fit a vector, of which it has `registers`."""

    cpu: str
    features: str
    triple: str
    lanes: int
    registers: int

    def machine(self) -> llvm.TargetMachine:
        """A new LLVM target machine; position-independent, so that its code can stand in a shared library."""
        target = llvm.Target.from_triple(self.triple)
        return target.create_target_machine(self.cpu, self.features, opt=3, reloc="pic", codemodel="default")

    def annotate(self, function: ir.Function) -> None:
        """Let LLVM use the full vector width in `function`; its default on AVX-512 is half of it."""
        function.attributes.add("nounwind")
        for key in ("prefer-vector-width", "min-legal-vector-width"):
            set.add(function.attributes, f'"{key}"="{self.lanes * 32}"')  # llvmlite's own add() knows no such key


@cache
def initialize() -> None:
    """Make LLVM's targets known, once."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@cache
def host_features() -> frozenset[str]:
    """The features of this machine's CPU under LLVM's names."""
    return frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)


def make_target(cpu: str = "native") -> Target:
    """The target for "native" (this machine's CPU) or a level such as "x86-64-v3"."""
    initialize()
    triple = llvm.get_default_triple()
    if cpu == "native":
        features = llvm.get_host_cpu_features()
        lanes, registers = _vector_shape(host_features(), triple)
        return Target(llvm.get_host_cpu_name(), features.flatten(), triple, lanes, registers)
    if cpu in _LEVELS and triple.startswith("x86_64"):
        _, lanes, registers = _LEVELS[cpu]
        return Target(cpu, "", triple, lanes, registers)
    known = ", ".join(["native", *(_LEVELS if triple.startswith("x86_64") else ())])
    raise GraphcError(f"cpu: expected one of {known}, got '{cpu}'")


def check_runs_here(cpu: str) -> None:
    """GraphcError if this machine lacks a feature that code for `cpu` uses."""
    if cpu not in _LEVELS:
        return
    needed: set[str] = set()
    for level, (features, _, _) in _LEVELS.items():
        needed |= set(features.split())
        if level == cpu:
            break
    missing = sorted(needed - host_features())
    if missing:
        lacking = ", ".join(missing)
        raise GraphcError(f"cpu '{cpu}': this machine lacks {lacking}; compile for another level or 'native'")


def host_level() -> str:
    """The highest of the known levels that this machine has, such as "x86-64-v3"; its LLVM name if it has none."""
    runs = []
    for level, (features, _, _) in _LEVELS.items():
        if not set(features.split()) <= host_features():
            break
        runs.append(level)
    return runs[-1] if runs else llvm.get_host_cpu_name()


def _vector_shape(features: frozenset[str], triple: str) -> tuple[int, int]:
    if "avx512vl" in features:
        return 16, 32
    if "avx" in features:
        return 8, 16
    return 4, 16 if triple.startswith("x86_64") else 32
