"""The machine that measurements are made on: what it is, and which of its CPUs a runtime gets."""

import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from graphc import __version__
from graphc.codegen.target import host_level
from graphc.errors import InputError

_CPU = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Machine:
    """What timings depend on. `load` is the number of busy threads over the last minute, before measuring began."""

    cpu: str
    level: str
    cores: int
    cpus: int
    caches: dict[str, int]
    memory_bytes: int
    system: str
    versions: dict[str, str]
    load: float

    def __str__(self) -> str:
        caches = ", ".join(f"{name} {size >> 10} KiB" for name, size in self.caches.items())
        versions = ", ".join(f"{name} {v}" for name, v in self.versions.items())
        return (
            f"{self.cpu} ({self.level}), {self.cores} cores, {self.cpus} CPUs, {caches}, "
            f"memory {self.memory_bytes / 2**30:.0f} GiB, {self.system}; {versions}; load {self.load:.1f}"
        )

    def to_json(self) -> dict[str, Any]:
        """All of it as numbers, texts and dicts."""
        return asdict(self)


def describe_machine() -> Machine:
    """This machine, as far as this process may use it."""
    allowed = sorted(os.sched_getaffinity(0))
    return Machine(
        _cpu_name(),
        host_level(),
        len(_pick_cores(allowed)),
        len(allowed),
        cache_bytes(),
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        f"{platform.system()} {platform.release()}",
        {
            "Python": platform.python_version(),
            "graphc": __version__,
            "numpy": np.__version__,
            "llvmlite": version("llvmlite"),
        },
        os.getloadavg()[0],
    )


def choose_cpus(threads: int) -> list[int]:
    """A CPU for each thread, on cores of their own as long as there are any. Errors: InputError."""
    allowed = sorted(os.sched_getaffinity(0))
    if not 1 <= threads <= len(allowed):
        raise InputError(f"threads: expected 1 to {len(allowed)}, a CPU for each, got {threads}")
    cores = _pick_cores(allowed)
    return sorted([*cores, *(cpu for cpu in allowed if cpu not in cores)][:threads])


def cache_bytes() -> dict[str, int]:
    """Level -> bytes of the data caches of the first CPU, such as "L2": 2**20; none if the system does not tell."""
    folders = sorted((_CPU / f"cpu{min(os.sched_getaffinity(0))}/cache").glob("index*"))
    sizes = {f"L{_read(f / 'level')}": _read(f / "size") for f in folders if _read(f / "type") != "Instruction"}
    return {level: int(size.removesuffix("K")) << 10 for level, size in sizes.items() if size.endswith("K")}


def _pick_cores(cpus: Iterable[int]) -> list[int]:
    """The first CPU of each core."""
    first: dict[str, int] = {}
    for cpu in cpus:
        first.setdefault(_read(_CPU / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu), cpu)
    return list(first.values())


def _cpu_name() -> str:
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def _read(path: Path) -> str:
    """What the file says; nothing if the system has no such file."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
