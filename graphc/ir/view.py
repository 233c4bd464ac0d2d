"""The graph as networkx sees it, for order, reachability, dominators and drawing."""

import networkx as nx

from graphc.ir.graph import Graph, Node, Value


def to_networkx(graph: Graph) -> "nx.DiGraph[Value | Node]":
    """A directed graph of nodes, inputs and outputs: an edge a -> b carries `value`, the tensor that flows.

    Parameters are left out: they hang on the nodes (`node.inputs`).
    """
    view: nx.DiGraph[Value | Node] = nx.DiGraph(name=graph.name)
    view.add_nodes_from(graph.inputs)
    view.add_nodes_from(graph.nodes)
    for node in graph.nodes:
        for v in node.inputs:
            if v not in graph.constants:
                view.add_edge(graph.producers.get(v, v), node, value=v)
    return view
