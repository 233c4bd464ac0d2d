"""Drawing boxes and edges, flowing downwards: `draw_svg` lays them out itself, `draw_dot` leaves that to Graphviz.

Lengths are in pixels. The same arguments give the same text.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.sax.saxutils import escape

import networkx as nx

from graphc.errors import GraphError
from graphc.layered import WIRE_GAP, Net, build_net, place_nodes

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
LAYER_GAP = 34  # holds a label and an arrowhead
SLANT, WIDEST_GAP = 8, 110  # a layer gap grows by 1 for each 8 that its widest link goes sideways, up to 110
STUB = 16  # of a wire before it bends: room for a label that no bend crosses


@dataclass(frozen=True)
class Box:
    """One node of a drawing; `kind`, a key of KINDS, decides its colour."""

    id: str
    title: str
    lines: tuple[str, ...]
    kind: str


Edge = tuple[str, str, str]  # id of the source, id of the destination, label


@dataclass(frozen=True)
class _Place:
    """Where a node lies: its layer is between `ceiling` and `floor`; of that, a box takes `top` to `bottom`."""

    x: float  # of the middle
    half: float  # of the width
    ceiling: float
    top: float
    bottom: float
    floor: float


def draw_svg(boxes: Sequence[Box], edges: Sequence[Edge], title: str) -> str:
    """The text of an SVG file. A cycle, an id that occurs twice, or an edge of no box is a GraphError."""
    net = _lay_out(boxes, edges)
    sizes = [_measure_box(box) for box in boxes] + [(0.0, 0.0)] * (len(net.above) - len(boxes))
    shared = _find_shared_labels(edges)
    left = [width / 2 for width, _ in sizes]
    right = left.copy()
    for route, (source, _, label) in zip(net.routes, edges, strict=True):
        if source in shared:  # that label hangs to the right of the wire, just below the source
            right[route[0]] = max(right[route[0]], 8 + _measure(_shorten(label), LABEL))

    xs = place_nodes(net, left, right)
    drawn = max((x + r for x, r in zip(xs, right, strict=True)), default=0.0)
    width = 2 * MARGIN + max(300.0, drawn, _measure(_shorten(title), HEADING))
    head, top = _draw_head(boxes, title, width)
    places, height = _place_layers(net, [x + (width - drawn) / 2 for x in xs], sizes, top)
    ports = _place_ports(net, places)
    body = [
        f'<g fill="none" stroke="{WIRE}" stroke-width="1.4" marker-end="url(#arrow)">',
        *(_draw_wire([places[v] for v in r], p, e) for r, p, e in zip(net.routes, ports, edges, strict=True)),
        "</g>",
        *(_draw_box(box, place) for box, place in zip(boxes, places, strict=False)),
        *_draw_labels(net, places, ports, edges, shared),
    ]
    return "\n".join([*_open_svg(width, height, title), *head, *body, "</svg>"]) + "\n"


def draw_dot(boxes: Sequence[Box], edges: Sequence[Edge], title: str) -> str:
    """The text of a Graphviz file. An id that occurs twice, or an edge of no box, is a GraphError."""
    lines = [
        "digraph {",
        f'  graph [label="{_escape_dot(_shorten(title))}", labelloc=t, fontname=Helvetica, fontsize={HEADING}]',
        f'  node [shape=box, style="rounded,filled", fontname=Helvetica, fontsize={TITLE}, fontcolor="{INK}"]',
        f'  edge [fontname=Helvetica, fontsize={LABEL}, color="{WIRE}", fontcolor="{PALE_INK}"]',
    ]
    for v, box in enumerate(boxes):
        fill, border = KINDS.get(box.kind, KINDS["other"])
        text = "\\n".join(_escape_dot(_shorten(line)) for line in (box.title, *box.lines))
        lines.append(
            f'  n{v} [label="{text}", tooltip="{_escape_dot(_clean(box.id))}", fillcolor="{fill}", color="{border}"]'
        )
    for source, destination, label in _number_edges(boxes, edges):
        lines.append(f'  n{source} -> n{destination} [label="{_escape_dot(_shorten(label))}"]')
    return "\n".join([*lines, "}"]) + "\n"


def _lay_out(boxes: Sequence[Box], edges: Sequence[Edge]) -> Net:
    links = _number_edges(boxes, edges)
    try:
        return build_net(len(boxes), links)
    except nx.NetworkXUnfeasible:
        cycle = nx.find_cycle(nx.DiGraph((source, destination) for source, destination, _ in links))
        path = " -> ".join(_shorten(boxes[v].id) for v in [*(v for v, _ in cycle), cycle[0][0]])
        raise GraphError(f"drawing: expected no cycle, got {path}") from None


def _number_edges(boxes: Sequence[Box], edges: Sequence[Edge]) -> list[tuple[int, int, str]]:
    """The edges between box numbers."""
    number = {box.id: v for v, box in enumerate(boxes)}
    if len(number) < len(boxes):
        twice = next(box.id for v, box in enumerate(boxes) if number[box.id] != v)
        raise GraphError(f"drawing: expected each box once, got '{_shorten(twice)}' twice")
    for edge in edges:
        for end in edge[:2]:
            if end not in number:
                raise GraphError(f"drawing: edge '{_name_edge(edge)}' wants a box '{_shorten(end)}', there is none")
    return [(number[source], number[destination], label) for source, destination, label in edges]


# Places


def _place_layers(
    net: Net, xs: list[float], sizes: list[tuple[float, float]], top: float
) -> tuple[list[_Place], float]:
    """The place of each node, the first layer beginning at `top`, and the height of the whole picture."""
    places: dict[int, _Place] = {}
    for layer in net.layers:
        if places:
            sideways = max((abs(xs[u] - xs[v]) for v in layer for u in net.above[v]), default=0.0)
            top += LAYER_GAP + min(sideways / SLANT, WIDEST_GAP - LAYER_GAP) + (STUB if sideways else 0)
        height = max(sizes[v][1] for v in layer)
        for v in layer:
            inset = (height - sizes[v][1]) / 2 if v < net.boxes else 0.0
            places[v] = _Place(xs[v], sizes[v][0] / 2, top, top + inset, top + height - inset, top + height)
        top += height
    return [places[v] for v in range(len(xs))], top + MARGIN


def _place_ports(net: Net, places: list[_Place]) -> list[float]:
    """The x at which each edge enters its box: straight below its source if that is above the box, WIRE_GAP apart."""
    arriving = defaultdict(list)
    for e, route in enumerate(net.routes):
        arriving[route[-1]].append(e)
    ports = [0.0] * len(net.routes)
    for v, edges in arriving.items():
        source = {e: places[net.routes[e][-2]].x for e in edges}
        edges.sort(key=lambda e: source[e])
        if len(edges) == 1 and abs(source[edges[0]] - places[v].x) > places[v].half:
            ports[edges[0]] = places[v].x
            continue
        room = places[v].half - PADDING
        first, last = places[v].x - room, places[v].x + room
        gap = min(WIRE_GAP, 2 * room / len(edges))
        for i, e in enumerate(edges):
            ports[e] = max(first, min(source[e], last), ports[edges[i - 1]] + gap if i else first)
        for i, e in enumerate(reversed(edges)):
            ports[e] = min(ports[e], last - i * gap)
    return ports


# Text


def _clean(text: str) -> str:
    """One line, with U+FFFD for each character that XML, DOT or a terminal cannot show."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)


def _shorten(text: str) -> str:
    shown = _clean(text)
    return shown if len(shown) <= LONGEST_TEXT else shown[: LONGEST_TEXT - 1] + "…"


def _name_edge(edge: Edge) -> str:
    source, destination, label = map(_clean, edge)
    return f"{source} -> {destination}" + (f": {label}" if label else "")


def _escape_dot(text: str) -> str:
    """For between quotes in DOT, whose labels read backslashes and, as HTML does, entities."""
    return text.replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')


def _measure(text: str, size: int) -> float:
    """A width that the text does not exceed by much in any of FONT: the widest of them, DejaVu Sans, guided this."""

    def em(c: str) -> float:
        if unicodedata.east_asian_width(c) in "WF":
            return 1.0
        if c in "ijl.,:;'|!()[] /tfr":
            return 0.38
        return 0.95 if c in "mwMW@%" else 0.72 if c.isupper() else 0.62

    return size * sum(map(em, text))


def _measure_box(box: Box) -> tuple[float, float]:
    """Width and height."""
    widths = [1.08 * _measure(_shorten(box.title), TITLE), *(_measure(_shorten(line), LINE) for line in box.lines)]
    return max(widths) + 2 * PADDING, TITLE + LINE_HEIGHT * len(box.lines) + 2 * PADDING


def _find_shared_labels(edges: Sequence[Edge]) -> set[str]:
    """The ids of the boxes all of whose outgoing edges have one label: it is drawn once, at the box."""
    labels = defaultdict(set)
    for source, _, label in edges:
        labels[source].add(label)
    return {source for source, texts in labels.items() if len(texts) == 1}


# SVG


def _number(x: float) -> str:
    return f"{x:.1f}".removesuffix(".0")


def _draw_text(x: float, y: float, text: str, size: int, attributes: str = "") -> str:
    return f'<text x="{_number(x)}" y="{_number(y)}" font-size="{size}"{attributes}>{escape(_shorten(text))}</text>'


def _open_svg(width: float, height: float, title: str) -> list[str]:
    w, h = _number(width), _number(height)
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" '
        f'font-family="{FONT}" fill="{INK}">',
        f"<title>{escape(_clean(title))}</title>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="8" markerHeight="8" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0.5 1L7.5 4L0.5 7Z" fill="{WIRE}"/></marker></defs>',
        f'<rect width="{w}" height="{h}" fill="#ffffff"/>',
    ]


def _draw_head(boxes: Sequence[Box], title: str, width: float) -> tuple[list[str], float]:
    """The title and the legend of the kinds in use, in rows that fit the width; and where the graph may begin."""
    parts = [_draw_text(MARGIN, MARGIN + HEADING, title, HEADING, ' font-weight="600"')]
    x, y = float(MARGIN), MARGIN + HEADING + 26.0
    used = {box.kind for box in boxes}
    for kind in [k for k in KINDS if k in used] + sorted(used - KINDS.keys()):
        wide = 12 + 6 + _measure(_shorten(kind), LINE) + 16
        if x > MARGIN and x + wide > width - MARGIN:
            x, y = float(MARGIN), y + 20
        fill, border = KINDS.get(kind, KINDS["other"])
        swatch = f'width="12" height="12" rx="3" fill="{fill}" stroke="{border}"'
        parts.append(f'<rect x="{_number(x)}" y="{_number(y - 10)}" {swatch}/>')
        parts.append(_draw_text(x + 18, y, kind, LINE, f' fill="{PALE_INK}"'))
        x += wide
    return parts, y + 30


def _draw_box(box: Box, place: _Place) -> str:
    fill, border = KINDS.get(box.kind, KINDS["other"])
    wide, high = 2 * place.half, place.bottom - place.top
    radius = _number(high / 2 if box.kind in ("input", "output") else 7)
    y = place.top + PADDING + TITLE - 2
    texts = [_draw_text(place.x, y, box.title, TITLE, ' font-weight="600"')]
    texts += [
        _draw_text(place.x, y + LINE_HEIGHT * i, line, LINE, f' fill="{PALE_INK}"')
        for i, line in enumerate(box.lines, 1)
    ]
    return (
        f'<g text-anchor="middle"><title>{escape(_clean(box.id))}</title>'
        f'<rect x="{_number(place.x - place.half)}" y="{_number(place.top)}" width="{_number(wide)}" '
        f'height="{_number(high)}" rx="{radius}" fill="{fill}" stroke="{border}" stroke-width="1.2"/>'
        f"{''.join(texts)}</g>"
    )


def _draw_wire(route: list[_Place], port: float, edge: Edge) -> str:
    """Straight down through each layer, and between layers an S that begins and ends upright."""
    path = f"M{_number(route[0].x)} {_number(route[0].bottom)}"
    x = route[0].x
    for before, place in pairwise(route):
        here = port if place is route[-1] else place.x
        if here != x:
            start = before.floor + STUB
            middle = _number((start + place.ceiling) / 2)
            path += f"V{_number(start)}C{_number(x)} {middle} {_number(here)} {middle}"
            path += f" {_number(here)} {_number(place.ceiling)}"
        x = here
    path += f"V{_number(route[-1].top)}"
    return f'<path d="{path}"><title>{escape(_name_edge(edge))}</title></path>'


def _draw_labels(
    net: Net, places: list[_Place], ports: list[float], edges: Sequence[Edge], shared: set[str]
) -> list[str]:
    """Each label at the head of its edge, or one for all edges of a box just below it."""
    texts = {}
    for route, port, (source, _, label) in zip(net.routes, ports, edges, strict=True):
        if source in shared:
            at = (places[route[0]].x + 5, places[route[0]].bottom + 13)
        else:
            at = (port + 5, places[route[-1]].top - 11)
        if label:
            texts[at] = _draw_text(*at, label, LABEL)
    halo = f'fill="{PALE_INK}" stroke="#ffffff" stroke-width="3" paint-order="stroke"'
    return [f"<g {halo}>", *texts.values(), "</g>"]
