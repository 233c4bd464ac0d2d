"""Where a dense map is what its classifier says about a window, and where it is not: next to what saw padding."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor

from graphc.geometry import Axis, Geometry, find_geometry
from graphc.ir import Dim, Graph, Value, dims
from graphc.passes.fully_convolutional import Window, padded_layers, parse_window


@dataclass(frozen=True)
class Part:
    """Along one axis, the elements that a window of the image has in a value: those from `first` up to, but without,
    `last` see no padding in the classifier, so that they are the same in a larger image. Of `count`."""

    first: int
    last: int
    count: int

    @property
    def whole(self) -> bool:
        """Whether all of them are the same."""
        return (self.first, self.last) == (0, self.count)


@dataclass(frozen=True)
class Windows:
    """How the map of a fully convolutional classifier lies over the windows that the classifier was made for.

    size, stride: element (p, q) is about the window of `size` pixels that begins at (p, q) * stride.
    map: the elements for an image of one window, (1, 1) but where a global pool was dropped or strides were.
    padded: the layers that pad. Where there are none, each element is exactly what the classifier gives.
    parts: of each value by name, the rows and the columns that a window has in it.
    beyond: how many elements at the top, left, bottom and right of any map also see beyond the edge of its image.
    """

    size: Window
    stride: Window
    map: Window
    padded: tuple[str, ...]
    parts: Mapping[str, tuple[Part, Part]]
    beyond: tuple[int, int, int, int]

    def count(self, height: int, width: int) -> tuple[int, int]:
        """The windows that lie in an image, down and across. With padding the map can have elements behind these, whose
        windows would hang over the image's edge."""
        rows, columns = (
            (n - size) // stride + 1 for n, size, stride in zip((height, width), self.size, self.stride, strict=True)
        )
        return rows, columns


def find_windows(graph: Graph) -> Windows | None:
    """For the first output of a network that takes any size; None if that is no map, or the window is not known.

    A pixel sees padding in the classifier if what it sees of the image (graphc.geometry) reaches out of the window.
    """
    images = [v.type.shape[2:] for v in graph.inputs if v.type.rank == 4]
    if "window" not in graph.meta or not any(isinstance(d, Dim) for shape in images for d in shape):
        return None
    size = parse_window(graph.meta["window"])
    native = {str(d): n for shape in images for d, n in zip(shape, size, strict=True)}
    sizes = {symbol: native.get(symbol, 1) for symbol in graph.symbols}
    places = find_geometry(graph)
    place = places.get(graph.outputs[0])
    if place is None or any(a.stride.denominator != 1 for a in place.axes):
        return None
    parts = {v.name: _part(v, g, size, sizes) for v, g in places.items() if g is not None}
    rows, columns = parts[graph.outputs[0].name]
    edges = [_beyond(axis, n, part.count) for axis, n, part in zip(place.axes, size, (rows, columns), strict=True)]
    (top, bottom), (left, right) = edges
    return Windows(
        size, (int(place.rows.stride), int(place.columns.stride)), (rows.count, columns.count),
        tuple(padded_layers(graph)), parts, (top, left, bottom, right),
    )  # fmt: skip


def _part(v: Value, place: Geometry, size: Window, sizes: Mapping[str, int]) -> tuple[Part, Part]:
    rows, columns = (
        _inner(axis, n, dims.evaluate(d, sizes)) for axis, n, d in zip(place.axes, size, v.type.shape[-2:], strict=True)
    )
    return rows, columns


def _inner(axis: Axis, size: int, count: int) -> Part:
    """The elements p of `count` for which [low + p*stride, high + p*stride) lies in the image, 0 up to `size`."""
    first = max(0, ceil(-axis.low / axis.stride))
    last = min(count, floor((size - axis.high) / axis.stride) + 1)
    return Part(first, last, count) if first < last else Part(0, 0, count)


def _beyond(axis: Axis, size: int, count: int) -> tuple[int, int]:
    """How many elements of a map see beyond the first, and the last, pixel of an image of any whole number of strides
    more than `size`, where there are `count`."""
    first = max(0, ceil(-axis.low / axis.stride))
    return first, max(0, count - (floor((size - axis.high) / axis.stride) + 1))
