"""How a tensor lies in memory: dense row-major, or with its channels in blocks of one vector (NCHWc)."""

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir import DimLike, dims


@dataclass(frozen=True)
class Layout:
    """Dense row-major where `block` is 1; else dim 1 of [N,C,H,W] is split: stored as [N, ceil(C/block), H, W, block].

    The lanes of a last, partly filled block are stored too; their content is undefined.
    """

    block: int = 1

    def __str__(self) -> str:
        return "dense" if self.block == 1 else f"c{self.block}"

    def stored_shape(self, shape: Sequence[DimLike]) -> tuple[DimLike, ...]:
        """The dims as they lie in memory, outermost first."""
        if self.block == 1:
            return tuple(shape)
        return (shape[0], dims.ceil_div(shape[1], self.block), *shape[2:], self.block)


DENSE = Layout()
