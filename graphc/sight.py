"""Exactly which pixels of an image an element of a result sees, and which elements see a pixel: borders included.

`geometry` tells where a value's elements lie by three numbers, which hold for all of them. Here windows are followed
tap by tap for one element in an image of one size: so the gaps of dilation, the phases of transposed windows and what
padding leaves out count as they are. A set of cells is a list of products, rows x columns, and their union.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphc.errors import InputError, UnsupportedError
from graphc.geometry import Path, find_paths
from graphc.ir import Graph, Node, Value, dims
from graphc.ops.window import Window

Places = NDArray[np.int64]  # along one axis, rising
Cells = list[tuple[Places, Places]]


@dataclass(frozen=True)
class Box:
    """Rows from `top` up to, but without, `bottom`, and columns from `left` to `right`."""

    top: int
    left: int
    bottom: int
    right: int


class Sight:
    """How the elements of one value and the pixels of an image of one size see each other."""

    def __init__(self, graph: Graph, sizes: Mapping[str, int], value: Value, image: Value) -> None:
        """`sizes` gives N, H and W. Errors: UnsupportedError if an element of the value sees the whole image."""
        self._value, self._image = value, image
        dependent, steps = {image}, list[tuple[Node, list[Path] | None]]()
        for node in graph.nodes:
            if any(v in dependent for v in node.inputs):
                dependent |= set(node.outputs)
                steps.append((node, find_paths(node, dependent)))
        self._steps: list[tuple[Node, list[Path]]] = []
        needed = {value}
        for node, paths in reversed(steps):
            if needed.isdisjoint(node.outputs):
                continue
            if paths is None:
                raise UnsupportedError(f"{node.op.name} '{node.name}': its elements see the whole image, not a window")
            needed |= {path.source for path in paths}
            self._steps.insert(0, (node, paths))
        self._sizes = {v: tuple(dims.evaluate(d, sizes) for d in v.type.shape[-2:]) for v in needed | {image}}

    def box(self, y: int, x: int) -> Box | None:
        """The least box of pixels that holds all that element (y, x) sees; None if it sees none."""
        return _enclose(self._look(y, x))

    def mask(self, y: int, x: int) -> NDArray[np.bool_]:
        """Which pixels element (y, x) sees, [H,W]."""
        seen = np.zeros(self._sizes[self._image], bool)
        for rows, columns in self._look(y, x):
            seen[np.ix_(rows, columns)] = True
        return seen

    def cell(self, box: Box) -> Box | None:
        """The least box of elements that holds all those that see a pixel of `box`; None if none does."""
        self._check(self._image, box)
        seen: dict[Value, Cells] = {self._image: [(np.arange(box.top, box.bottom), np.arange(box.left, box.right))]}
        for node, paths in self._steps:
            for output in node.outputs:
                for path in paths:
                    if output in self._sizes:
                        found = self._follow(seen.get(path.source, []), path, output, False)
                        _add(seen.setdefault(output, []), found)
        return _enclose(seen.get(self._value, []))

    def _look(self, y: int, x: int) -> Cells:
        """The pixels that element (y, x) sees."""
        self._check(self._value, Box(y, x, y + 1, x + 1))
        seen: dict[Value, Cells] = {self._value: [(np.array([y]), np.array([x]))]}
        for node, paths in reversed(self._steps):
            for output in node.outputs:
                for path in paths:
                    _add(seen.setdefault(path.source, []), self._follow(seen.get(output, []), path, path.source, True))
        return seen.get(self._image, [])

    def _check(self, value: Value, box: Box) -> None:
        height, width = self._sizes[value]
        if not (0 <= box.top < box.bottom <= height and 0 <= box.left < box.right <= width):
            raise InputError(f"'{value.name}': expected cells inside {height}x{width}, got {box}")

    def _follow(self, cells: Cells, path: Path, target: Value, back: bool) -> Cells:
        """What the cells read along the path or, not `back`, by which they are read."""
        step = _read if back != path.transposed else _find_readers
        found = []
        for pair in cells:
            rows, columns = (step(pair[i], path.window, i, self._sizes[target][i]) for i in (0, 1))
            if rows.size and columns.size:
                found.append((rows, columns))
        return found


def find_sight(graph: Graph, output: str | None = None, **sizes: int) -> Sight:
    """The sight of an output, by default the first, over images of these sizes (N, H, W) of the first input."""
    names = dict(zip(graph.output_names, graph.outputs, strict=True))
    if output is not None and output not in names:
        raise InputError(f"network '{graph.name}': expected an output of {', '.join(names)}, got '{output}'")
    return Sight(graph, sizes, names[output or graph.output_names[0]], graph.inputs[0])


def _taps(window: Window, axis: int) -> Places:
    return np.arange(window.kernel[axis]) * window.dilation[axis] - window.padding[axis]


def _read(places: Places, window: Window, axis: int, size: int) -> Places:
    """The cells, of `size`, that lie under the windows at `places`."""
    found: Places = np.unique(places[:, None] * window.stride[axis] + _taps(window, axis))
    return found[(found >= 0) & (found < size)]


def _find_readers(places: Places, window: Window, axis: int, size: int) -> Places:
    """The windows, of `size`, under which some of the cells `places` lie."""
    starts = np.unique(places[:, None] - _taps(window, axis))
    found: Places = starts[starts % window.stride[axis] == 0] // window.stride[axis]
    return found[(found >= 0) & (found < size)]


def _add(cells: Cells, more: Iterable[tuple[Places, Places]]) -> None:
    """Add products to a union, without those that lie in others: paths that join mostly see one inside the other."""
    for new in more:
        if any(_holds(old, new) for old in cells):
            continue
        cells[:] = [*(old for old in cells if not _holds(new, old)), new]


def _holds(a: tuple[Places, Places], b: tuple[Places, Places]) -> bool:
    return all(np.isin(b[i], a[i], assume_unique=True).all() for i in (0, 1))


def _enclose(cells: Cells) -> Box | None:
    if not cells:
        return None
    ends = [(min(p[i][0] for p in cells), max(p[i][-1] for p in cells) + 1) for i in (0, 1)]
    return Box(int(ends[0][0]), int(ends[1][0]), int(ends[0][1]), int(ends[1][1]))
