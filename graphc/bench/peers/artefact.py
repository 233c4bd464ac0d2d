"""graphc's own shared library, loaded without the compiler."""

from graphc import __version__
from graphc.bench.problem import Loaded, Problem, run_network
from graphc.runtime.load import load as load_library

FOLDER = "artefact"  # of the problem's folder: where the library lies, alone


def load(problem: Problem, threads: int) -> Loaded:
    """The network in the library that was built for this problem."""
    (library,) = (problem.folder / FOLDER).glob("*.so")
    return Loaded(__version__, run_network(load_library(library, threads), problem))
