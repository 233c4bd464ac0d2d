"""What code generation knows of a CPU: vector width, registers, caches. No kernel holds such a number itself."""

from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

from graphc.codegen.cpuid import check_features, flatten_features
from graphc.errors import GraphcError
from graphc.settings import cpu_limit

if TYPE_CHECKING:
    import llvmlite.binding as llvm

# x86-64 levels of the System V psABI: what each has beyond the one before, and its float32 lanes and vector registers
_LEVELS = {
    "x86-64": ("cmov cx8 fxsr mmx sse sse2", 4, 16),
    "x86-64-v2": ("cx16 crc32 popcnt sahf sse3 sse4.1 sse4.2 ssse3", 4, 16),
    "x86-64-v3": ("avx avx2 bmi bmi2 f16c fma lzcnt movbe xsave", 8, 16),
    "x86-64-v4": ("avx512f avx512bw avx512cd avx512dq avx512vl", 16, 32),
}


@dataclass(frozen=True)
class Target:
    """A CPU to compile for; `lanes` float32 fit a vector, of which it has `registers`.

    `needs` are the features without which its code does not run; `level` says where it stands among the levels, from 1
    on, and "native" above them all.
    """

    cpu: str
    features: str
    triple: str
    lanes: int
    registers: int
    needs: frozenset[str]
    level: int

    @property
    def label(self) -> str:
        """A short name: v1 to v4, or native."""
        return f"v{self.level}" if self.level <= len(_LEVELS) else "native"

    @property
    def fused(self) -> bool:
        """Whether a multiply-add is one instruction."""
        return "fma" in self.needs or not self.triple.startswith("x86_64")

    @property
    def attributes(self) -> str:
        """LLVM's attributes of a function for this CPU, which uses the full vector width: by default it takes half."""
        width = str(self.lanes * 32)
        values = {"target-cpu": self.cpu, "target-features": self.features}
        values |= {"prefer-vector-width": width, "min-legal-vector-width": width}
        return " ".join(["nounwind", *(f'"{key}"="{value}"' for key, value in values.items() if value)])


def base_machine(triple: str) -> "llvm.TargetMachine":
    """A new LLVM target machine for code that every CPU runs: functions for others say so by `Target.attributes`.

    Its code is position-independent, so that it can stand in a shared library.
    """
    llvm = load_llvm()
    cpu = "x86-64" if triple.startswith("x86_64") else "generic"
    return llvm.Target.from_triple(triple).create_target_machine(cpu, "", opt=3, reloc="pic", codemodel="default")


@cache
def load_llvm() -> ModuleType:
    """llvmlite's binding, which knows this machine's kind of target; with all that LLVM has it took 10 MB more.

    It is imported where it is used: the library takes 50 MB, which code from the cache does without.
    """
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()  # for the instructions that LLVM IR has no words for
    module: ModuleType = llvm
    return module


@cache
def host_features() -> frozenset[str]:
    """The features of this machine's CPU under LLVM's names."""
    return frozenset(str(name) for name, present in load_llvm().get_host_cpu_features().items() if present)


def make_target(cpu: str = "native") -> Target:
    """The target for "native" (this machine's CPU) or a level such as "x86-64-v3"."""
    llvm = load_llvm()
    triple = llvm.get_default_triple()
    if cpu == "native":
        name, host = llvm.get_host_cpu_name(), llvm.get_host_cpu_features()
        features, needs = flatten_features(host) if triple.startswith("x86_64") else (host.flatten(), frozenset())
        lanes, registers = _vector_shape(host_features(), triple)
        return Target(name, features, triple, lanes, registers, needs, len(_LEVELS) + 1)
    if cpu in _LEVELS and triple.startswith("x86_64"):
        _, lanes, registers = _LEVELS[cpu]
        return Target(cpu, "", triple, lanes, registers, level_features(cpu), list(_LEVELS).index(cpu) + 1)
    known = ", ".join(["native", *(_LEVELS if triple.startswith("x86_64") else ())])
    raise GraphcError(f"cpu: expected one of {known}, got '{cpu}'")


def make_targets(cpus: str) -> list[Target]:
    """The targets for "native", a level, or several with commas between; the most demanding first, each once."""
    targets = {cpu: make_target(cpu) for cpu in cpus.split(",")}
    return sorted(targets.values(), key=lambda t: -len(t.needs))


def level_features(level: str) -> frozenset[str]:
    """All features of a level."""
    names = list(_LEVELS)[: list(_LEVELS).index(level) + 1]
    return frozenset(feature for name in names for feature in _LEVELS[name][0].split())


def check_runs_here(cpu: str) -> None:
    """GraphcError if this machine lacks a feature that code for `cpu` uses."""
    if cpu in _LEVELS:
        check_features(cpu, level_features(cpu), host_features())


def host_levels() -> list[str]:
    """The known levels that this machine has, the lowest first."""
    return [level for level in _LEVELS if level_features(level) <= host_features()]


def host_level() -> str:
    """The highest of the known levels that this machine has, such as "x86-64-v3"; its LLVM name if it has none."""
    return (host_levels() or [load_llvm().get_host_cpu_name()])[-1]


def limit_cpu(cpu: str) -> str:
    """What to compile for in this process instead of `cpu`: GRAPHC_CPU, where that is lower. Errors: InputError."""
    limit, order = cpu_limit(_LEVELS), list(_LEVELS)
    if limit is None or not (cpu in _LEVELS or cpu == "native"):
        return cpu
    if cpu == "native":
        return limit if limit in host_levels() else cpu
    return min(cpu, limit, key=order.index)


def _vector_shape(features: frozenset[str], triple: str) -> tuple[int, int]:
    if "avx512vl" in features:
        return 16, 32
    if "avx" in features:
        return 8, 16
    return 4, 16 if triple.startswith("x86_64") else 32
