"""Drawing boxes and edges, flowing downwards: `draw_svg` lays them out itself, `draw_dot` leaves that to Graphviz.

The layout is Sugiyama's, in four steps:

1. layers: the longest path from a source, so that every edge points downwards;
2. waypoints: an edge over several layers gets one in each layer that it crosses, so every link joins neighbouring
   layers. Edges with one source and one label carry one value and share their waypoints, as a bus;
3. order within the layers: median sweeps (Gansner et al., "A technique for drawing directed graphs", 1993);
4. coordinates: Brandes and Köpf, "Fast and simple horizontal coordinate assignment", 2001: the mean of four layouts,
   each of which keeps as many chains straight as it can, long edges first.

Lengths are in pixels. The same arguments give the same text.
"""

import statistics
import unicodedata
from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.sax.saxutils import escape

import networkx as nx

from graphc.errors import GraphError

# Kind -> (fill, border); dark text reads on every fill. A kind that is not here is drawn like "other".
KINDS = {
    "input": ("#e2e8f0", "#475569"),
    "output": ("#e2e8f0", "#475569"),
    "conv": ("#dbeafe", "#3b82f6"),
    "linear": ("#cffafe", "#0891b2"),
    "norm": ("#ede9fe", "#8b5cf6"),
    "activation": ("#fef3c7", "#d97706"),
    "pool": ("#dcfce7", "#16a34a"),
    "join": ("#fce7f3", "#db2777"),
    "shape": ("#f5f5f4", "#a8a29e"),
    "other": ("#ffffff", "#94a3b8"),
}
INK, PALE_INK, WIRE = "#0f172a", "#475569", "#64748b"

FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"
HEADING, TITLE, LINE, LABEL = 18, 13, 11, 10  # font sizes
LONGEST_TEXT = 60  # characters; a box's tooltip has its whole id
LINE_HEIGHT, PADDING = 15, 9
MARGIN = 24  # around the picture
BOX_GAP = 26  # between neighbours, when one of them is a box
WIRE_GAP = 14  # between two waypoints, and between the arrowheads on one box
LAYER_GAP = 34  # holds a label and an arrowhead
SLANT, WIDEST_GAP = 8, 110  # a layer gap grows by 1 for each 8 that its widest link goes sideways, up to 110
SWEEPS = 8  # of ordering, half of them downwards


@dataclass(frozen=True)
class Box:
    """One node of a drawing; `kind`, a key of KINDS, decides its colour."""

    id: str
    title: str
    lines: tuple[str, ...]
    kind: str


Edge = tuple[str, str, str]  # id of the source, id of the destination, label


@dataclass(frozen=True)
class _Net:
    """A graph in layers. Nodes are numbers: the boxes, then the waypoints, each of which has one link from above."""

    boxes: int
    layers: list[list[int]]  # from left to right
    above: list[list[int]]  # by node: what it is linked to in the layer above
    below: list[list[int]]
    routes: list[list[int]]  # by edge: the source, the waypoints, the destination


def draw_svg(boxes: Sequence[Box], edges: Sequence[Edge], title: str) -> str:
    """The text of an SVG file. A cycle, an id that occurs twice, or an edge of no box is a GraphError."""
    net = _order_layers(_build_net(boxes, edges))
    sizes = [_measure_box(box) for box in boxes] + [(0.0, 0.0)] * (len(net.above) - len(boxes))
    labels = _share_labels(edges)
    left = [width / 2 for width, _ in sizes]
    right = left.copy()
    for route, edge in zip(net.routes, edges, strict=True):
        if edge[0] in labels:
            right[route[0]] = max(right[route[0]], 8 + _measure(edge[2], LABEL))

    xs = _place_nodes(net, left, right)
    drawn = max((x + r for x, r in zip(xs, right, strict=True)), default=0.0)
    width = max(320.0, drawn, _measure(title, HEADING)) + 2 * MARGIN
    xs = [x + (width - drawn) / 2 for x in xs]
    head, top = _draw_head(boxes, title, width)
    rows = _place_rows(net, xs, [height for _, height in sizes], top)
    height = max(bottom for _, bottom in rows) + MARGIN if rows else top

    ports = _place_ports(net, xs, left)
    wires, texts = [], []
    for route, edge, port in zip(net.routes, edges, ports, strict=True):
        source, destination = route[0], route[-1]
        start = sum(rows[source]) / 2 + sizes[source][1] / 2
        end = sum(rows[destination]) / 2 - sizes[destination][1] / 2
        runs = [(xs[source], start, rows[source][1])]
        runs += [(xs[v], *rows[v]) for v in route[1:-1]]
        runs += [(port, rows[destination][0], end)]
        wires.append(_draw_wire(runs, edge))
        if edge[0] not in labels:
            texts.append(_draw_text(port + 5, end - 12, edge[2], LABEL))
        elif labels.pop(edge[0]):
            texts.append(_draw_text(xs[source] + 5, start + 12, edge[2], LABEL))
    frames = [_draw_box(box, xs[v], sum(rows[v]) / 2, sizes[v]) for v, box in enumerate(boxes)]
    return "\n".join([])
