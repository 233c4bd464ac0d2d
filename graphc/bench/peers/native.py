"""graphc itself, compiled in process."""

from graphc import __version__
from graphc.bench.problem import Loaded, Problem
from graphc.driver import compile
from graphc.ir import Array


def load(problem: Problem, threads: int) -> Loaded:
    """The compiled network."""
    network = compile(problem.graph(), threads)
    inputs = problem.inputs

    def run() -> tuple[Array, ...]:
        result = network(*inputs)
        return result if isinstance(result, tuple) else (result,)

    return Loaded(__version__, run)
