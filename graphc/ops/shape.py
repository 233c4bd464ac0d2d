"""Ops that move elements and compute nothing: reshape, transpose, concat, split, slice, pad, expand. Any dtype."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import ClassVar

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import Array, Builder, DimLike, Op, TensorType, Value, dims
from graphc.ops.checks import check_inputs
from graphc.ops.derive import identity_matrix, reshape, sum_to, transpose_map
from graphc.ops.elementwise import broadcast_shapes

FAR = 2**31 - 1  # no dim is this long; exporters write it, or 2**63 - 1, for "to the end"
PAD_MODES = ("constant", "reflect", "symmetric", "edge", "wrap")


def check_axis(axis: int, x: TensorType, extra: int = 0) -> int:
    """`axis` counted from the front; ShapeError unless it is one of x's dims (with `extra` = 1, or behind the last)."""
    if not -x.rank <= axis < x.rank + extra:
        raise ShapeError(f"axis must lie from {-x.rank} to {x.rank + extra - 1} for x {x}, got {axis}")
    return axis + x.rank if axis < 0 else axis


@dataclass(frozen=True)
class Flatten(Op):
    """x as a matrix [product of the dims before `axis`, product of the others]; a negative axis counts from the end."""

    name: ClassVar[str] = "flatten"
    takes_empty: ClassVar[bool] = True
    axis: int = 1

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = check_inputs(types, 1)
        axis = check_axis(self.axis, x, extra=1)
        return x.with_shape(dims.product(x.shape[:axis]), dims.product(x.shape[axis:]))

    def eval(self, *arrays: Array) -> Array:
        (x,) = arrays
        return x.reshape(int(np.prod(x.shape[: self.axis], dtype=np.int64)), -1)

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        return [reshape(b, grads[0], inputs[0].type.shape)]


@dataclass(frozen=True)
class Reshape(Op):
    """x's elements in row-major order under another `shape`; one dim may be -1: what the others leave."""

    name: ClassVar[str] = "reshape"
    takes_empty: ClassVar[bool] = True
    shape: tuple[DimLike, ...]

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = check_inputs(types, 1)
        if any(isinstance(d, int) and d < -1 for d in self.shape) or self.shape.count(-1) > 1:
            raise ShapeError(f"shape must hold dims of at least 0 and at most one -1, got {self.shape}")
        known = dims.product([d for d in self.shape if d != -1])
        shape = tuple(x.elements // known if d == -1 else d for d in self.shape)
        if not dims.same(dims.product(shape), x.elements):
            listed = ",".join(map(str, self.shape))
            raise ShapeError(f"shape [{listed}] must hold the {x.elements} elements of x {x}")
        return x.with_shape(*shape)

    def eval(self, *arrays: Array) -> Array:
        return arrays[0].reshape(tuple(dims.evaluate(d, {}) for d in self.shape))

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        return [reshape(b, grads[0], inputs[0].type.shape)]


@dataclass(frozen=True)
class Transpose(Op):
    """x with its dims in another order: dim i of y is dim perm[i] of x."""

    name: ClassVar[str] = "transpose"
    takes_empty: ClassVar[bool] = True
    perm: tuple[int, ...]

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = check_inputs(types, 1)
        if sorted(self.perm) != list(range(x.rank)):
            raise ShapeError(f"perm must hold 0 to {x.rank - 1} once each for x {x}, got {self.perm}")
        return x.with_shape(*(x.shape[i] for i in self.perm))

    def eval(self, *arrays: Array) -> Array:
        return arrays[0].transpose(self.perm)

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        return [b.apply(Transpose(tuple(self.perm.index(i) for i in range(len(self.perm)))), grads[0])]


@dataclass(frozen=True)
class Concat(Op):
    """Tensors of one rank that differ at most in dim `axis`, one behind the other along it."""

    name: ClassVar[str] = "concat"
    takes_empty: ClassVar[bool] = True
    axis: int = 1

    def infer(self, *types: TensorType) -> TensorType:
        if not types:
            raise ShapeError("expected at least 1 input, got 0")
        x = types[0]
        axis = check_axis(self.axis, x)
        known = list(x.shape)  # with the numbers that an open dim must be
        for t in types[1:]:
            rest = [i for i in range(x.rank) if i != axis]
            if t.dtype != x.dtype or t.rank != x.rank or not all(dims.same(known[i], t.shape[i]) for i in rest):
                raise ShapeError(f"expected inputs equal but for dim {axis}, got {', '.join(map(str, types))}")
            known = [b if isinstance(b, int) else a for a, b in zip(known, t.shape, strict=True)]
        length: DimLike = 0
        for t in types:
            length = length + t.shape[axis]
        return x.with_shape(*x.shape[:axis], length, *x.shape[axis + 1 :])

    def eval(self, *arrays: Array) -> Array:
        return np.concatenate(arrays, axis=self.axis)

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        return b.add(Split(self.axis, tuple(v.type.shape[self.axis] for v in inputs)), (grads[0],))


@dataclass(frozen=True)
class Split(Op):
    """x cut along `axis` into parts of these `sizes`, which add up to its length: as many results as sizes."""

    name: ClassVar[str] = "split"
    axis: int
    sizes: tuple[DimLike, ...]

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (x,) = check_inputs(types, 1)
        axis = check_axis(self.axis, x)
        positive = all(not isinstance(s, int) or s >= 1 for s in self.sizes)
        if not self.sizes or not positive or not dims.same(self.offsets()[-1], x.shape[axis]):
            raise ShapeError(f"sizes must be positive and add up to dim {axis} of x {x}, got {self.sizes}")
        return tuple(x.with_shape(*x.shape[:axis], s, *x.shape[axis + 1 :]) for s in self.sizes)

    def offsets(self) -> list[DimLike]:
        """Where each part begins, and behind the last one the sum of all."""
        return list(accumulate(self.sizes, initial=0))

    def eval(self, *arrays: Array) -> tuple[Array, ...]:
        bounds = [dims.evaluate(d, {}) for d in self.offsets()[1:-1]]
        return tuple(np.split(arrays[0], bounds, axis=self.axis))

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        return [b.apply(Concat(self.axis), *grads)]


@dataclass(frozen=True)
class Slice(Op):
    """y = x[start:end:step] along each of `axes`, by Python's rules.

    Constant starts and ends below 0 count from the end, those beyond it are clipped, and FAR or more means the end.
    A symbolic one counts from the front. A slice that leaves nothing is an error.
    """

    name: ClassVar[str] = "slice"
    axes: tuple[int, ...]
    starts: tuple[DimLike, ...]
    ends: tuple[DimLike, ...]
    steps: tuple[int, ...]

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = check_inputs(types, 1)
        if not len(self.axes) == len(self.starts) == len(self.ends) == len(self.steps) or 0 in self.steps:
            raise ShapeError(f"expected a start, an end and a step other than 0 for each axis, got {self}")
        if len({check_axis(a, x) for a in self.axes}) != len(self.axes):
            raise ShapeError(f"axes must differ, got {self.axes}")
        for d in (d for d in self.starts + self.ends if isinstance(d, dims.Dim)):
            dims.same(dims.maximum(d, 0), d)  # undecided: checked when the sizes are known
        return x.with_shape(*(length for _, _, length in self.ranges(x)))

    def ranges(self, x: TensorType) -> list[tuple[DimLike, int, DimLike]]:
        """(first index, step, length) along each dim of x.

        Only what a valid slice needs is clipped: where the length would come out 0 or less, the slice is empty anyway.
        """
        found: list[tuple[DimLike, int, DimLike]] = [(0, 1, d) for d in x.shape]
        for axis, start, end, step in zip(self.axes, self.starts, self.ends, self.steps, strict=True):
            d, start, end = x.shape[axis], _clip(start), _clip(end)
            if step > 0:
                first = dims.maximum(d + start, 0) if _below(start, 0) else start
                last = d + end if _below(end, 0) else dims.minimum(end, d) if _below(end, FAR) else d
                length = dims.ceil_div(last - first, step)
            else:
                first = d + start if _below(start, 0) else dims.minimum(start, d - 1) if _below(start, FAR) else d - 1
                last = -1 if _below(end, -FAR) else dims.maximum(d + end, -1) if _below(end, 0) else end
                length = dims.ceil_div(first - last, -step)
            if isinstance(length, int) and length < 1:
                raise ShapeError(f"{start}:{end}:{step} leaves nothing of dim {axis % x.rank} of x {x}")
            found[axis] = first, step, length
        return found

    def eval(self, *arrays: Array) -> Array:
        index = [slice(None)] * arrays[0].ndim
        for axis, start, end, step in zip(self.axes, self.starts, self.ends, self.steps, strict=True):
            index[axis] = slice(start, end, step)
        return arrays[0][tuple(index)]

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        op = SliceGradient(self.axes, self.starts, self.ends, self.steps, shape=inputs[0].type.shape)
        return [b.apply(op, grads[0])]


@dataclass(frozen=True)
class SliceGradient(Op):
    """y of this `shape` is zero, but y[start:end:step] = g along each of `axes`, as `slice` reads it."""

    name: ClassVar[str] = "slice_gradient"
    axes: tuple[int, ...]
    starts: tuple[DimLike, ...]
    ends: tuple[DimLike, ...]
    steps: tuple[int, ...]
    shape: tuple[DimLike, ...] = field(kw_only=True)

    @property
    def slice(self) -> Slice:
        """What takes g out of y."""
        return Slice(self.axes, self.starts, self.ends, self.steps)

    def infer(self, *types: TensorType) -> TensorType:
        (g,) = check_inputs(types, 1)
        expected = self.slice.infer(g.with_shape(*self.shape))
        if g.rank != expected.rank or not all(map(dims.same, g.shape, expected.shape)):
            raise ShapeError(f"expected a slice {expected}, got {g}")
        return g.with_shape(*self.shape)

    def eval(self, *arrays: Array) -> Array:
        y = np.zeros(tuple(dims.evaluate(d, {}) for d in self.shape), arrays[0].dtype)
        self.slice.eval(y)[...] = arrays[0]
        return y

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        return [b.apply(self.slice, grads[0])]


def _clip(d: DimLike) -> DimLike:
    """A constant of 64 bits as one beyond any dim, so that sums with dims have 64 bits, too."""
    return max(-FAR - 1, min(d, FAR)) if isinstance(d, int) else d


def _below(d: DimLike, bound: int) -> bool:
    """Whether a constant lies below `bound`; a symbolic dim lies from 0 to FAR."""
    return d < bound if isinstance(d, int) else bound >= FAR


@dataclass(frozen=True)
class Pad(Op):
    """x with borders: `padding` holds how much stands before each dim, then how much stands behind each dim.

    `mode` is NumPy's: "constant" (of `value`), "reflect" (the border pixel is not repeated), "symmetric" (it is),
    "edge" (it alone is) or "wrap". Borders longer than x repeat periodically, except that a "reflect" of at least the
    size of x is refused where the size is constant.
    """

    name: ClassVar[str] = "pad"
    padding: tuple[DimLike, ...]
    mode: str = "constant"
    value: float = 0.0

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = check_inputs(types, 1)
        valid = all(isinstance(p, int | dims.Dim) and dims.bounds(p)[1] >= 0 for p in self.padding)
        if len(self.padding) != 2 * x.rank or not valid:
            raise ShapeError(f"padding must be {2 * x.rank} dims of at least 0 for x {x}, got {self.padding}")
        for p in self.padding:
            dims.same(dims.maximum(p, 0), p)  # undecided: checked when the sizes are known
        if self.mode not in PAD_MODES:
            raise ShapeError(f"mode must be one of {', '.join(PAD_MODES)}, got {self.mode!r}")
        if (
            self.mode == "constant"
            and not x.dtype.is_float
            and self.value != (0 if x.dtype.is_half else int(self.value))
        ):
            wanted = "0" if x.dtype.is_half else "an integer"
            raise ShapeError(f"value must be {wanted} for x {x}, got {self.value}")
        for d, (before, after) in zip(x.shape, self.pairs(), strict=True):
            if self.mode == "reflect" and dims.bounds(d - dims.maximum(before, after))[1] <= 0:
                raise ShapeError(f"reflect padding must be less than the size {d}, got {before} and {after}")
        return x.with_shape(*(d + (b + a) for d, (b, a) in zip(x.shape, self.pairs(), strict=True)))

    def pairs(self) -> list[tuple[DimLike, DimLike]]:
        """(before, behind) for each dim."""
        rank = len(self.padding) // 2
        return list(zip(self.padding[:rank], self.padding[rank:], strict=True))

    def eval(self, *arrays: Array) -> Array:
        pairs = [(dims.evaluate(before, {}), dims.evaluate(after, {})) for before, after in self.pairs()]
        if self.mode == "constant":
            return np.pad(arrays[0], pairs, constant_values=self.value)
        return np.pad(arrays[0], pairs, mode=self.mode)  # type: ignore[call-overload,no-any-return]

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        """The middle; repeated borders are a matrix along each axis, which is what the op makes of the identity."""
        (x,), (g,) = inputs, grads
        padded = [(axis, *pair) for axis, pair in enumerate(self.pairs()) if pair != (0, 0)]
        if self.mode == "constant" and padded:
            axes, befores, _ = zip(*padded, strict=True)
            ends = tuple(b + x.type.shape[axis] for axis, b in zip(axes, befores, strict=True))
            return [b.apply(Slice(axes, befores, ends, (1,) * len(axes)), g)]
        for axis, before, after in padded:
            lines = identity_matrix(b, x.type.shape[axis], x.type.dtype)
            g = transpose_map(b, b.apply(Pad((0, before, 0, after), self.mode), lines), g, axis)
        return [g]


@dataclass(frozen=True)
class Expand(Op):
    """x repeated along its dims of 1, and along new ones before them, up to `shape`.

    As in ONNX, a dim of 1 in `shape` keeps x's: the result has the shape that x and `shape` broadcast to.
    """

    name: ClassVar[str] = "expand"
    takes_empty: ClassVar[bool] = True
    shape: tuple[DimLike, ...]

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = check_inputs(types, 1)
        if any(isinstance(d, int) and d < 0 for d in self.shape):
            raise ShapeError(f"shape must hold dims of at least 0, got {self.shape}")
        return x.with_shape(*broadcast_shapes([x.shape, self.shape]))

    def eval(self, *arrays: Array) -> Array:
        shape = tuple(dims.evaluate(d, {}) for d in self.shape)
        return np.broadcast_to(arrays[0], np.broadcast_shapes(arrays[0].shape, shape))

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        return [sum_to(b, grads[0], inputs[0].type)]
