"""Remove what no output needs."""

from graphc.ir import Graph


def eliminate_dead_code(graph: Graph) -> Graph:
    """Remove the nodes and parameters from which no path leads to an output; the inputs stay, used or not.

    rewrite: a = f(x); b = g(x); return b -> b = g(x); return b
    checks: none; ops have no side effects
    """
    return graph.prune()
