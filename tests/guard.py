"""`make guard`: drawn problems between forbidden pages, on every CPU level; a violation prints what it was.

    python tests/guard.py PROBLEMS [SEED]

A structure (an op with its attributes, or a network) is drawn, compiled for a level, and run at many sizes: each is a
problem. All that the code reads or writes lies against a forbidden page, before it or behind it, so that a violation
kills the process, which is one for each structure and level. Every problem runs from memory full of NaN and again from
memory full of large numbers: both must give the same bits. And but for the inputs that hold the worst values, the
result is compared with float64. At the end stands how many problems ran each family of kernels on each level.
"""

import mmap
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import numpy as np
from forking import Outcome, fork, limit
from guard_problems import DRAWN_MORE, DRAWS, NOT_THERE, Drawn, draw_problem, reached, wanted
from guarded_network import POISON, GuardedNetwork
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as with_seed
from problem import Problem
from test_executors import runs_here, takes

from graphc.errors import InputError
from graphc.ir import Array, DType
from graphc.reference import run_reference

LEVELS = [cpu for cpu in ("x86-64-v4", "x86-64-v3", "x86-64-v2") if runs_here(cpu)]
STRUCTURES = 3  # of each kind, before the next kind
SIZES = 12  # of each structure and level
WILD = 0.25  # of problems of one op have the worst values as inputs
NOTE = mmap.mmap(-1, mmap.PAGESIZE)  # what a child was doing when it died


def draw_structures(kind: str, seed: int) -> list[Drawn]:
    """Some structures of a kind."""
    count, rng, found = STRUCTURES * DRAWN_MORE.get(kind, 1), np.random.default_rng(seed), list[Drawn]()

    @with_seed(seed)
    @settings(max_examples=count + 1, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(drawn=DRAWS[kind])
    def collect(drawn: Problem | Drawn) -> None:
        found.append(draw_problem(drawn, rng.random() < WILD) if isinstance(drawn, Problem) else drawn)

    collect()
    return found[1:]  # the first is the simplest there is, always the same


def draw_sizes(drawn: Drawn, count: int, rng: np.random.Generator) -> Iterator[dict[str, int]]:
    """Different sizes for the graph's symbols; a third near the least."""
    seen = set[tuple[int, ...]]()
    for i in range(count):
        span = (4, 24, 41)[i % 3]
        h, w = (drawn.least_size + int(x) for x in rng.integers(0, span, 2))
        sizes = {"N": int(rng.integers(1, 4)), "H": h, "W": w}
        if (key := tuple(sizes[s] for s in drawn.graph.symbols)) not in seen:
            seen.add(key)
            yield sizes


def run_structure(drawn: Drawn, cpu: str, seed: int, count: int = SIZES) -> Outcome:
    """Run a structure at so many sizes; how many problems that was, and how many ran each family."""
    rng = np.random.default_rng(seed)
    note("compiling")
    network = GuardedNetwork(drawn.graph, cpu, threads=int(rng.integers(1, 3)))
    counts = Counter[str]()
    for sizes in draw_sizes(drawn, count, rng):
        at_start = bool(rng.integers(2))
        inputs = drawn.arrays(sizes, seed)
        note(f"{sizes}, pages {'before' if at_start else 'behind'}")
        if not takes(drawn.graph, inputs):
            counts["refused"] += 1
            try:
                network.run(inputs, at_start)
            except InputError:
                continue
            raise AssertionError("the code takes sizes that the graph refuses")
        found, again = (network.run(inputs, at_start, poison) for poison in POISON)
        for a, b in zip(found, again, strict=True):
            assert a.tobytes() == b.tobytes(), "a result depends on memory that was never written"
        if drawn.check:
            drawn.check(found, run_reference(drawn.graph, inputs, DType.F64), str(sizes))
        counts.update(["problems", *reached(network.plan, sizes)])
        new = int(rng.integers(1, 9))
        note(f"{sizes}, tiles of {new} new rows, pages {'before' if at_start else 'behind'}")
        counts["carry_rows"] += sum(run_tiles(network, inputs[0], new, at_start, poison, found) for poison in POISON)
    network.close()
    return {"done": counts}


def run_tiles(
    network: GuardedNetwork, image: Array, new: int, at_start: bool, poison: int, expected: list[Array]
) -> bool:
    """Whether the image is cut into the tiles of a strip; they must give what is `expected`.

    Unless the image holds infinities or NaN: times a weight of 0, such a neighbour is NaN, and a tile need not see it.
    """
    found = network.run_strip(image, new, at_start, poison) if network.plan.carry else None
    if np.isfinite(image).all():
        for a, b in zip(expected, found or expected, strict=True):
            # which of two NaNs a sum keeps is the compiler's choice, so their bits may depend on the place in a tile
            assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), "a strip's tiles differ from the whole"
    return found is not None


def note(text: str) -> None:
    NOTE[:] = text.encode()[: mmap.PAGESIZE].ljust(mmap.PAGESIZE)


def attempt(drawn: Drawn, cpu: str, seed: int) -> Outcome:
    """The same within limits."""
    limit()
    warnings.simplefilter("error")
    try:
        return run_structure(drawn, cpu, seed)
    except BaseException as error:  # whatever it is, it is a finding
        return {"failure": f"{type(error).__name__}: {str(error)[:2000]}"}


def report(counts: dict[str, Counter[str]]) -> bool:
    """Print how many problems ran each family on each level; whether each ran some on all, and none is unknown."""
    names = sorted(wanted() | {n for c in counts.values() for n in c if n not in ("problems", "refused")})
    print(f"{'problems that ran':32}", *(f"{level:>10}" for level in counts))
    for name in ("problems", "refused", *names):
        print(f"{name:32}", *(f"{c[name]:10}" for c in counts.values()), flush=True)
    expected = {level: wanted() - NOT_THERE.get(level, set()) for level in counts}
    missing = {f"{name} on {level}" for level, c in counts.items() for name in expected[level] if not c[name]}
    if missing:
        print("never ran:", ", ".join(sorted(missing)))
    return not missing


def main(wanted_problems: int, seed: int) -> int:
    """Run until there were so many problems; the exit status is 1 if there was a finding, or a family did not run."""
    print(f"seed {seed}, {wanted_problems} problems", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    counts, findings, begin = {level: Counter[str]() for level in LEVELS}, 0, time.monotonic()
    with suppress(KeyboardInterrupt):  # a signal: print what has been run
        while (whole := sum(c["problems"] for c in counts.values())) < wanted_problems:
            print(f"{whole} problems, {findings} findings, {time.monotonic() - begin:.0f} s", flush=True)
            for kind in DRAWS:
                for number, drawn in enumerate(draw_structures(kind, seed)):
                    for level in LEVELS:
                        outcome = fork(partial(attempt, drawn, level, seed))
                        if isinstance(done := outcome.get("done"), dict):
                            counts[level].update(done)
                            continue
                        findings += 1
                        where = NOTE[:].decode(errors="replace").strip()
                        print(f"{kind} {number} of seed {seed}, {level}, {where}: {outcome}", flush=True)
                        print(drawn.graph, flush=True)
                seed += 1
    print(f"{findings} findings in {time.monotonic() - begin:.0f} s")
    complete = report(counts)
    return int(findings > 0 or not complete)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time()) % 10**6 * 1000))
