"""Runs loop nests with NumPy: the meaning of graphc/codegen/nest.py, to compare lowerings with the reference.

Every variable is an axis of one big grid and every expression an array over it, so a nest costs a few NumPy calls;
tests use small shapes. What the language forbids is an AssertionError here:
  * a load without `fill`, or a store, outside its buffer, even in the branch that a `select` does not take;
  * an expression whose operands would promote to another dtype than the one that it declares;
  * a nest that reads the buffer it writes and is not serial anywhere, or whose parallel loops store to one element
    twice;
  * a reduction over a loop's own variable.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.codegen.lowering import lower
from graphc.codegen.nest import Buffer, Load, Nest, Reduce, Size, Var, free_vars, walk
from graphc.ir import Array, DType, Op, TensorType, dims
from graphc.ir.sizes import bind_sizes
from graphc.ops.scalar import PRIMITIVES, Call, Expr, Lit

REDUCERS: dict[str, Callable[..., Any]] = {"sum": np.sum, "prod": np.prod, "max": np.max, "min": np.min}
GARBAGE = -987654321  # what integer buffers hold before anything is stored; float buffers hold NaN


def run_nests(nests: list[Nest], arrays: dict[str, Array], sizes: Mapping[str, int]) -> None:
    """Run the nests in order on `arrays`, which map buffer names to C-contiguous arrays and are written in place.

    A buffer that has no array yet is a temporary: it is added to `arrays`, filled with garbage. Views of one name share
    the array, and what lies in another buffer is a part of that one's.
    """
    for nest in nests:
        if nest.output.memory not in arrays:
            assert nest.output.whole is None, f"a part of what there is not: {nest}"
            arrays[nest.output.name] = make_garbage(nest.output, sizes)
        with np.errstate(all="ignore"):
            grid = _Grid(nest, arrays, sizes)
            if grid.reads_itself:
                grid.store_one_by_one()
            else:
                grid.store()


def make_garbage(buffer: Buffer, sizes: Mapping[str, int]) -> Array:
    """What a buffer holds before anything is stored."""
    shape = tuple(dims.evaluate(d, sizes) for d in buffer.shape)
    return np.full(shape, np.nan if buffer.type.dtype.is_float else GARBAGE, buffer.type.dtype.numpy)


def run_lowering(
    op: Op,
    lowering: Callable[..., Iterable[Nest]],
    *inputs: Array,
    types: Sequence[TensorType] = (),
    sizes: Mapping[str, int] | None = None,
) -> list[Array]:
    """The outputs of `op` by its loop nests, as `lowering(op, *inputs, *outputs)` yields them.

    The nests are made for `types`, whose symbols `sizes` gives, or for the constant shapes of the arrays.
    """
    types = types or [type_of(a) for a in inputs]
    xs = [Buffer(f"x{i}", t) for i, t in enumerate(types)]
    results = op.infer(*types)
    ys = [Buffer(f"y{i}", t) for i, t in enumerate(results if isinstance(results, tuple) else (results,))]
    arrays = {x.name: np.array(a, order="C") for x, a in zip(xs, inputs, strict=True)}
    arrays |= {y.name: make_garbage(y, sizes or {}) for y in ys}
    run_nests(list(lowering(op, *xs, *ys)), arrays, sizes or {})
    for x, a in zip(xs, inputs, strict=True):
        np.testing.assert_array_equal(arrays[x.name], a, err_msg=f"input {x.name} was overwritten")
    return [arrays[y.name].reshape(tuple(dims.evaluate(d, sizes or {}) for d in y.shape)) for y in ys]


def check_lowering(op: Op, *inputs: Array, types: Sequence[TensorType] = (), tolerance: float = 1e-5) -> None:
    """Assert that the loop nests of `op` compute what its reference does, for constant sizes and for those of `types`.

    Both must have the inferred types. Elements may differ by `tolerance` of themselves or of 1.
    """
    constant = [type_of(a) for a in inputs]
    inferred, expected = op.infer(*constant), op.eval(*inputs)
    inferred = inferred if isinstance(inferred, tuple) else (inferred,)
    expected = expected if isinstance(expected, tuple) else (expected,)
    assert [type_of(a) for a in expected] == list(inferred), f"the reference of {op} disagrees with its shape rule"
    for kinds in (constant, types or constant):
        sizes = bind_sizes([(str(t), t) for t in kinds], [a.shape for a in inputs])
        for got, want in zip(run_lowering(op, lower, *inputs, types=kinds, sizes=sizes), expected, strict=True):
            allowed = tolerance if np.issubdtype(want.dtype, np.floating) else 0.0
            np.testing.assert_allclose(got, want, rtol=allowed, atol=allowed, err_msg=str(op))


def type_of(array: Array) -> TensorType:
    """The type of an array, with constant dims."""
    return TensorType(DType.of(array.dtype), array.shape)


def image_type(array: Array) -> TensorType:
    """[N,C,H,W] for an image batch: only the channels are constant."""
    n, h, w = map(dims.symbol, "NHW")
    return type_of(array).with_shape(n, array.shape[1], h, w)


class _Grid:
    """One nest over the grid of its loops (first axes) and of all reduction variables (the axes behind)."""

    def __init__(
        self, nest: Nest, arrays: dict[str, Array], sizes: Mapping[str, int], point: Mapping[Var, int] | None = None
    ) -> None:
        self.nest, self.arrays, self.sizes = nest, arrays, sizes
        self.point = point or {}  # the value of each loop variable, where the nest runs one point after the other
        self.expressions = (nest.value, *nest.index, *([nest.where] if nest.where is not None else []))
        reduced = [v for e in self.expressions for r in walk(e) if isinstance(r, Reduce) for v in r.vars]
        self.axes = {v: i for i, v in enumerate(dict.fromkeys((*nest.loops, *reduced)))}
        assert len(set(nest.loops)) == len(nest.loops), f"a loop variable twice: {nest}"
        assert not set(reduced) & set(nest.loops), f"a reduction over a loop variable: {nest}"
        assert len({v.name for v in self.axes}) == len(self.axes), f"two variables of one name: {nest}"
        assert len(nest.index) == nest.output.type.rank, f"{len(nest.index)} indices into {nest.output.type}: {nest}"
        for e in self.expressions:
            assert free_vars(e) <= set(nest.loops), f"a variable that no loop binds: {nest}"
        loads = [x for e in self.expressions for x in walk(e) if isinstance(x, Load)]
        self.reads_itself = any(x.buffer.name == nest.output.name for x in loads)

    def store_one_by_one(self) -> None:
        """Run a nest that reads what it writes, in the order of its loops; the serial ones alone may meet."""
        assert self.nest.parallel < len(self.nest.loops), f"a nest reads what it writes: {self.nest}"
        shape = tuple(self.extent(v) for v in self.nest.loops)
        where = self.on_loops(self.nest.where, shape) if self.nest.where is not None else np.ones(shape, np.bool_)
        index = [self.on_loops(i, shape)[where] for i in self.nest.index]
        self.check_parallel(np.ravel_multi_index(index, self.array(self.nest.output).shape), where, shape)
        for point in np.ndindex(shape):
            _Grid(self.nest, self.arrays, self.sizes, dict(zip(self.nest.loops, point, strict=True))).store()

    def store(self) -> None:
        """Run the nest."""
        shape = tuple(self.extent(v) for v in self.nest.loops)
        where = self.on_loops(self.nest.where, shape) if self.nest.where is not None else np.ones(shape, np.bool_)
        value = self.on_loops(self.nest.value, shape)[where]
        index = [self.on_loops(i, shape)[where] for i in self.nest.index]
        array = self.array(self.nest.output)
        for i, length in zip(index, array.shape, strict=True):
            assert np.all((i >= 0) & (i < length)), f"a store outside {self.nest.output.type}: {self.nest}"
        assert value.dtype == array.dtype, f"a store of {value.dtype} to {self.nest.output.type}: {self.nest}"
        flat = np.ravel_multi_index(index, array.shape) if index else np.zeros(value.shape, np.int64)
        self.check_parallel(flat, where, shape)
        places = tuple(index) if index else np.zeros(value.shape, np.int64)
        (array if index else array.reshape(-1))[places] = value  # of equal indices the last one stays

    def check_parallel(self, flat: Array, where: Array, shape: tuple[int, ...]) -> None:
        """Assert that no element is stored from two points of the parallel loops."""
        parallel = shape[: self.nest.parallel]
        serial = int(np.prod(shape[self.nest.parallel :], dtype=np.int64))
        point = np.repeat(np.arange(int(np.prod(parallel, dtype=np.int64))), serial).reshape(shape)[where]
        pairs = np.unique(np.stack([flat, point]), axis=1)
        assert pairs.shape[1] == len(np.unique(flat)), f"parallel loops store to one element twice: {self.nest}"

    def on_loops(self, expr: Expr, shape: tuple[int, ...]) -> Array:
        """The expression at every point of the loops."""
        value = self.evaluate(expr)
        dtype = self.nest.output.type.dtype.numpy if isinstance(expr, Lit) and expr is self.nest.value else value.dtype
        value = value.reshape(value.shape[: len(shape)] if value.ndim else ()).astype(dtype)
        return np.broadcast_to(value, shape)

    def evaluate(self, expr: Expr) -> Array:
        """The expression over the grid, with an extent of 1 along the axes that it does not depend on."""
        match expr:
            case Lit(value=v):
                return np.asarray(v, expr.dtype.numpy)
            case Size(dim=d):
                return np.asarray(dims.evaluate(d, self.sizes), np.int64)
            case Var():
                shape = [1] * len(self.axes)
                if expr in self.point:
                    return np.full(shape, self.point[expr], np.int64)
                shape[self.axes[expr]] = self.extent(expr)
                return np.arange(self.extent(expr), dtype=np.int64).reshape(shape)
            case Load():
                return self.load(expr)
            case Reduce(kind=kind, vars=vars, body=body):
                value = self.evaluate(body)
                grid = np.broadcast_shapes(value.shape, *(self.evaluate(v).shape for v in vars))
                value, axes = np.broadcast_to(value, grid), tuple(self.axes[v] for v in vars)
                return np.asarray(REDUCERS[kind](value, axis=axes, keepdims=True), value.dtype)
            case Call(fn=fn, args=args):
                weak = any(not isinstance(a, Lit) for a in args)  # a number takes the dtype of what stands beside it
                operands = [a.value if weak and isinstance(a, Lit) else self.evaluate(a) for a in args]
                result = np.asarray(PRIMITIVES[fn](*operands))
                assert result.dtype == expr.dtype.numpy, f"{expr} is {result.dtype}, declared {expr.dtype.value}"
                return result
        raise AssertionError(f"no meaning for {expr!r}")

    def load(self, load: Load) -> Array:
        """The elements; outside the buffer the fill, or an AssertionError if there is none."""
        array = self.array(load.buffer)
        itself = load.buffer.name == self.nest.output.name
        assert self.point or not itself, f"a nest reads what it writes: {self.nest}"
        assert len(load.index) == array.ndim, f"{len(load.index)} indices into {load.buffer.type}: {load}"
        index = [self.evaluate(i) for i in load.index]
        inside = np.asarray(True)
        for i, length in zip(index, array.shape, strict=True):
            assert i.dtype == np.int64, f"an index of dtype {i.dtype}: {load}"
            inside = inside & (i >= 0) & (i < length)
        if load.fill is None:
            assert inside.all(), f"a load outside {load.buffer.type}: {load} in {self.nest}"
            return np.asarray(array[tuple(index)])
        clipped = tuple(np.clip(i, 0, length - 1) for i, length in zip(index, array.shape, strict=True))
        return np.where(inside, array[clipped], np.asarray(load.fill, array.dtype))

    def array(self, buffer: Buffer) -> Array:
        """The buffer's elements under its shape; a view, so that stores reach the one array of that name."""
        assert buffer.memory in self.arrays, f"{buffer.name} is read before it is written: {self.nest}"
        array = self.arrays[buffer.memory]
        assert array.flags.c_contiguous, f"the array of {buffer.name} must be C-contiguous"
        assert array.dtype == buffer.type.dtype.numpy, f"the array of {buffer.name} is {array.dtype}: {buffer.type}"
        shape = tuple(dims.evaluate(d, self.sizes) for d in buffer.shape)
        if buffer.whole is None:
            return array.reshape(shape)
        start, pitch = (dims.evaluate(d, self.sizes) for d in (buffer.start, buffer.image))
        places = start + pitch * np.arange(shape[0])[:, None] + np.arange(int(np.prod(shape[1:], dtype=int)))
        assert np.all((places >= 0) & (places < array.size)), f"{buffer.name} lies outside of {buffer.whole}"
        inner = np.empty(shape[1:], array.dtype).strides
        return np.lib.stride_tricks.as_strided(array.reshape(-1)[start:], shape, (pitch * array.itemsize, *inner))

    def extent(self, var: Var) -> int:
        """The number of values that `var` takes."""
        return 1 if var in self.point else dims.evaluate(var.extent, self.sizes)
