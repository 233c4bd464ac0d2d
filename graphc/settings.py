"""Every environment setting of graphc, with its meaning: no other module reads the environment.

A setting is read when it is used, so a test or a notebook can change it between two calls.
"""

import os
import shlex
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from graphc.errors import InputError


@dataclass(frozen=True)
class Setting:
    """One environment variable: what it does and what it may hold. An empty value means that it is not set."""

    name: str
    expects: str
    meaning: str

    @property
    def text(self) -> str:
        """What the environment holds, or an empty string."""
        return os.environ.get(self.name, "").strip()

    def integer(self, least: int, most: int | None = None) -> int | None:
        """The value as an integer from `least` to `most`; None if not set, InputError if it is something else."""
        if not self.text:
            return None
        number = int(self.text) if self.text.isascii() and self.text.isdigit() else -1
        if number < least or (most is not None and number > most):
            raise InputError(f"{self.name}: expected {self.expects}, got {self.text!r}")
        return number


DUMP = Setting(
    "GRAPHC_DUMP", "a folder", "gets the graph after every pass, the plan, each kernel's LLVM IR and the assembly"
)
STOP_AFTER = Setting("GRAPHC_STOP_AFTER", "an integer of at least 0", "runs only the first n passes of the pipeline")
NUM_THREADS = Setting(
    "GRAPHC_NUM_THREADS", "an integer from 1 to 1024", "threads of a run; by default every CPU the process may use"
)
COMPILERS = Setting(
    "GRAPHC_COMPILERS",
    "an integer from 0 to 64",
    "processes that compile the parts of a large network; 0: none but this one; by default one for each CPU, up to 8",
)
MOST_THREADS = 1024  # what a pool takes: more is a mistake, or a machine whose other threads would only wait
CC = Setting("CC", "a C compiler's command", "links artefacts; by default the first of cc, gcc and clang")
CPU = Setting(
    "GRAPHC_CPU",
    "a level such as x86-64-v2",
    "the highest CPU level whose code runs, in process and in artefacts; by default all that the CPU has",
)
CACHE = Setting(
    "GRAPHC_CACHE",
    "off, or a folder of the user's own that nobody else can enter (mode 0700)",
    "keeps the machine code of compiled networks; by default graphc in the user's cache folder",
)
# What a model file may ask for, of which a few bytes can ask for any number: more than networks of the field have. Who
# trusts a file can raise it.
MOST_BYTES = Setting(
    "GRAPHC_MOST_BYTES",
    "an integer from 1 to 2^62",
    "bytes that one tensor of a model file may have, or all that are known while it is read; by default 2^34, 16 GiB",
)
MOST_NODES = Setting(
    "GRAPHC_MOST_NODES",
    "an integer of at least 0",
    "nodes that the bodies of If, Loop, Scan and functions in a model file may become in all; by default 50,000",
)
MOST_NESTED = Setting(
    "GRAPHC_MOST_NESTED",
    "an integer from 0 to 80",
    "how many bodies in a model file may lie in each other; by default 40",
)
XDG_CACHE_HOME = Setting("XDG_CACHE_HOME", "an absolute path", "the user's cache folder; by default ~/.cache")
SETTINGS = (
    *(DUMP, STOP_AFTER, NUM_THREADS, COMPILERS, CC, CPU, CACHE),
    *(MOST_BYTES, MOST_NODES, MOST_NESTED, XDG_CACHE_HOME),
)


def dump_folder() -> Path | None:
    """The folder of GRAPHC_DUMP, created if need be; None if not set, InputError if it cannot be a folder."""
    if not DUMP.text:
        return None
    folder = Path(DUMP.text)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{DUMP.name}: expected {DUMP.expects}, got {DUMP.text!r} ({error.strerror})") from None
    return folder


def stop_after() -> int | None:
    """How many passes GRAPHC_STOP_AFTER allows; None if all."""
    return STOP_AFTER.integer(0)


def num_threads() -> int:
    """How many threads a run uses: GRAPHC_NUM_THREADS, or the CPUs that this process may use."""
    return NUM_THREADS.integer(1, MOST_THREADS) or min(len(os.sched_getaffinity(0)), MOST_THREADS)


def num_compilers() -> int:
    """How many processes compile a large network, beside this one: GRAPHC_COMPILERS, or as the CPUs allow."""
    found = COMPILERS.integer(0, 64)
    return min(len(os.sched_getaffinity(0)), 8) if found is None else found


def most_bytes() -> int:
    """How many bytes a tensor of a model file may have."""
    return MOST_BYTES.integer(1, 2**62) or 2**34


def most_nodes() -> int:
    """How many nodes the bodies in a model file may become."""
    found = MOST_NODES.integer(0)
    return 50_000 if found is None else found


def most_nested() -> int:
    """How many bodies of a model file may lie in each other; Python's own stack ends at about 100."""
    found = MOST_NESTED.integer(0, 80)
    return 40 if found is None else found


def cpu_limit(levels: Collection[str]) -> str | None:
    """The one of `levels` that GRAPHC_CPU names; None if not set, InputError if it is none of them."""
    if CPU.text and CPU.text not in levels:
        raise InputError(f"{CPU.name}: expected one of {', '.join(levels)}, got {CPU.text!r}")
    return CPU.text or None


def cache_folder() -> Path | None:
    """Where compiled code is kept, by GRAPHC_CACHE or the conventions of the system; None if nowhere."""
    if CACHE.text == "off":
        return None
    if CACHE.text:
        return Path(CACHE.text).absolute()
    if XDG_CACHE_HOME.text.startswith("/"):  # a relative path is to be ignored, says the XDG base directory standard
        return Path(XDG_CACHE_HOME.text) / "graphc"
    try:
        return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "graphc"
    except RuntimeError:  # no home
        return None


def c_compiler() -> list[str]:
    """The words of CC, such as ["ccache", "gcc"]; none if not set, InputError if quotes do not match."""
    try:
        return shlex.split(CC.text)
    except ValueError:
        raise InputError(f"{CC.name}: expected {CC.expects}, got {CC.text!r}") from None
