"""Turn a classifier of images of one size into a network that classifies every window of a larger image."""

import re

from graphc import ops
from graphc.errors import InputError, UnsupportedError
from graphc.ir import Builder, Dim, Graph, Node, dims
from graphc.passes.dense_rules import Conversion
from graphc.passes.fold_constants import fold_constants

Window = tuple[int, int]


def fully_convolutional(graph: Graph, gap: str = "window", window: Window | None = None) -> Graph:
    """The classifier as a network for images of any size, whose output is a map of scores (Long et al. 2015).

    Each pixel of the result is what the classifier gives for one window of the image, if no layer pads; `padded_layers`
    names those that do: there, a window that lies inside the image sees its neighbours where the classifier saw zeros.

    rewrite: image[N,C,h,w] -> image[N,C,H,W]
             y = flatten(x[N,c,h,w]); z = linear(y, w[K,c*h*w]) -> z = conv2d(x, w[K,c,h,w]); linear again -> 1x1 conv2d
             global pool of x[N,c,h,w] -> average_pool or max_pool with a window of (h, w) and stride 1; with gap="drop"
             -> x, so that the scores before averaging come out: a class activation map (Zhou et al. 2016)
    checks: after flattening there are only linear, elementwise and the like; nothing holds the size of the image or
            reads the whole of it otherwise. UnsupportedError names every node that does not fit

    `window` is the size (h, w) that the classifier was made for, needed where the inputs leave it open and a pool is
    global; it defaults to graph.meta["window"] ("224x224"), which the result has. Nodes and parameters keep their
    names.
    """
    if gap not in ("window", "drop"):
        raise InputError(f"gap: expected 'window' or 'drop', got {gap!r}")
    graph = fold_constants(graph)  # a weight that is computed from parameters can be reshaped, too
    size = _find_window(graph, window)
    native = {str(d): n for v in graph.inputs for d, n in zip(v.type.shape[2:], size or (), strict=False)}
    builder = Builder(graph.name, meta=graph.meta if size is None else {**graph.meta, "window": f"{size[0]}x{size[1]}"})
    builder.reserve(v.name for v in graph.values())
    conversion = Conversion(graph, builder, gap, native)
    for v in graph.inputs:
        n, c, h, w = v.type.shape
        free = [d if isinstance(d, Dim) else dims.symbol(name) for d, name in ((n, "N"), (h, "H"), (w, "W"))]
        conversion.new[v] = builder.input(v.name, v.type.with_shape(free[0], c, *free[1:]))
    for node in graph.nodes:
        conversion.add(node)
    outputs = {}
    for name, v in zip(graph.output_names, graph.outputs, strict=True):
        cell = conversion.cells.get(v)
        if cell and cell[1:] != (1, 1):
            conversion.problems.append(f"output '{name}' is {cell} flattened, which no map of pixels can be")
        if v in conversion.new or v in graph.constants:
            outputs[name] = conversion.use(v)
    if conversion.problems:
        raise UnsupportedError(f"network '{graph.name}' cannot be made fully convolutional", conversion.problems)
    return builder.build(**outputs)


def padded_layers(graph: Graph) -> list[str]:
    """The names of the layers at whose border something stands in for the pixels outside: zeros, copies, or nothing.

    Where there are none, a fully convolutional network gives exactly what the classifier gives for each window.
    """
    return [node.name for node in graph.nodes if _pads(node)]


def _pads(node: Node) -> bool:
    match node.op:
        case ops.Conv2d(padding=padding) | ops.LocallyConnected2d(padding=padding) | ops.Pad(padding=padding):
            return any(padding)
        case ops.MaxPool(window=window) | ops.MaxPoolWithIndices(window=window) | ops.MinPool(window=window):
            return not window.stays_inside
        case ops.AveragePool(window=window) | ops.L2Pool(window=window):
            return not window.stays_inside
        case ops.ConvTranspose2d(stride=stride, dilation=dilation):  # pixels outside would add to results at the border
            kernel = node.inputs[1].type.static_shape()[2:]
            return any(d * (k - 1) + 1 > s for k, s, d in zip(kernel, stride, dilation, strict=True))
    return isinstance(node.op, ops.UpsampleBilinear)


def _find_window(graph: Graph, window: Window | None) -> Window | None:
    """The size that the classifier was made for: `window`, or the metadata's, or that of its inputs; None if open."""
    if window is None and "window" in graph.meta:
        window = parse_window(graph.meta["window"])
    for v in graph.inputs:
        if v.type.rank != 4:
            raise UnsupportedError(f"input '{v.name}': expected images [N,C,H,W], got {v.type}")
        h, w = v.type.shape[2:]
        if window is None and isinstance(h, int) and isinstance(w, int):
            window = h, w
        if window and any(isinstance(d, int) and d != n for d, n in zip((h, w), window, strict=True)):
            raise InputError(f"input '{v.name}': expected images of {window[0]}x{window[1]}, got {v.type}")
    return window


def parse_window(text: str) -> Window:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise InputError(f"metadata window: expected one like 224x224, got {text!r}")
    return int(match[1]), int(match[2])
