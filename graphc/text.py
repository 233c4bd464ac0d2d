"""The text form for users: `print(graph)` writes it, `parse` reads it back, with graphc's own ops."""

from collections.abc import Callable, Mapping

from graphc.ir import Array, Graph, Value
from graphc.ir.text import parse_graph
from graphc.ops import OPS


def parse(text: str, params: Mapping[str, Array] | Callable[[Value], Array] | None = None) -> Graph:
    """The graph that `text` describes (graphc/ir/text.py shows the form).

    `params` gives the data of each `param()`, by name or as a function of its value, which knows name and type.
    GraphError or ShapeError names the line.
    """
    return parse_graph(text, OPS, params or {})
