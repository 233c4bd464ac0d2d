"""Sugiyama's layout of a directed acyclic graph whose edges flow downwards, up to the nodes' x coordinates.

1. Layers: the longest path from a source, so that every edge points downwards.
2. Waypoints: an edge over several layers gets one in each layer that it crosses, so every link joins neighbouring
   layers. Edges with one source and one label carry one value and share their waypoints, as a bus.
3. Order within the layers: median sweeps (Gansner et al., "A technique for drawing directed graphs", 1993).
4. Coordinates: Brandes and Köpf, "Fast and simple horizontal coordinate assignment", 2001: the mean of four layouts,
   each of which keeps as many chains straight as it can, long edges first.

The time is about linear in nodes, waypoints and links: 1,000 boxes with 4,400 edges take half a second.
"""

import statistics
from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx

BOX_GAP = 26  # pixels between neighbours, when one of them is a box
WIRE_GAP = 14  # between two waypoints
SWEEPS = 8  # of ordering, half of them downwards; on graphs of 1,000 nodes those after the fourth changed nothing

Layers = list[list[int]]  # each from left to right
Links = list[list[int]]  # by node: the nodes of the next layer that it is linked to


@dataclass(frozen=True)
class Net:
    """A graph in layers. Nodes are numbers: the boxes, then the waypoints, each of which has one link from above."""

    boxes: int
    layers: Layers
    above: Links
    below: Links
    routes: list[list[int]]  # by edge: the source, the waypoints, the destination


def build_net(boxes: int, edges: Sequence[tuple[int, int, str]]) -> Net:
    """Layer `boxes` nodes. Edges are (source, destination, label); a cycle raises nx.NetworkXUnfeasible."""
    level = _assign_layers(boxes, edges)
    above: Links = [[] for _ in range(boxes)]
    below: Links = [[] for _ in range(boxes)]
    waypoints: dict[tuple[int, str, int], int] = {}
    routes = []
    for source, destination, label in edges:
        route = [source]
        for depth in range(level[source] + 1, level[destination]):
            v = waypoints.setdefault((source, label, depth), len(above))
            if v == len(above):
                level.append(depth)
                above.append([route[-1]])
                below.append([])
                below[route[-1]].append(v)
            route.append(v)
        above[destination].append(route[-1])
        below[route[-1]].append(destination)
        routes.append([*route, destination])
    layers = _order_depth_first(level, above, below)
    return Net(boxes, _order_layers(layers, above, below), above, below, routes)


def _assign_layers(boxes: int, edges: Sequence[tuple[int, int, str]]) -> list[int]:
    """By box: below all that it depends on; but a source as low as it may be, to keep its edges short."""
    graph = nx.DiGraph((source, destination) for source, destination, _ in edges)
    graph.add_nodes_from(range(boxes))
    level = [0] * boxes
    for depth, generation in enumerate(nx.topological_generations(graph)):
        for v in generation:
            level[v] = depth
    for v in range(boxes):
        if not graph.pred[v] and graph.succ[v]:
            level[v] = min(level[w] for w in graph.succ[v]) - 1
    return level


# Order


def _order_depth_first(level: list[int], above: Links, below: Links) -> Layers:
    """The order of a walk that takes first links first: a skip connection comes to lie beside what it skips."""
    layers: Layers = [[] for _ in range(max(level, default=-1) + 1)]
    todo = [v for v in reversed(range(len(level))) if not above[v]]
    seen = set()
    while todo:
        v = todo.pop()
        if v not in seen:
            seen.add(v)
            layers[level[v]].append(v)
            todo += reversed(below[v])
    return layers


def _order_layers(layers: Layers, above: Links, below: Links) -> Layers:
    """Of the given order and those after each sweep, the first one with the fewest crossings."""
    best, fewest = layers, _count_crossings(layers, below)
    for sweep in range(SWEEPS):
        if fewest == 0:
            break
        layers = _sweep(layers[::-1], below)[::-1] if sweep % 2 else _sweep(layers, above)
        crossings = _count_crossings(layers, below)
        if crossings < fewest:
            best, fewest = layers, crossings
    return best


def _sweep(layers: Layers, near: Links) -> Layers:
    """Sort each layer by the median place of its nodes' links to the layer before; nodes without links stay put."""
    done = layers[:1]
    for layer in layers[1:]:
        place = {v: i for i, v in enumerate(done[-1])}
        linked = sorted((v for v in layer if near[v]), key=lambda v: statistics.median(place[u] for u in near[v]))
        ordered = iter(linked)
        done.append([next(ordered) if near[v] else v for v in layer])
    return done


def _count_crossings(layers: Layers, below: Links) -> int:
    crossings = 0
    for upper, lower in pairwise(layers):
        place = {v: i for i, v in enumerate(lower)}
        passed: list[int] = []  # where the links of the nodes to the left end, sorted
        for u in upper:
            ends = [place[v] for v in below[u]]
            crossings += sum(len(passed) - bisect_right(passed, end) for end in ends)
            for end in ends:
                insort(passed, end)
    return crossings


# Coordinates: Brandes and Köpf


def place_nodes(net: Net, left: list[float], right: list[float]) -> list[float]:
    """The x of each node's middle, where what reaches `left` and `right` of it is kept clear; the whole begins at 0."""
    if not net.layers:
        return []
    yielding = _find_yielding(net)
    layouts = []
    for layers, near in ((net.layers, net.above), (net.layers[::-1], net.below)):
        xs = _compact(layers, _align(layers, near, yielding), left, right, net.boxes)
        layouts.append(xs)
        layers = [layer[::-1] for layer in layers]
        xs = _compact(layers, _align(layers, near, yielding), right, left, net.boxes)
        layouts.append([-x for x in xs])
    lows = [min(x - r for x, r in zip(xs, left, strict=True)) for xs in layouts]
    highs = [max(x + r for x, r in zip(xs, right, strict=True)) for xs in layouts]
    narrow = min(range(4), key=lambda i: highs[i] - lows[i])
    # Layouts 0 and 2 lean left and share the narrowest one's left edge, 1 and 3 its right edge.
    shifts = [(highs[narrow] - highs[i]) if i % 2 else (lows[narrow] - lows[i]) for i in range(4)]
    means = [statistics.median(x + s for x, s in zip(four, shifts, strict=True)) for four in zip(*layouts, strict=True)]
    low = min(x - r for x, r in zip(means, left, strict=True))
    return [round(x - low, 1) for x in means]  # what is straight but for rounding is straight


def _find_yielding(net: Net) -> set[tuple[int, int]]:
    """The links, each in both directions, that yield to one between two waypoints: they cross it, or leave the bus."""
    yielding = set()
    for upper, lower in pairwise(net.layers):
        place = {u: i for i, u in enumerate(upper)}
        first, waiting = 0, []  # the links of the nodes that wait must end between two straight ones
        for v in lower:
            waiting.append(v)
            straight = v >= net.boxes and net.above[v][0] >= net.boxes
            if not straight and v != lower[-1]:
                continue
            last = place[net.above[v][0]] if straight else len(upper)
            for w in waiting:
                for u in net.above[w]:
                    crosses = not first <= place[u] <= last
                    leaves = u >= net.boxes and any(x >= net.boxes for x in net.below[u])
                    if (crosses or leaves) and (u < net.boxes or w < net.boxes):
                        yielding.update([(u, w), (w, u)])
            first, waiting = last, []
    return yielding


def _align(layers: Layers, near: Links, yielding: set[tuple[int, int]]) -> list[int]:
    """By node, the first node of its block, which is a chain of median links that will be drawn straight."""
    root = list(range(len(near)))
    for before, layer in pairwise(layers):
        place = {u: i for i, u in enumerate(before)}
        taken = -1
        for v in layer:
            links = sorted((u for u in near[v] if (u, v) not in yielding), key=lambda u: place[u])
            for u in links[(len(links) - 1) // 2 : len(links) // 2 + 1]:
                if root[v] == v and place[u] > taken:
                    root[v], taken = root[u], place[u]
    return root


def _compact(layers: Layers, root: list[int], left: list[float], right: list[float], boxes: int) -> list[float]:
    """The x of each node when all blocks lie as far left as they can, then as near to their right neighbours."""
    blocks = nx.DiGraph()
    blocks.add_nodes_from(root)
    for layer in layers:
        for u, v in pairwise(layer):
            gap = right[u] + left[v] + (WIRE_GAP if u >= boxes and v >= boxes else BOX_GAP)
            known = blocks.get_edge_data(root[u], root[v], {"gap": gap})["gap"]
            blocks.add_edge(root[u], root[v], gap=max(gap, known))
    order = list(nx.topological_sort(blocks))
    x: dict[int, float] = {}
    for block in order:
        x[block] = max((x[u] + link["gap"] for u, link in blocks.pred[block].items()), default=0.0)
    for block in reversed(order):
        x[block] = max(x[block], min((x[v] - link["gap"] for v, link in blocks.succ[block].items()), default=x[block]))
    return [x[block] for block in root]
