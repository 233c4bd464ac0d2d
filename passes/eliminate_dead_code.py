"""Remove what no output needs."""

from dataclasses import replace

from graphc.ir import Graph


def eliminate_dead_code(graph: Graph) -> Graph:
    """Remove the nodes and parameters from which no path leads to an output; the inputs stay, used or not.

    rewrite: a = f(x); b = g(x); return b -> b = g(x); return b
    checks: none; ops have no side effects
    """
    needed = set(graph.outputs)
    kept = []
    for node in reversed(graph.nodes):
        if not needed.isdisjoint(node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    params = {name: param for name, param in graph.params.items() if param.value in needed}
    return replace(graph, nodes=tuple(reversed(kept)), params=params)
