"""The loop-nest language: what a kernel computes, apart from how. Every op can be written in it.

A `Nest` says, for every point of its loops, which element of the output gets which value. The value is a scalar
expression (graphc/ops/scalar.py) with four more leaves: loop variables, run-time sizes, loads and reductions.

    y[n,k,p,q] = sum(c,r,s: x[n,c,p+r-1,q+s-1 else 0.0] * w[k,c,r,s])

graphc/codegen/emit.py turns a nest into vector code; graphc/codegen/lowering holds the nest of every op.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from graphc.codegen.layout import DENSE, Layout
from graphc.errors import ShapeError, UnsupportedError
from graphc.ir import Dim, DimLike, DType, TensorType, dims
from graphc.ops.scalar import Call, Expr, ExprLike, Lit, call


@dataclass(frozen=True)
class Buffer:
    """A tensor in memory, known by name; two buffers of one name are views of the same bytes.

    One that lies in the buffer `whole`, as an operand of a concat may in the result, begins `start` elements into it,
    and its images (dim 0) lie `pitch` elements apart.
    """

    name: str
    type: TensorType
    layout: Layout = DENSE
    whole: str | None = None
    start: DimLike = 0
    pitch: DimLike | None = None

    @property
    def shape(self) -> tuple[DimLike, ...]:
        """The logical dims."""
        return self.type.shape

    @property
    def stored_shape(self) -> tuple[DimLike, ...]:
        """The dims as they lie in memory, outermost first."""
        return self.layout.stored_shape(self.shape)

    @property
    def image(self) -> DimLike:
        """Elements from one image (dim 0) to the next."""
        return dims.product(self.stored_shape[1:]) if self.pitch is None else self.pitch

    @property
    def memory(self) -> str:
        """The name of what has a place in memory."""
        return self.whole or self.name

    @property
    def address(self) -> tuple[str, DimLike]:
        """Where its first element lies: what distinguishes the pointers that a kernel gets."""
        return self.memory, self.start

    def part(self, name: str, type: TensorType, channel: int) -> "Buffer":
        """The channels of this one from `channel`, the first of a block, on, as a tensor of `type`."""
        start = self.start + dims.product(self.layout.stored_shape((1, channel, *type.shape[2:])))
        return Buffer(name, type, self.layout, self.memory, start, self.image)

    def __getitem__(self, index: tuple[ExprLike, ...] | ExprLike) -> "Load":
        """The element at an index that is always inside."""
        index = index if isinstance(index, tuple) else (index,)
        return Load(self, _exprs(index))

    def get(self, *index: ExprLike, fill: float | int) -> "Load":
        """The element at `index`, or `fill` where the index is outside."""
        return Load(self, _exprs(index), fill)

    def temporary(self, name: str, type: TensorType) -> "Buffer":
        """A buffer for what lies between two nests of the op that makes this one; no value's name has a backslash."""
        return Buffer(f"{self.name}\\{name}", type)

    def stored(self) -> "Buffer":
        """The bytes of a blocked buffer as a dense one of the stored shape, partly filled blocks and all."""
        return replace(self, type=self.type.with_shape(*self.stored_shape), layout=DENSE)

    def view(self, *shape: DimLike) -> "Buffer":
        """The same bytes under another shape with as many elements; only a dense buffer has views.

        Those of a part keep its dim 0.
        """
        if self.layout != DENSE:
            raise ShapeError(f"buffer '{self.name}': expected a dense layout to view, got {self.layout}")
        if self.pitch is not None and shape[0] != self.shape[0]:
            raise ShapeError(f"buffer '{self.name}', a part: expected {self.shape[0]} images to view, got {shape[0]}")
        return replace(self, type=self.type.with_shape(*shape))


@dataclass(frozen=True)
class Var(Expr):
    """A loop variable that runs from 0 to extent - 1."""

    name: str
    extent: DimLike
    dtype: DType = field(default=DType.I64, init=False)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Size(Expr):
    """A dim that is known only when the network runs."""

    dim: Dim
    dtype: DType = field(default=DType.I64, init=False)

    def __str__(self) -> str:
        return f"[{self.dim}]"


@dataclass(frozen=True)
class Load(Expr):
    """An element of a buffer. With `fill`, an index outside the buffer is allowed and gives that number."""

    buffer: Buffer
    index: tuple[Expr, ...]
    fill: float | int | None = None

    @property
    def dtype(self) -> DType:
        return self.buffer.type.dtype

    def __str__(self) -> str:
        inner = ",".join(map(str, self.index))
        return f"{self.buffer.name}[{inner}{'' if self.fill is None else f' else {self.fill}'}]"


@dataclass(frozen=True)
class Reduce(Expr):
    """`kind` ("sum", "prod", "max" or "min") of `body` over all values of `vars`. max and min pass NaN on."""

    kind: str
    vars: tuple[Var, ...]
    body: Expr

    @property
    def dtype(self) -> DType:
        return self.body.dtype

    def __str__(self) -> str:
        return f"{self.kind}({','.join(v.name for v in self.vars)}: {self.body})"


@dataclass(frozen=True)
class Nest:
    """For all values of `loops`: output[index] = value, where `where` holds (everywhere if None).

    The loops run in the order given. The first `parallel` of them may run on several threads at once: no two of
    their points may store to the same element. A reduction is computed in the outermost loop in which its operands
    are known, so an inner loop that does not change them does not repeat it.
    """

    output: Buffer
    loops: tuple[Var, ...]
    index: tuple[Expr, ...]
    value: Expr
    where: Expr | None = None
    parallel: int = 1000  # all

    def __str__(self) -> str:
        bounds = " ".join(f"{v.name}<{v.extent}" for v in self.loops)
        target = f"{self.output.name}[{','.join(map(str, self.index))}]"
        return f"for {bounds}: {target} = {self.value}" + (f" where {self.where}" if self.where else "")


def size(dim: DimLike) -> Expr:
    """A dim as an expression."""
    return Size(dim) if isinstance(dim, Dim) else Lit(dim)


def loop_vars(names: str, shape: tuple[DimLike, ...]) -> tuple[Var, ...]:
    """One variable for each dim: `loop_vars("nchw", shape)`. `names` are cut to the rank, as far as there are any."""
    if len(shape) > len(names):
        raise UnsupportedError(f"no code generation for more than {len(names)} dims, got {len(shape)}")
    return tuple(Var(name, extent) for name, extent in zip(names, shape, strict=True))


def pointwise(output: Buffer, value: Callable[..., Expr]) -> Nest:
    """The nest that stores `value(*index)` at every index of `output`."""
    loops = loop_vars("ijklmnop"[: output.type.rank], output.shape)
    return Nest(output, loops, loops, value(*loops))


def total(body: Expr, *vars: Var) -> Expr:
    """The sum of `body` over `vars`."""
    return Reduce("sum", vars, body) if vars else body


def largest(body: Expr, *vars: Var) -> Expr:
    """The maximum of `body` over `vars`."""
    return Reduce("max", vars, body) if vars else body


def smallest(body: Expr, *vars: Var) -> Expr:
    """The minimum of `body` over `vars`."""
    return Reduce("min", vars, body) if vars else body


def to_float(x: ExprLike, like: DType = DType.F32) -> Expr:
    """An integer expression as a floating-point number."""
    return call(f"to_{like.value}", x)


def children(expr: Expr) -> tuple[Expr, ...]:
    """The direct operands of an expression."""
    match expr:
        case Call(args=args):
            return args
        case Load(index=index):
            return index
        case Reduce(body=body):
            return (body,)
    return ()


def walk(expr: Expr) -> Iterator[Expr]:
    """The expression and everything under it."""
    yield expr
    for child in children(expr):
        yield from walk(child)


def free_vars(expr: Expr) -> frozenset[Var]:
    """The loop variables that the value of `expr` depends on."""
    if isinstance(expr, Var):
        return frozenset((expr,))
    found = frozenset().union(*(free_vars(c) for c in children(expr)))
    return found - frozenset(expr.vars) if isinstance(expr, Reduce) else found


def coefficient(expr: Expr, var: Var) -> int | None:
    """How much `expr` grows when `var` grows by one; None if that is not a constant."""
    if expr == var:
        return 1
    if var not in free_vars(expr):
        return 0
    match expr:
        case Call(fn="add" | "sub" as fn, args=(a, b)):
            x, y = coefficient(a, var), coefficient(b, var)
            return None if x is None or y is None else x + y if fn == "add" else x - y
        case Call(fn="mul", args=(a, Lit(value=int() as k))) | Call(fn="mul", args=(Lit(value=int() as k), a)):
            x = coefficient(a, var)
            return None if x is None else x * k
        case Call(fn="neg", args=(a,)):
            x = coefficient(a, var)
            return None if x is None else -x
    return None


def offset(shape: tuple[DimLike, ...], index: tuple[Expr, ...]) -> Expr:
    """The row-major position of `index` in an array of this shape."""
    position: Expr = Lit(0)
    for d, i in zip(shape, index, strict=True):
        position = position * size(d) + i
    return position


def stored_offset(buffer: Buffer, index: tuple[Expr, ...]) -> Expr:
    """The position of a logical index in memory, from the buffer's first element on."""
    shape, index = buffer.stored_shape, stored_index(buffer.layout, index)
    if buffer.pitch is None:
        return offset(shape, index)
    return index[0] * size(buffer.pitch) + offset(shape[1:], index[1:])


def stored_index(layout: Layout, index: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """The place of a logical index among the stored dims."""
    if layout == DENSE:
        return index
    block = Lit(layout.block)
    outer, lane = split_channel(index[1], layout.block) or (
        call("floordiv", index[1], block),
        call("mod", index[1], block),
    )
    return (index[0], outer, *index[2:], lane)


def split_channel(channel: Expr, block: int) -> tuple[Expr, Expr] | None:
    """(b, lane) if `channel` is b * block + lane, or that and a multiple of `block`; None if that cannot be told."""
    match channel:
        case Call(fn="add", args=(Call(fn="mul", args=(b, Lit(value=n))), Var(extent=lanes) as lane)):
            return (b, lane) if n == lanes == block else None
        case Call(fn="add" | "sub" as fn, args=(e, Lit(value=int() as c))) if c % block == 0:
            found = split_channel(e, block)
            return found and (call(fn, found[0], c // block), found[1])
    return None


def stride_along(buffer: Buffer, index: tuple[Expr, ...], var: Var) -> int | None:
    """How many elements apart in memory two neighbours along `var` lie; None if that is not a constant."""
    shape = buffer.stored_shape
    total_stride = 0
    for axis, i in enumerate(stored_index(buffer.layout, index)):
        step = coefficient(i, var)
        if step == 0:
            continue
        inner = dims.product(shape[axis + 1 :]) if axis else buffer.image
        if step is None or not isinstance(inner, int):
            return None
        total_stride += step * inner
    return total_stride


def _exprs(index: tuple[ExprLike, ...]) -> tuple[Expr, ...]:
    return tuple(i if isinstance(i, Expr) else Lit(i) for i in index)
