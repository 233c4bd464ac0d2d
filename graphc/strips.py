"""Which rows the tiles of a strip pass on: one tile computes what the one above it has not, and no row twice.

A tile sees the image up to a multiple of `align`. Of a value with stride s it then knows the rows before end/s -
behind: a window of extent e, stride t and leading padding b needs rows up to p*t + e - b for its element p, so `behind`
becomes ceil((behind + e - b) / t) - 1, and through a transposed window behind*t + b; or more, if padding cuts off more
rows at the end of a tile. Winograd's kernel computes m rows from all that they see together, so there it is rounded up
to a multiple of m. The next tile goes on from there, and reads rows of the inputs from end/s - needed on; where a value
has several readers, the first row counts.

What looks through a window is computed in part. What is computed pixel by pixel is computed anew wherever it is needed:
that costs no more than to carry it. So is what the reader of its result may compute (codegen/absorbing.py): then there
are no rows of it to carry.
"""

from collections.abc import Mapping
from fractions import Fraction
from math import ceil, floor

from graphc import ops
from graphc.codegen.absorbing import may_be_absorbed
from graphc.codegen.blocking import CONVOLUTIONS
from graphc.codegen.carrying import OWN, Carry, Rows
from graphc.geometry import PIXEL, Path
from graphc.halos import Cut, count_together, follow_back, look_at
from graphc.ir import Dim, Graph, Node, Value
from graphc.runtime.tiling import StripRule

# Their results are places in a tile, which are others in the next one
PLACES = (ops.MaxPoolWithIndices, ops.MaxUnpool)
ROWS = 0  # the axis along which strips run


def find_carry(graph: Graph, winograd: bool = True) -> Carry | None:
    """What the tiles of a strip pass on; None where images are not cut, or each tile must stand alone.

    `graph` is what is compiled, after all passes; `winograd` whether kernels may be Winograd's.
    """
    cut = look_at(graph)
    if isinstance(cut, str) or any(isinstance(node.op, PLACES) for node, _ in cut.steps):
        return None
    height = cut.image.type.shape[2]
    images = all(v.type.rank == 4 for v in graph.outputs)
    if not images or not isinstance(height, Dim) or any(s.startswith(OWN) for s in graph.symbols):
        return None
    behind = _find_behind(cut, winograd)
    needed = _find_needed(cut, graph, behind)
    align = cut.find_align(ROWS, winograd)
    pixels = [cut.strides[v][ROWS] * rows for v, rows in needed.items()]
    overlap = ceil(max(Fraction(cut.find_least(ROWS, winograd)), *pixels) / align) * align
    carried = {v for node, paths in cut.steps if _in_part(graph, node, paths) for v in node.outputs}
    rows = {
        v: Rows(cut.strides[v][ROWS], behind[v], needed[v], v in carried)
        for v in needed if v.type.rank == 4
    }  # fmt: skip
    return Carry(height, align, overlap, rows)


def make_strip_rule(graph: Graph, carry: Carry) -> StripRule:
    """What a run must know of strips."""
    late = {name: carry.rows[v].behind for name, v in zip(graph.output_names, graph.outputs, strict=True)}
    return StripRule(carry.overlap, late)


def _in_part(graph: Graph, node: Node, paths: list[Path]) -> bool:
    """Whether a node is computed for those rows alone that are not known, and has a place where they could be kept."""
    if may_be_absorbed(graph, node):
        return False
    return isinstance(node.op, CONVOLUTIONS) or any(p.window != PIXEL or p.transposed for p in paths)


def _find_behind(cut: Cut, winograd: bool) -> Mapping[Value, int]:
    behind, reach = {cut.image: 0}, cut.find_reach(ROWS)
    for node, paths in cut.steps:
        m = count_together(node, ROWS) if winograd else 1
        rows = max(*(_follow(p, behind[p.source]) for p in paths), *(floor(-reach[v]) for v in node.outputs))
        behind |= dict.fromkeys(node.outputs, ceil(Fraction(rows, m)) * m)
    return behind


def _follow(path: Path, behind: int) -> int:
    """`behind` of the result, from that of the input."""
    extent, stride, before = (x[ROWS] for x in (path.window.extent, path.window.stride, path.window.padding))
    if path.transposed:
        return behind * stride + before
    return ceil(Fraction(behind + extent - before, stride)) - 1


def _find_needed(cut: Cut, graph: Graph, behind: Mapping[Value, int]) -> Mapping[Value, int]:
    needed = {v: behind[v] for v in graph.outputs}
    for node, paths in reversed(cut.steps):
        begins = [behind[v] if _in_part(graph, node, paths) else needed[v] for v in node.outputs if v in needed]
        for path in paths if begins else ():
            low, _ = follow_back(path, ROWS, max(begins), 0)
            needed[path.source] = max(needed.get(path.source, behind[path.source]), low)
    return needed
