"""How a loop nest is run: what crosses the lanes of a vector, which loops are tasks, what runs side by side."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from graphc.codegen.nest import Load, Nest, Reduce, Var, free_vars, stride_along, walk
from graphc.codegen.target import Target
from graphc.ir import DimLike, dims
from graphc.ops.scalar import Expr

# How many values of an outer variable, and how many vectors, a reduction computes side by side, by the number of vector
# registers. An FMA takes 4 cycles and two start in each, so 8 chains are the least that fills the pipes. With 2 vectors
# beside 8 (or 4) values, each operand loaded serves 2 FMAs or more, and loads no longer set the pace: 16 (8) sums, 2
# vectors and a broadcast fit 32 (16) registers.
COPIES = {32: (8, 6, 4, 3, 2), 16: (4, 3, 2)}
STRIPS = 2
# Up to this stride, as many contiguous loads and shuffles beat a gather, which loads lane by lane. (GFLOP/s on AVX-512,
# gathered and so: 3x3 at stride 2, 46 and 61; at stride 3, 23 and 32; but 11x11 at stride 4, 44 and 33.)
MOST_STRIDE = 3
FARTHEST = 8  # elements between lanes; beyond, each lies in a cache line of its own, or in every other one
CHUNK = 4096  # elements of a loop across lanes that make one task: 16 KiB of float32, half of a first-level cache


@dataclass(frozen=True)
class Schedule:
    """The loops `outer` are flattened into tasks; inside them, `vector` runs across lanes (None: nothing does).

    Of the outer loop `copied`, `copies` values are computed side by side, and of `vector`, `strips` vectors. If that is
    `chunked`, CHUNK elements of it are a task.
    """

    outer: tuple[Var, ...]
    vector: Var | None
    copied: Var | None
    copies: int
    strips: int
    chunked: bool

    @property
    def tasks(self) -> DimLike:
        """The number of independent parts."""
        outer = dims.product([v.extent for v in self.outer]) // self.copies
        return dims.product([outer, self.chunks])

    @property
    def chunks(self) -> DimLike:
        """Tasks that share the loop across lanes."""
        return dims.ceil_div(self.vector.extent, CHUNK) if self.chunked and self.vector is not None else 1


def make_schedule(nest: Nest, target: Target) -> Schedule:
    """Decide how `nest` runs on the vectors of `target`."""
    vector = _choose_loop(nest, target.lanes)
    position = nest.loops.index(vector) if vector else len(nest.loops)
    outer = nest.loops[: min(position, nest.parallel)]
    copied, copies = _choose_copies(nest, outer, COPIES[target.registers])
    strips = STRIPS if vector is not None and _shares_loads(nest, vector) else 1
    chunked = vector is not None and nest.parallel > position and _may_be_long(vector, position)
    return Schedule(outer, vector, copied, copies, strips, chunked)


def _may_be_long(vector: Var, position: int) -> bool:
    """Whether a loop is worth cutting: the only one, or all pixels of an image, not those of one row."""
    return position == 0 or (position < 3 and (not isinstance(vector.extent, int) or vector.extent > CHUNK))


def choose_vector(
    candidates: Sequence[Var], accesses: Sequence[Load], lanes: int, store: Load | None = None
) -> Var | None:
    """The variable to run across lanes, or None if scalar code is better than any.

    A contiguous load saves what vectors can save (+1, a store +2), one of a small stride less. Others are gathered lane
    by lane, at best even: -1 for a constant stride whose elements share cache lines, -2 else. A short loop leaves lanes
    idle.
    """

    def score(v: Var) -> float:
        if v.extent == 1:
            return -1.0
        total = 0.0
        for access in accesses:
            stride = stride_along(access.buffer, access.index, v)
            total += _saving(stride)
        if store is not None:
            total += 2 if stride_along(store.buffer, store.index, v) == 1 else -4
        return total * (min(1.0, v.extent / lanes) if isinstance(v.extent, int) and total > 0 else 1.0)

    best = max(candidates, key=score, default=None)
    return best if best is not None and score(best) >= 0 else None


def _saving(stride: int | None) -> float:
    """What vectors save in a load whose lanes lie `stride` elements apart, as a share of a contiguous one."""
    if stride is None or abs(stride) > FARTHEST:
        return -2
    return 0 if stride == 0 else 1 / stride if 1 <= stride <= MOST_STRIDE else -1


def expressions(nest: Nest) -> Iterator[Expr]:
    """Every expression of the nest."""
    for root in (*nest.index, nest.value, *((nest.where,) if nest.where else ())):
        yield from walk(root)


def _choose_loop(nest: Nest, lanes: int) -> Var | None:
    """The loop of the nest that runs across lanes; None where a reduction's variable, or nothing, does instead."""
    if any(isinstance(e, Load) for root in nest.index for e in walk(root)):
        return None  # scatter: the place of an element depends on data, so elements are stored one by one
    loads = [e for e in expressions(nest) if isinstance(e, Load)]
    chosen = choose_vector(nest.loops, loads, lanes, Load(nest.output, nest.index))
    for reduce in (e for e in expressions(nest) if isinstance(e, Reduce)):
        inside = [e for e in walk(reduce.body) if isinstance(e, Load)]
        inner = choose_vector(reduce.vars[-1:], inside, lanes)
        if chosen is not None and inner is not None and chosen in free_vars(reduce):
            gathers = any(stride_along(x.buffer, x.index, chosen) not in (0, 1) for x in inside)
            if gathers and (not isinstance(inner.extent, int) or inner.extent >= lanes):
                return None  # a dot product along memory beats gathering across it
    return chosen


def _choose_copies(nest: Nest, outer: Sequence[Var], counts: Sequence[int]) -> tuple[Var | None, int]:
    """The outer loop variable of which several values are computed at once, and how many: one whose extent divides
    evenly, and along which some reduction reuses what it loads."""
    for v in outer:
        count = next((c for c in counts if isinstance(v.extent, int) and v.extent % c == 0), 1)
        if count > 1 and _shares_loads(nest, v):
            return v, count
    return None, 1


def _shares_loads(nest: Nest, v: Var) -> bool:
    """Whether some reduction that differs along `v` loads something that does not."""
    reductions = [e for e in walk(nest.value) if isinstance(e, Reduce) and v in free_vars(e)]
    return any(isinstance(x, Load) and v not in free_vars(x) for e in reductions for x in walk(e.body))
