"""Where the time of a run goes: every step of the compiled network, beside what the machine could do at best."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from os import sched_getaffinity, sched_setaffinity
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.bench.limits import Limits, measure_limits
from graphc.bench.machine import choose_cpus
from graphc.codegen.plan import Plan, buffer_bytes
from graphc.driver import compile, lower
from graphc.emission import stamped_network, step_seconds
from graphc.ir import Graph, dims
from graphc.reference import random_inputs
from graphc.summary import count_multiply_adds


@dataclass(frozen=True)
class StepTime:
    """One step: a kernel on behalf of a node, and why that kernel.

    `flops` are two for each multiply-add of the node, however the kernel computes it, and stand at that of the node's
    steps which does the most work; other operations are not counted. `moved` are the bytes of the operands. `limit`
    is what the step would wait for if nothing else took time, `least_seconds` how long.
    """

    node: str
    kernel: str
    reason: str
    seconds: float
    flops: int
    moved: int
    limit: str
    least_seconds: float


@dataclass(frozen=True)
class Profile:
    """A network at a size and number of threads.

    `call_seconds` is what a call from Python takes beside the steps; `run_seconds` a whole call without time stamps.
    """

    network: str
    shapes: tuple[tuple[int, ...], ...]
    limits: Limits
    run_seconds: float
    call_seconds: float
    steps: tuple[StepTime, ...]

    @property
    def row_seconds(self) -> float:
        """Of all steps and the call together."""
        return self.call_seconds + sum(s.seconds for s in self.steps)

    def by_kernel(self) -> dict[str, tuple[int, float]]:
        """Kernel -> number of its steps, and their seconds; the slowest first."""
        found: dict[str, tuple[int, float]] = {}
        for s in self.steps:
            count, seconds = found.get(s.kernel, (0, 0.0))
            found[s.kernel] = count + 1, seconds + s.seconds
        return dict(sorted(found.items(), key=lambda item: -item[1][1]))

    def to_json(self) -> dict[str, Any]:
        """All of it as numbers, texts, lists and dicts."""
        return asdict(self)


def profile(graph: Graph, sizes: Mapping[str, int], threads: int, seconds: float) -> Profile:
    """Run random inputs of these sizes for about so many seconds, in turn with time stamps between steps and without.

    Of both, the mean of the fastest quarter is told: what disturbs a run makes it longer, and means still add up.
    """
    with bound_to(choose_cpus(threads)):
        limits = measure_limits(threads)
        inputs = random_inputs(graph, sizes)
        plain, lowered = compile(graph, threads), lower(graph, "net", "native", profile=True)
        stamped, stamps = stamped_network(lowered, lowered.plan.weight_block(), threads)
        runs: list[list[float]] = []
        rows: list[NDArray[np.float64]] = []
        begin = perf_counter()
        while len(runs) < 2 or perf_counter() - begin < seconds:  # the first of each is warm-up
            start = perf_counter()
            plain(*inputs)
            middle = perf_counter()
            stamped(*inputs)
            end = perf_counter()
            steps = step_seconds(stamps)
            runs.append([middle - start])
            rows.append(np.array([end - middle - steps.sum(), *steps]))
    (run,), (call, *times) = (_fast_mean(np.array(x[1:])) for x in (runs, rows))
    shapes = tuple(a.shape for a in inputs)
    return Profile(graph.name, shapes, limits, run, call, _describe_steps(lowered.plan, sizes, limits, times))


def _fast_mean(times: NDArray[np.float64]) -> list[float]:
    """The mean of the quarter of the rows [runs, parts] with the least sums."""
    fastest = np.argsort(times.sum(axis=1))[: -(-len(times) // 4)]
    return [float(x) for x in times[fastest].mean(axis=0)]


def _describe_steps(
    plan: Plan, sizes: Mapping[str, int], limits: Limits, seconds: Sequence[float]
) -> tuple[StepTime, ...]:
    work = [dims.evaluate(step.kernel.work, sizes) for step in plan.steps]
    main: dict[str, int] = {}  # node -> its step that does the most
    for i, step in enumerate(plan.steps):
        main[step.node.name] = max(main.get(step.node.name, i), i, key=work.__getitem__)
    steps = []
    for i, (step, took) in enumerate(zip(plan.steps, seconds, strict=True)):
        node, kernel = step.node, step.kernel
        counted = main[node.name] == i and node.outputs  # the copy to an output has none
        flops = 2 * count_multiply_adds(node, sizes) if counted else 0
        runs = dims.evaluate(kernel.tasks, sizes) > 0
        moved = sum(dims.evaluate(buffer_bytes(b), sizes) for b in kernel.buffers) if runs else 0
        limit, least = limits.bound(flops, moved)
        steps.append(StepTime(node.name, kernel.name, kernel.reason, took, flops, moved, limit, least))
    return tuple(steps)


@contextmanager
def bound_to(cpus: list[int]) -> Iterator[None]:
    """Keep this thread, and the threads that it starts meanwhile, on these CPUs."""
    before = sched_getaffinity(0)
    sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        sched_setaffinity(0, before)
