"""How the layers of a classifier read when its image may have any size: the rules of fully_convolutional.

In the freed network, a value is the same tensor on a larger image, or a `Cell`: what was one flattened map [N, c*h*w]
is a map [N,c,P,Q], each pixel of which stands for the h x w pixels from there on. A fully connected layer is then a
convolution with an h x w kernel, whose result is cells of 1x1.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from graphc import ops
from graphc.errors import InputError, ShapeError
from graphc.ir import Builder, Graph, Node, Op, Param, TensorType, Value, dims
from graphc.ops.shape import FAR


class Cell(NamedTuple):
    """The map that a vector of c*h*w features was flattened from."""

    c: int
    h: int
    w: int

    def __str__(self) -> str:
        return f"{self.c}x{self.h}x{self.w}"


class Conversion:
    """Adds the nodes of a classifier to `builder`, one by one; `problems` has a line for each that it refuses.

    `new` and `cells` say what became of a value. `gap` is fully_convolutional's; `native` are the sizes for which the
    classifier was made, by symbol, as far as its types leave them open.
    """

    def __init__(self, graph: Graph, builder: Builder, gap: str, native: Mapping[str, int]) -> None:
        self.graph, self.builder, self.gap, self.native = graph, builder, gap, native
        self.new: dict[Value, Value] = {}
        self.cells: dict[Value, Cell] = {}
        self.problems: list[str] = []
        self._params: dict[tuple[str, tuple[int, ...], bool], Value] = {}

    def add(self, node: Node) -> None:
        """Convert one node, unless it reads the result of one that was refused."""
        if not all(v in self.new or v in self.graph.constants for v in node.inputs):
            return
        try:
            for rule in (self._pass_flattened, self._convolve, self._pool, self._map_cells, self._reshape):
                if (value := rule(node)) is not None:
                    self.new[node.outputs[0]] = value
                    return
            self.new |= zip(node.outputs, self._keep(node), strict=True)
        except ShapeError as error:
            self.problems.append(str(error))

    def _pass_flattened(self, node: Node) -> Value | None:
        """flatten(x[N,c,h,w]), or a reshape that does the same or undoes it -> x, as cells or no longer."""
        if not isinstance(node.op, ops.Flatten | ops.Reshape) or node.inputs[0] not in self.new:
            return None
        (x,), (y,) = node.inputs, node.outputs
        before, after = self._native(x).shape, self._native(y).shape
        sizes = self.cells.get(x) or [d for d in before[1:] if isinstance(d, int)]
        if len(sizes) != 3 or len(before) not in (2, 4) or after[0] != before[0]:
            return None
        cell = Cell(*sizes)
        if after[1:] == (cell.c * cell.h * cell.w,):
            self.cells[y] = cell
            return self.new[x]
        return self.new[x] if after[1:] == cell else None

    def _convolve(self, node: Node) -> Value | None:
        """linear(x[N,c*h*w], w[K,c*h*w]) -> conv2d(x[N,c,P,Q], w[K,c,h,w]); matmul too, whose weight is [c*h*w,K]."""
        cell = self.cells.get(node.inputs[0])
        if cell is None or not isinstance(node.op, ops.Linear | ops.MatMul):
            return None
        if isinstance(node.op, ops.MatMul) and node.op != ops.MatMul():  # turned: no rule keeps it
            return None
        weight = self.graph.constants.get(node.inputs[1])
        if weight is None or weight.value.type.rank != 2:
            raise ShapeError(f"{node}: expected a parameter as its weight, got {node.inputs[1]}")
        k, columns = weight.value.type.static_shape()
        if isinstance(node.op, ops.MatMul):
            op, w = ops.Conv2d(bias=False), self._declare(weight, (k := columns, *cell), transposed=True)
        else:
            op, w = ops.Conv2d(bias=node.op.bias, epilogue=node.op.epilogue), self._declare(weight, (k, *cell))
        self.cells[node.outputs[0]] = Cell(k, 1, 1)
        return self._apply(node, op, self.new[node.inputs[0]], w, *map(self.use, node.inputs[2:]))

    def _pool(self, node: Node) -> Value | None:
        """A pool over a whole h x w map -> a pool over each window of h x w; or, if gap is "drop", nothing."""
        x, y = node.inputs[0], node.outputs[0]
        if x not in self.new or x in self.cells or not self._pools_whole_map(node):
            return None
        c, h, w = self._native(x).shape[1:]
        if y.type.rank == 2 and isinstance(c, int):
            self.cells[y] = Cell(c, 1, 1)
        if self.gap == "drop" or (h, w) == (1, 1):
            return self.new[x]
        if not isinstance(h, int) or not isinstance(w, int):
            raise InputError(
                f"{node}: network '{self.graph.name}' takes images of any size; expected the one that it was made for, "
                "window=(height, width), got none"
            )
        maximum = isinstance(node.op, ops.GlobalMaxPool | ops.ReduceMax)
        return self._apply(node, (ops.MaxPool if maximum else ops.AveragePool)((h, w), (1, 1)), self.new[x])

    def _pools_whole_map(self, node: Node) -> bool:
        before = self._native(node.inputs[0])
        match node.op:
            case ops.GlobalAveragePool() | ops.GlobalMaxPool():
                return True
            case ops.Mean() | ops.ReduceMax():
                return before.rank == 4 and node.op.reduced(before) == {2, 3}
            case ops.AveragePool(window=window):  # what exporters make of a global pool for one size
                return window.kernel == before.shape[2:] and window.stays_inside
        return False

    def _map_cells(self, node: Node) -> Value | None:
        """What is done to each feature, or across the features of one pixel, is done to the channels of each cell."""
        dynamic = [v for v in node.inputs if v not in self.graph.constants]
        cells = [self.cells.get(v) for v in dynamic]
        if not any(cells):
            return None
        known = [cell for cell in cells if cell]
        first, pixels = known[0], all(cell[1:] == (1, 1) for cell in known)
        constants = [v for v in node.inputs if v in self.graph.constants and v.type.elements != 1]
        op = node.op
        match op:
            case ops.Concat(axis=1 | -1):
                fits = all(cell[1:] == first[1:] for cell in known)
                first = Cell(sum(cell.c for cell in known), *first[1:])
            case ops.Softmax(axis=1 | -1) | ops.LogSoftmax(axis=1 | -1) | ops.BatchNorm():
                fits = pixels
            case ops.Elementwise():  # a constant for each of c*h*w features would differ from pixel to pixel
                rows = all(pixels and v.type.shape[-1] == v.type.elements == first.c for v in constants)
                fits = rows and set(known) == {first}
            case _:
                fits = False
        if None in cells or not fits:
            read = ", ".join(f"%{v.name} ({cell or 'a map'})" for v, cell in zip(dynamic, cells, strict=True))
            raise ShapeError(f"{node}: cannot be done in every place of a map; it reads {read}")
        if isinstance(op, ops.Concat | ops.Softmax | ops.LogSoftmax):
            op = replace(op, axis=1)
        self.cells[node.outputs[0]] = first
        shape = (first.c, 1, 1) if isinstance(op, ops.Elementwise) else None
        return self._apply(node, op, *(self.use(v, shape if v in constants else None) for v in node.inputs))

    def _reshape(self, node: Node) -> Value | None:
        """A reshape that leaves height and width alone, as in a channel shuffle, with those of the larger image."""
        (x, *_), (y,) = node.inputs, node.outputs[:1]
        if not isinstance(node.op, ops.Reshape) or x not in self.new or x in self.cells or x.type.rank < 3:
            return None
        if self._native(x).shape[-2:] != self._native(y).shape[-2:]:
            return None
        new = self.new[x]
        return self._apply(node, ops.Reshape((*node.op.shape[:-2], *new.type.shape[-2:])), new)

    def _keep(self, node: Node) -> tuple[Value, ...]:
        """Any other node as it is, if it neither holds the size of the image nor reads the whole of it."""
        inputs = tuple(self.use(v) for v in node.inputs)
        if any(new.type != old.type for old, new in zip(node.inputs, inputs, strict=True)):
            _check_attributes(node, inputs[0].type)
        self._check_gate(node)
        with dims.assumptions() as equalities:
            outputs = self.builder.add(node.op, inputs, node.name, [v.name for v in node.outputs])
        for a, b in equalities:
            if isinstance(a, int) or isinstance(b, int):
                raise ShapeError(f"{node}: {a} must equal {b}, which fixes the size of the image")
        symbols = {s for v in inputs for s in v.type.symbols}
        for v in outputs:
            if symbols != v.type.symbols:
                lost = ", ".join(sorted(symbols - v.type.symbols))
                raise ShapeError(f"{node}: its result {v.type} does not depend on {lost}")
        return outputs

    def _check_gate(self, node: Node) -> None:
        """Refuse to combine a value for the whole image with a map, as squeeze and excitation does."""
        if isinstance(node.op, ops.Elementwise):
            shapes = [self._native(v).shape for v in node.inputs if v not in self.graph.constants and v.type.rank > 2]
            for axis in (-2, -1):
                if len({shape[axis] == 1 for shape in shapes}) > 1:
                    raise ShapeError(f"{node}: combines a value for the whole image with a map")

    def _native(self, v: Value) -> TensorType:
        return v.type.substitute(self.native)

    def _apply(self, node: Node, op: Op, *inputs: Value) -> Value:
        (y,) = self.builder.add(op, inputs, node.name, [node.outputs[0].name])
        return y

    def use(self, v: Value, shape: tuple[int, ...] | None = None) -> Value:
        """What v is now; a constant in another `shape` if one is given."""
        return self._declare(self.graph.constants[v], shape) if v in self.graph.constants else self.new[v]

    def _declare(self, param: Param, shape: tuple[int, ...] | None = None, transposed: bool = False) -> Value:
        """The parameter in this shape, under its name; a second form of it gets a name of its own."""
        name, shape = param.value.name, shape or param.value.type.static_shape()
        form = (name, shape, transposed)
        if form not in self._params:
            taken = any(other == name for other, *_ in self._params)
            self._params[form] = self.builder.param(
                self.builder.fresh(name) if taken else name,
                lambda _: (param.array.T if transposed else param.array).reshape(shape),
                param.value.type.with_shape(*shape),
                param.trainable,
            )
        return self._params[form]


# What reads or stores at indices, or at places of the image, that are data.
PLACES = (
    ops.Gather, ops.GatherElements, ops.GatherND, ops.ScatterElements, ops.ScatterND, ops.GridSample, ops.RoiAlign,
)  # fmt: skip


def _check_attributes(node: Node, x: TensorType) -> None:
    """ShapeError if an attribute holds the size of the image, or an axis to be worked on is an image axis of x."""
    match node.op:
        case ops.Reshape(shape=shape):
            raise ShapeError(f"{node}: its shape ({', '.join(map(str, shape))}) holds the size of the image")
        case ops.Softmax(axis=axis) | ops.LogSoftmax(axis=axis):
            if dims.symbols_of(x.shape[axis]):
                raise ShapeError(f"{node}: normalises over the image (axis {axis})")
        case ops.CumSum(axis=axis) | ops.Positions(axis=axis):
            if dims.symbols_of(x.shape[axis]):
                raise ShapeError(f"{node}: counts along the image (axis {axis})")
        case ops.Gather(axis=axis) | ops.GatherElements(axis=axis) | ops.ScatterElements(axis=axis) if (
            not dims.symbols_of(x.shape[axis])
        ):
            pass
        case op if isinstance(op, PLACES):
            raise ShapeError(f"{node}: its places are those of one image")
        case ops.Slice(axes=axes, starts=starts, ends=ends, steps=steps):
            for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
                begins = isinstance(start, int) and start >= 0 and step > 0
                goes_on = isinstance(end, int) and (end < 0 or end >= FAR)
                if dims.symbols_of(x.shape[axis]) and not (begins and goes_on):
                    raise ShapeError(f"{node}: {start}:{end}:{step} (axis {axis}) is one place of the image")
