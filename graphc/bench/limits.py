"""What the machine can do at most: multiply-adds and bytes moved in a second, measured by the smallest of kernels."""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

import llvmlite.binding as llvm
import numpy as np
from numpy.typing import NDArray

from graphc.bench.machine import cache_bytes
from graphc.codegen.target import Target, base_machine, limit_cpu, make_target
from graphc.runtime.jit import JitCode

Floats = NDArray[np.float32]

CHAINS = 12  # sums at a time: 2 units of 4 to 5 cycles' latency are kept busy by 10, and 12 fit 16 registers
TURNS = 1_000_000  # of the loop over the chains: about 5 ms
TRIALS = 20  # the best counts: a limit is what nothing disturbs
MEMORY = 2**28  # bytes that no cache holds, read and written in 10 ms


@dataclass(frozen=True)
class Limits:
    """`flops` float32 operations in a second (a multiply-add is two), and the bytes in a second for each level.

    Bytes count where they are read and where they are written. Both are of `threads` threads together. `capacity` is
    what each cache holds, in bytes; the last level, memory, has none.
    """

    threads: int
    flops: float
    bandwidth: dict[str, float]
    capacity: dict[str, int]

    def bound(self, flops: float, moved: int) -> tuple[str, float]:
        """What limits a step that does `flops` operations and moves so many bytes, and its least seconds.

        The bytes lie in the smallest level that holds them.
        """
        level = next((name for name, size in self.capacity.items() if moved <= size), "memory")
        computing, moving = flops / self.flops, moved / self.bandwidth[level]
        return ("compute", computing) if computing > moving else (level, moving)


def measure_limits(threads: int) -> Limits:
    """The limits of the CPUs that this process is bound to, on so many threads at a time."""
    target, capacity = make_target(limit_cpu("native")), {n: size for n, size in cache_bytes().items() if n != "L1"}
    code = JitCode(base_machine(target.triple).emit_object(llvm.parse_assembly(_multiply_add_loop(target))))
    loop = code.function("multiply_add", None, (ctypes.c_int64, ctypes.c_void_p))
    result = np.zeros(target.lanes, np.float32)
    with ThreadPoolExecutor(threads) as pool:
        seconds = _fastest(pool, threads, lambda _: loop(TURNS, result.ctypes.data))
        bandwidth = {}
        for level, size in {**{name: size // 4 for name, size in capacity.items()}, "memory": MEMORY}.items():
            elements = size // threads // 8  # half of it is read, half written, 4 bytes each
            pairs = [(np.ones(elements, np.float32), np.empty(elements, np.float32)) for _ in range(threads)]
            copies = max(1, MEMORY // 16 // size)  # enough for a millisecond

            def copy(i: int, pairs: list[tuple[Floats, Floats]] = pairs, copies: int = copies) -> None:
                source, place = pairs[i]
                for _ in range(copies):
                    np.copyto(place, source)

            bandwidth[level] = 8 * elements * threads * copies / _fastest(pool, threads, copy)
    return Limits(threads, 2 * CHAINS * target.lanes * TURNS * threads / seconds, bandwidth, capacity)


def _fastest(pool: ThreadPoolExecutor, threads: int, work: Callable[[int], object]) -> float:
    """Seconds of the fastest of several times that every thread does the work, side by side."""
    times = []
    for _ in range(TRIALS):
        start = perf_counter()
        list(pool.map(work, range(threads)))
        times.append(perf_counter() - start)
    return min(times)


def _multiply_add_loop(target: Target) -> str:
    """`void multiply_add(i64 turns, ptr result)`: in each turn, one multiply-add of a full vector for every chain."""
    vector, suffix = f"<{target.lanes} x float>", f"v{target.lanes}f32"
    half = "splat (float 0.5)"
    chains = range(CHAINS)
    lines = [
        f"declare {vector} @llvm.fmuladd.{suffix}({vector}, {vector}, {vector})",
        "define void @multiply_add(i64 %turns, ptr %result) #0 {",
        "entry:",
        "  br label %loop",
        "loop:",
        "  %i = phi i64 [ 0, %entry ], [ %next, %loop ]",
        *(f"  %a{c} = phi {vector} [ splat (float {c}.0), %entry ], [ %b{c}, %loop ]" for c in chains),
        *(
            f"  %b{c} = call {vector} @llvm.fmuladd.{suffix}({vector} %a{c}, {vector} {half}, {vector} {half})"
            for c in chains
        ),
        "  %next = add i64 %i, 1",
        "  %more = icmp slt i64 %next, %turns",
        "  br i1 %more, label %loop, label %done",
        "done:",
        f"  %s0 = fadd {vector} %b0, splat (float 0.0)",
        *(f"  %s{c} = fadd {vector} %s{c - 1}, %b{c}" for c in chains[1:]),
        f"  store {vector} %s{CHAINS - 1}, ptr %result, align 4",
        "  ret void",
        "}",
        f"attributes #0 = {{ {target.attributes} }}",
    ]
    return f'target triple = "{target.triple}"\n' + "\n".join(lines) + "\n"
