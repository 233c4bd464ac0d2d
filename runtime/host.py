"""The target for this machine, found without LLVM if it was asked for before: its library takes 50 MB."""

import inspect
import json
from dataclasses import asdict
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import llvmlite

from graphc.codegen import cpuid, target
from graphc.codegen.target import Target, make_target
from graphc.runtime import cache

CPU_INFO = Path("/proc/cpuinfo")
_TELLING = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags")  # of Linux, for x86


def find_target(cpu: str) -> Target:
    """As `make_target`; kept (GRAPHC_CACHE) for this CPU, this LLVM and this version of what makes it."""
    told = _read_cpu()
    if not told:
        return make_target(cpu)
    files = [inspect.getsource(module) for module in (cpuid, target)]
    key = sha256(repr(("target", cpu, told, llvm_build(), files)).encode()).digest()
    kept = cache.load(key)
    if kept is not None:
        fields = json.loads(kept)
        return Target(**fields | {"needs": frozenset(fields["needs"])})
    found = make_target(cpu)
    cache.store(key, json.dumps(asdict(found) | {"needs": sorted(found.needs)}).encode())
    return found


def llvm_build() -> tuple[object, ...]:
    """Which LLVM there is, without loading it: llvmlite's version, and size and time of its libraries."""
    spec = find_spec("llvmlite")
    folders = spec.submodule_search_locations if spec else None
    libraries = sorted(p for folder in folders or () for p in Path(folder, "binding").glob("*llvmlite*"))
    stamps = [(about.st_size, about.st_mtime_ns) for about in (p.stat() for p in libraries)]
    return llvmlite.__version__, *stamps


def _read_cpu() -> list[str]:
    """What the system says of the first CPU that tells its model and features; nothing if it does not."""
    try:
        first, _, _ = CPU_INFO.read_text().partition("\n\n")
    except OSError:
        return []
    lines = [line for line in first.splitlines() if line.partition("\t")[0].strip(": ") in _TELLING]
    return lines if any(line.startswith("flags") for line in lines) else []
