"""Loop nests that differ in their sizes alone as one function: sizes that the code need not know become arguments.

A DenseNet has a hundred elementwise nests that differ in the number of channels; compiled one by one, they took half of
its compile time.
"""

from collections.abc import Iterator
from dataclasses import replace

from graphc.codegen.nest import Load, Nest, Reduce, Var, stride_along, walk
from graphc.codegen.schedule import FARTHEST, Schedule, make_schedule
from graphc.codegen.target import Target
from graphc.ir import DimLike, dims
from graphc.ops.scalar import Call, Expr, call


def open_sizes(nest: Nest, schedule: Schedule, target: Target) -> tuple[Nest, Schedule, dict[str, int]]:
    """The nest with symbols in place of constant sizes, its schedule, and what the symbols stand for.

    rewrite: for n c<24 p q: y[n,c,p,q] = x[n,c,p,q] -> for n c<S p q: y[n,c,p,q] = x[n,c,p,q], S = 24
    checks:  no reduction, whose loops would no longer be unrolled; what runs across lanes, and its strides, stay
    """
    if schedule.copied or any(isinstance(e, Reduce) for e in walk(nest.value)):
        return nest, schedule, {}
    opened, values = _Opener(nest, schedule).open()
    again = make_schedule(opened, target)
    if _describe(opened, again) != _describe(nest, schedule) or any(s in values for s in _symbols(nest)):
        return nest, schedule, {}
    return opened, again, values


def _accesses(nest: Nest) -> Iterator[Load]:
    """Every element that the nest reads, and the one that it stores."""
    yield Load(nest.output, nest.index)
    for root in (*nest.index, nest.value, *((nest.where,) if nest.where else ())):
        yield from (e for e in walk(root) if isinstance(e, Load))


def _symbols(nest: Nest) -> Iterator[str]:
    for d in (*(v.extent for v in nest.loops), *(d for access in _accesses(nest) for d in access.buffer.shape)):
        yield from dims.symbols_of(d)


def _describe(nest: Nest, schedule: Schedule) -> tuple[object, ...]:
    """What the code's quality depends on: how each loop is run, and how far apart the lanes of each access lie."""
    vector = schedule.vector
    strides = [stride_along(a.buffer, a.index, vector) for a in _accesses(nest)] if vector else []
    near = [stride if stride is not None and abs(stride) <= FARTHEST else None for stride in strides]
    return vector and vector.name, [v.name for v in schedule.outer], schedule.chunked, near


class _Opener:
    """Replaces every constant size of a nest but 1 and that of the loop across lanes; `values` are those replaced.

    A loop has a symbol of its own, and so has a dim of a buffer that another expression than a loop variable indexes:
    then nests share code whether or not two of their sizes happen to be equal.
    """

    def __init__(self, nest: Nest, schedule: Schedule) -> None:
        self._nest, self._vector = nest, schedule.vector
        self._numbers: dict[tuple[str, DimLike], int] = {}  # of the buffers
        self._values: dict[str, int] = {}

    def open(self) -> tuple[Nest, dict[str, int]]:
        nest = self._nest
        output = self._expression(Load(nest.output, nest.index))
        assert isinstance(output, Load)
        loops = tuple(self._variable(v) for v in nest.loops)
        value, where = self._expression(nest.value), nest.where and self._expression(nest.where)
        return Nest(output.buffer, loops, output.index, value, where, nest.parallel), self._values

    def _size(self, d: DimLike, name: str) -> DimLike:
        if not isinstance(d, int) or d == 1:
            return d
        self._values[name] = d
        return dims.symbol(name)

    def _variable(self, v: Var) -> Var:
        return v if v == self._vector else Var(v.name, self._size(v.extent, f"extent_{v.name}"))

    def _expression(self, e: Expr) -> Expr:
        match e:
            case Var():
                return self._variable(e)
            case Load(buffer=buffer, index=index, fill=fill):
                number = self._numbers.setdefault(buffer.address, len(self._numbers))
                shape = [
                    self._variable(i).extent
                    if isinstance(i, Var) and i.extent == d
                    else self._size(d, f"size_{number}_{axis}")
                    for axis, (i, d) in enumerate(zip(index, buffer.shape, strict=True))
                ]
                opened = replace(buffer, type=buffer.type.with_shape(*shape))
                return Load(opened, tuple(map(self._expression, index)), fill)
            case Call(fn=fn, args=args):
                return call(fn, *map(self._expression, args))
        return e
