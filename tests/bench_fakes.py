"""Runtimes that are quick to load, for tests of measuring: what workers load in place of the real ones."""

import os
import time

import numpy as np

from graphc.bench.problem import Loaded, Problem
from graphc.bench.runtimes import Peer
from graphc.ir import Array
from graphc.reference import run_reference

DELAY = 0.02  # seconds that one run of `slow` takes beside the work


def load_reference(problem: Problem, threads: int) -> Loaded:
    """NumPy in float32."""
    assert len(os.sched_getaffinity(0)) == threads
    return Loaded("1.0", lambda: run_reference(problem.graph(), problem.inputs))


def load_slow(problem: Problem, threads: int) -> Loaded:
    """The same, later, and printing as some libraries do."""
    print("slow is loading")

    def run() -> list[Array]:
        time.sleep(DELAY)
        print("slow runs")
        return run_reference(problem.graph(), problem.inputs)

    return Loaded("2.0", run)


def load_wrong(problem: Problem, threads: int) -> Loaded:
    """Results one and a half times as large as they should be."""
    return Loaded("3.0", lambda: [a * 1.5 for a in run_reference(problem.graph(), problem.inputs)])


def load_flat(problem: Problem, threads: int) -> Loaded:
    """Results of another shape."""
    return Loaded("3.1", lambda: [a.reshape(-1) for a in run_reference(problem.graph(), problem.inputs)])


def load_nan(problem: Problem, threads: int) -> Loaded:
    """No numbers."""
    return Loaded("3.2", lambda: [a * np.nan for a in run_reference(problem.graph(), problem.inputs)])


def load_nothing(problem: Problem, threads: int) -> Loaded:
    """Refuses every network, in two lines."""
    raise ValueError("no such\noperator")


def load_mortal(problem: Problem, threads: int) -> Loaded:
    """Dies in its second run."""
    runs = iter(range(2))

    def run() -> list[Array]:
        if next(runs):
            os.write(2, b"fatal: out of luck\n")
            os._exit(3)
        return []

    return Loaded("4.0", run)


OWN = Peer("graphc", "bench_fakes:load_reference")
SLOW = Peer("slow", "bench_fakes:load_slow")
WRONG = Peer("wrong", "bench_fakes:load_wrong")
FLAT = Peer("flat", "bench_fakes:load_flat")
NAN = Peer("nan", "bench_fakes:load_nan")
REFUSING = Peer("refusing", "bench_fakes:load_nothing")
MORTAL = Peer("mortal", "bench_fakes:load_mortal")
ABSENT = Peer("absent", "bench_fakes:load_absent", ("no_such_module", "json"))
