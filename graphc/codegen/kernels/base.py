"""What a kernel is to the rest of the compiler."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from llvmlite import ir

from graphc.codegen.nest import Buffer
from graphc.ir import DimLike, dims


@dataclass(frozen=True)
class Bands:
    """How the tasks of a kernel follow the rows of its result: [outer, count, inner], where `count` are the bands.

    Of units that are `unit` rows high, `across` to a row of units, a band has `size`, and the next band the next ones;
    the first `longer` bands have one more. Behind all tasks there may be some that have `shared` the last one.
    """

    outer: DimLike
    count: DimLike
    inner: DimLike
    unit: int = 1
    across: DimLike = 1
    size: DimLike = 1
    longer: DimLike = 0
    shared: DimLike = 0

    @property
    def tasks(self) -> DimLike:
        """All of them."""
        return dims.product([self.outer, self.count, self.inner]) + self.shared

    def map(self, change: Callable[[DimLike], DimLike]) -> "Bands":
        """The same with other dims."""
        outer, count, inner = map(change, (self.outer, self.count, self.inner))
        across, size, longer, shared = map(change, (self.across, self.size, self.longer, self.shared))
        return Bands(outer, count, inner, self.unit, across, size, longer, shared)

    def cut(self, rows: tuple[DimLike, DimLike]) -> tuple[DimLike, DimLike]:
        """The first band that has results in these rows, and how many there are."""
        begin, end = rows
        first = self._find(dims.floor_div(begin, self.unit) * self.across)
        # up to the last unit of the last row
        units = (dims.floor_div(end - 1, self.unit) + 1) * self.across
        last = dims.minimum(self._find(units - 1), self.count - 1)
        return first, dims.maximum(0, last + 1 - first)

    def _find(self, unit: DimLike) -> DimLike:
        """The band that has this unit."""
        if self.longer == 0:
            return dims.floor_div(unit, self.size)
        return dims.maximum(dims.floor_div(unit, self.size + 1), dims.floor_div(unit - self.longer, self.size))


class Kernel(Protocol):
    """Code for one piece of work: `void kernel(ptr buffers..., i64 sizes..., i64 begin, i64 end, ptr scratch)`.

    The work falls into `tasks` independent parts, numbered from 0; a call does begin..end-1. How it falls depends
    on the sizes alone, never on the number of threads. Kernels with equal keys are one function.
    """

    name: str  # its emitter, its symbol, its profile row and its line in a dump
    reason: str  # why this kernel was chosen

    @property
    def key(self) -> str:
        """Everything that the code depends on, with buffers and symbolic dims renamed in order."""

    @property
    def buffers(self) -> Sequence[Buffer]:
        """The operands, the output first; none may overlap another."""

    @property
    def sizes(self) -> Sequence[DimLike]:
        """The dims that the code needs as arguments."""

    @property
    def scratch(self) -> int:
        """Bytes that one thread writes down for itself; `scratch` is aligned to 64 and holds anything at first."""

    @property
    def tasks(self) -> DimLike:
        """The number of parts."""

    @property
    def bands(self) -> Bands | None:
        """How the tasks follow the rows of the result; None if each may write anywhere."""

    @property
    def work(self) -> DimLike:
        """About how many scalar operations the whole takes: below a threshold, threads are not worth waking."""

    def emit(self, b: ir.IRBuilder, function: ir.Function) -> None:
        """Fill the body of the function."""
