"""What a kernel is to the rest of the compiler."""

from collections.abc import Sequence
from typing import Protocol

from llvmlite import ir

from graphc.codegen.nest import Buffer
from graphc.ir import DimLike


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
    def work(self) -> DimLike:
        """About how many scalar operations the whole takes: below a threshold, threads are not worth waking."""

    def emit(self, b: ir.IRBuilder, function: ir.Function) -> None:
        """Fill the body of the function."""
