"""Drawings: everything is in them, nothing overlaps, and whatever the names hold, the files can be read."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from graphc.drawing import KINDS, Box, Edge, draw_dot, draw_svg
from graphc.errors import GraphError
from graphc.layered import build_net, place_nodes

SVG = "{http://www.w3.org/2000/svg}"
ROUNDING = 0.2  # pixels: the file's numbers have one decimal

HOSTILE = [
    "",
    '"',
    "\\",
    'a"b\\',
    "<b>&amp;</b>",
    "]]>",
    "a\nb\r\tc",
    "\0\x1b[31m",
    "\ud800",
    "\u202eabc",
    "名前",
    "x" * 9999,
]


@dataclass(frozen=True)
class Frame:
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: "Frame") -> bool:
        return (
            self.left < other.right - ROUNDING
            and other.left < self.right - ROUNDING
            and self.top < other.bottom - ROUNDING
            and other.top < self.bottom - ROUNDING
        )


@dataclass(frozen=True)
class Drawing:
    frames: dict[str, Frame]  # by id
    wires: list[tuple[str, list[tuple[float, float, str]]]]  # (name, [(x, y, the command that leads there)])
    page: Frame
    texts: list[str]


def read_svg(svg: str) -> Drawing:
    root = ElementTree.fromstring(svg)
    frames = {}
    for group in root.iter(f"{SVG}g"):
        if (name := group.find(f"{SVG}title")) is not None and (rect := group.find(f"{SVG}rect")) is not None:
            x, y, width, height = (float(rect.attrib[key]) for key in ("x", "y", "width", "height"))
            frames[name.text or ""] = Frame(x, y, x + width, y + height)
    wires = [
        (name.text or "", trace(path.attrib["d"]))
        for path in root.iter(f"{SVG}path")
        if (name := path.find(f"{SVG}title")) is not None
    ]
    page = Frame(0, 0, float(root.attrib["width"]), float(root.attrib["height"]))
    return Drawing(frames, wires, page, [text.text or "" for text in root.iter(f"{SVG}text")])


def trace(path: str) -> list[tuple[float, float, str]]:
    points: list[tuple[float, float, str]] = []
    for command, arguments in re.findall(r"([MVC])([^MVC]*)", path):
        numbers = [float(number) for number in arguments.split()]
        points.append((points[-1][0], numbers[0], command) if command == "V" else (*numbers[-2:], command))
    return points


def check_drawing(boxes: list[Box], edges: list[Edge]) -> Drawing:
    """Draw, and check what must hold for every drawing of boxes whose ids are printable."""
    drawing = read_svg(draw_svg(boxes, edges, "title"))
    assert drawing.frames.keys() == {box.id for box in boxes}
    for (a, frame), (b, other) in combinations(drawing.frames.items(), 2):
        assert not frame.overlaps(other), (a, b)
    page = drawing.page
    for frame in drawing.frames.values():
        assert page.left <= frame.left < frame.right <= page.right
        assert page.top <= frame.top < frame.bottom <= page.bottom
    assert len(drawing.wires) == len(edges)
    for (source, destination, label), (name, points) in zip(edges, drawing.wires, strict=True):
        assert name == f"{source} -> {destination}" + (f": {label}" if label else "")
        start, end = drawing.frames[source], drawing.frames[destination]
        assert points[0][0] == pytest.approx((start.left + start.right) / 2, abs=ROUNDING)
        assert points[0][1] == pytest.approx(start.bottom, abs=ROUNDING)
        assert end.left < points[-1][0] < end.right
        assert points[-1][1] == pytest.approx(end.top, abs=ROUNDING)
        for (x, y, _), (to_x, to_y, command) in pairwise(points):
            assert to_y >= y, "wires flow downwards"
            # A bend stays within its end points' heights; between those no box may lie, wherever it is.
            swept = Frame(x, y, to_x, to_y) if command == "V" else Frame(page.left, y, page.right, to_y)
            assert not any(swept.overlaps(frame) for frame in drawing.frames.values()), name
    return drawing


def box(name: str, kind: str = "conv") -> Box:
    return Box(name, name, (), kind)


def make_chain(names: list[str]) -> list[Edge]:
    return [(a, b, "f32[N,16,H,W]") for a, b in pairwise(names)]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Box], list[Edge]]:
    count = draw(st.integers(0, 14))
    text = st.text("abcW名 <&", max_size=20)
    boxes = [
        Box(f"n{i}", draw(text), tuple(draw(st.lists(text, max_size=3))), draw(st.sampled_from([*KINDS, "new"])))
        for i in range(count)
    ]
    pairs = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda pair: pair[0] != pair[1])
    links = draw(st.lists(pairs, max_size=30)) if count > 1 else []
    edges = [(f"n{min(pair)}", f"n{max(pair)}", draw(st.sampled_from(["", "t", "u"]))) for pair in links]
    return draw(st.permutations(boxes)), edges


@given(graphs())
def test_every_graph_is_drawn_whole(graph: tuple[list[Box], list[Edge]]) -> None:
    check_drawing(*graph)


def test_chain_is_straight() -> None:
    boxes = [Box(f"layer{i}", f"layer{i}", ("conv2d",) * (i % 3), "conv") for i in range(30)]
    drawing = check_drawing(boxes, make_chain([b.id for b in boxes]))
    assert {command for _, points in drawing.wires for *_, command in points} == {"M", "V"}
    assert drawing.texts.count("f32[N,16,H,W]") == 29


def test_skip_connections_are_straight() -> None:
    """A U-Net's: one bend away from the main line, one bend back, none between and no two crossing."""
    names = [f"layer{i}" for i in range(41)]
    skips = [(f"layer{i}", f"layer{40 - i}", "skip") for i in range(2, 18, 4)]
    drawing = check_drawing([box(name) for name in names], make_chain(names) + skips)
    lanes = []
    for name, points in drawing.wires:
        bends = [point for point in points if point[2] == "C"]
        if "skip" in name:
            assert len(bends) == 2
            lanes.append(bends[0][0])
    assert lanes == sorted(lanes, reverse=True)
    assert len(set(lanes)) == 4


def test_branches_lie_side_by_side() -> None:
    """Inception modules: no branch crosses another, so the boxes of a branch share one x, in the order given."""
    boxes, edges, before = [box("input")], [], "input"
    for module in range(9):
        for branch, length in enumerate((1, 2, 2, 2)):
            names = [before, *(f"{module}.{branch}.{i}" for i in range(length)), f"{module}.concat"]
            boxes += [box(name) for name in names[1:-1]]
            edges += make_chain(names)
        before = f"{module}.concat"
        boxes.append(box(before, "join"))
    frames = check_drawing(boxes, edges).frames
    for module in range(9):
        middles = [[(f.left + f.right) / 2 for name, f in frames.items() if name.startswith(f"{module}.{branch}.")]
                   for branch in range(4)]  # fmt: skip
        assert all(max(m) - min(m) <= ROUNDING for m in middles)
        assert [m[0] for m in middles] == sorted(m[0] for m in middles)


def test_sweeps_remove_crossings() -> None:
    edges = [(0, 4, ""), (0, 5, ""), (1, 6, ""), (2, 4, ""), (3, 6, ""), (3, 5, "")]
    net = build_net(7, edges)
    upper, lower = ({v: i for i, v in enumerate(layer)} for layer in net.layers)
    for (a, b, _), (c, d, _) in combinations(edges, 2):
        assert (upper[a] - upper[c]) * (lower[b] - lower[d]) >= 0


def test_edges_with_one_value_share_waypoints() -> None:
    chain = [(i, i + 1, "") for i in range(4)]
    assert len(build_net(5, [*chain, (0, 3, "x"), (0, 4, "x")]).above) == 5 + 3
    assert len(build_net(5, [*chain, (0, 3, "x"), (0, 4, "y")]).above) == 5 + 2 + 3


def test_bus_is_straight() -> None:
    """A DenseNet's: one value that all later layers read passes them upright, whatever leaves it on the way."""
    edges = [(f"join{i}", f"conv{i}", "x") for i in range(8)]
    edges += [(f"conv{i}", f"join{j}", "x") for j in range(8) for i in range(j)]
    wires = dict(check_drawing([box(f"{kind}{i}", kind) for i in range(8) for kind in ("join", "conv")], edges).wires)
    for i in range(6):
        assert [command for *_, command in wires[f"conv{i} -> join7: x"]].count("C") == 2


@given(graphs())
def test_long_edges_are_straight(graph: tuple[list[Box], list[Edge]]) -> None:
    """Whatever else it crosses, a link between two waypoints is upright, unless it crosses another such link."""
    number = {box.id: v for v, box in enumerate(graph[0])}
    net = build_net(len(graph[0]), [(number[a], number[b], label) for a, b, label in graph[1]])
    x = place_nodes(net, [20.0] * len(net.above), [30.0] * len(net.above))
    for upper, lower in pairwise(net.layers):
        ends = [v for u in upper if u >= net.boxes for v in net.below[u] if v >= net.boxes]
        assume(ends == [v for v in lower if v in ends])
        for v in ends:
            assert x[v] == x[net.above[v][0]]


def test_late_source_lies_above_its_use() -> None:
    names = ["a", "b", "c", "d"]
    drawing = check_drawing([box(name) for name in [*names, "late"]], [*make_chain(names), ("late", "d", "")])
    assert drawing.frames["late"].top == drawing.frames["c"].top


def test_legend_has_the_kinds_in_use() -> None:
    texts = read_svg(draw_svg([box("a", "pool"), box("b", "conv"), box("c", "wavelet")], [], "Net <1>")).texts
    assert texts == ["Net <1>", "conv", "pool", "wavelet", "a", "b", "c"]


def test_thousand_boxes() -> None:
    boxes = [box(f"n{i}") for i in range(1000)]
    edges = make_chain([b.id for b in boxes]) + [(f"n{i}", f"n{i + 2 + i % 7}", "") for i in range(0, 990, 3)]
    drawing = read_svg(draw_svg(boxes, edges, "large"))
    assert len(drawing.frames) == 1000
    assert len(drawing.wires) == len(edges)


def test_same_text_under_every_hash_seed() -> None:
    code = (
        "from graphc.drawing import *; b = [Box(f'n{i}', 't', (), f'kind{i}') for i in range(30)];"
        "e = [(f'n{i}', f'n{j}', str(i % 2)) for j in range(30) for i in range(j) if i * j % 5 == 1];"
        "print(draw_svg(b, e, 'x'), draw_dot(b, e, 'x'))"
    )
    first, second = (
        subprocess.check_output([sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    )
    assert first == second != b""


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_hostile_names(name: str) -> None:
    boxes = [Box(name, name, (name, name), name), Box("other", "other", (), "conv")]
    edges = [(name, "other", name)]
    svg = draw_svg(boxes, edges, name)
    drawing = read_svg(svg.encode().decode())
    assert len(drawing.frames) == 2
    assert len(drawing.wires) == 1
    assert max(map(len, drawing.texts)) <= 60

    dot = draw_dot(boxes, edges, name)
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", dot.encode().decode())
    assert re.fullmatch(r"digraph \{\n( +(graph|node|edge|n\d+( -> n\d+)?) \[[\w=, ]*\]\n)+\}\n", bare)


def test_names_survive() -> None:
    name = 'a "b" <c> & d \\ e'
    boxes = [Box(name, name, (), "conv")]
    assert read_svg(draw_svg(boxes, [], "x")).frames.keys() == {name}
    assert r'label="a \"b\" <c> &amp; d \\ e"' in draw_dot(boxes, [], "x")


def test_dot_has_every_box_and_edge() -> None:
    boxes = [Box("a", "A", ("one", "two"), "conv"), box("b")]
    dot = draw_dot(boxes, [("a", "b", "t"), ("a", "b", "u")], "x")
    assert r'n0 [label="A\none\ntwo", tooltip="a"' in dot
    assert re.findall(r"n0 -> n1 \[label=(.*)\]", dot) == ['"t"', '"u"']


@pytest.mark.parametrize(
    ("names", "edges", "message"),
    [
        ("abc", ["ab", "bc", "cb"], "drawing: expected no cycle, got b -> c -> b"),
        ("a", ["aa"], "drawing: expected no cycle, got a -> a"),
        ("aba", [], "drawing: expected each box once, got 'a' twice"),
        ("ab", ["ac"], "drawing: edge 'a -> c' wants a box 'c', there is none"),
    ],
)
def test_errors(names: str, edges: list[str], message: str) -> None:
    with pytest.raises(GraphError) as caught:
        draw_svg([box(name) for name in names], [(a, b, "") for a, b in edges], "x")
    assert str(caught.value) == message
