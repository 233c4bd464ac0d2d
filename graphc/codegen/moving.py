"""Channels that change places: concats, splits, and shuffles spelled as reshape, transpose and reshape.

Of images in blocks of channels, a chain of those is one step, move_channels, that takes every channel from where it was
computed: what lies between is never made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc import ops
from graphc.codegen.layout import Layout
from graphc.codegen.target import Target
from graphc.ir import DType, Graph, Node, Value

MOVES = (ops.Concat, ops.Split, ops.Reshape, ops.Transpose)
MOST_SOURCES = 4  # whose vectors one vector of a result is made of
MOST_CHANNELS = 1024  # there is code for each block of them
DEEPEST = 8  # nodes in a chain; ShuffleNet's have 5
Cells = NDArray[Any]  # of the dims between N and H, W: (value, its channel)
Channels = tuple[tuple[Value, int], ...]  # of a result: the value that each comes from, and the channel there


@dataclass(frozen=True)
class Moves:
    """The values that are made of others' channels, and the nodes that do nothing else."""

    made: Mapping[Value, Channels]
    nodes: frozenset[Node]


def find_moved(graph: Graph, node: Node, layouts: Mapping[Value, Layout], target: Target) -> dict[Value, Channels]:
    """The results of the node whose channels are those of images in blocks, if all of them are so.

    rewrite: t = concat(x, y); u = reshape(transpose(reshape(t))); v, w = split(u) -> v, w = channels of x and y
    checks:  the node is a split of channels, or a reshape that ends a shuffle; images are float32, [N,C,H,W] where a
             chain begins and ends, and N, H and W stay in their places
    """
    split = isinstance(node.op, ops.Split) and node.op.axis == 1
    if not split and not (isinstance(node.op, ops.Reshape) and _is_transposed(graph, node.inputs[0])):
        return {}
    found = {v: _follow(graph, v, layouts) for v in node.outputs}
    for v, cells in found.items():
        if v.type.rank != 4 or v.type.dtype != DType.F32 or cells is None:
            return {}
        sources = {x for x, _ in cells}
        if len(sources) > MOST_SOURCES or any(layouts.get(x) != Layout(target.lanes) for x in sources):
            return {}
    return {v: tuple(cells) for v, cells in found.items() if cells is not None}


def find_moves(graph: Graph, layouts: Mapping[Value, Layout], target: Target) -> Moves:
    """All such results that something reads, as the layouts have them in blocks."""
    made: dict[Value, Channels] = {}
    for node in graph.nodes:
        if all(v in layouts for v in node.outputs):
            made |= find_moved(graph, node, layouts, target)
    nodes = {node for node in graph.nodes if node.outputs[0] in made}
    read: set[Value] = set()  # by those that are made, or by other nodes
    for node in reversed(graph.nodes):
        seen = [v for v in node.outputs if v in graph.outputs or not nodes.issuperset(graph.consumers.get(v, ()))]
        if node in nodes:
            for v in node.outputs:
                if v in read or v in seen:
                    read |= {v, *(x for x, _ in made[v])}
        elif isinstance(node.op, MOVES) and not seen and read.isdisjoint(node.outputs):
            nodes.add(node)  # those around it look through it
    return Moves({v: channels for v, channels in made.items() if v in read}, frozenset(nodes))


def _is_transposed(graph: Graph, v: Value) -> bool:
    node = graph.producers.get(v)
    return node is not None and isinstance(node.op, ops.Transpose) and v.type.rank == 5


def _follow(graph: Graph, v: Value, layouts: Mapping[Value, Layout], depth: int = 0) -> Cells | None:
    """Where the channels of v come from; None if it does not consist of channels, or of too many.

    Parts in blocks are made: what is cut again and again would have ever more sources.
    """
    if _count_channels(v) > MOST_CHANNELS:
        return None
    node = graph.producers.get(v)
    made = depth > 0 and v in layouts and node is not None and isinstance(node.op, ops.Split)
    if node is None or not isinstance(node.op, MOVES) or made or depth == DEEPEST:
        return _list_channels(v)
    parts = [_follow(graph, x, layouts, depth + 1) for x in node.inputs]
    cells = [part for part in parts if part is not None]
    if len(cells) < len(parts):
        return None
    old, new = node.inputs[0].type.shape, v.type.shape
    kept = len(new) >= 4 and (old[0], old[-2:]) == (new[0], new[-2:])  # N, H and W
    inner = [d for d in new[1:-2] if isinstance(d, int)]
    match node.op:
        case ops.Concat(axis=1) if len(new) == 4:
            return np.concatenate(cells)
        case ops.Split(axis=1) if len(new) == 4:
            begin, end = node.op.offsets()[node.outputs.index(v) :][:2]
            return cells[0][begin:end] if isinstance(begin, int) and isinstance(end, int) else None
        case ops.Reshape() if kept and len(inner) == len(new) - 3:
            return cells[0].reshape(inner)
        case ops.Transpose(perm=perm) if perm[0] == 0 and perm[-2:] == (len(new) - 2, len(new) - 1):
            return cells[0].transpose([i - 1 for i in perm[1:-2]])
    return _list_channels(v)


def _count_channels(v: Value) -> int:
    """The product of the dims between N and those of an image, as far as they are constant."""
    return prod(d for d in v.type.shape[1:-2] if isinstance(d, int))


def _list_channels(v: Value) -> Cells | None:
    """Those of a value that is not followed further."""
    count = v.type.shape[1] if v.type.rank == 4 else None
    if not isinstance(count, int):
        return None
    cells = np.empty(count, object)
    cells[:] = [(v, c) for c in range(count)]
    return cells
