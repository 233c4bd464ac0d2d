"""How a tensor lies in memory: dense row-major, or with its channels in blocks of one vector (NCHWc)."""

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir import DimLike, dims
from graphc.ops.scalar import Call, Expr, Lit, call


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

    def stored_index(self, index: Sequence[Expr]) -> tuple[Expr, ...]:
        """The place of a logical index among the stored dims."""
        if self.block == 1:
            return tuple(index)
        outer, lane = split_channel(index[1], self.block) or (
            call("floordiv", index[1], Lit(self.block)),
            call("mod", index[1], Lit(self.block)),
        )
        return (index[0], outer, *index[2:], lane)


def split_channel(channel: Expr, block: int) -> tuple[Expr, Expr] | None:
    """(b, lane) if `channel` is b * block + lane, or that and a multiple of `block`; None if that cannot be told."""
    match channel:
        case Call(fn="add", args=(Call(fn="mul", args=(b, Lit(value=n))), lane)) if n == block and _is_lane(
            lane, block
        ):
            return b, lane
        case Call(fn="add" | "sub" as fn, args=(e, Lit(value=int() as c))) if c % block == 0:
            found = split_channel(e, block)
            return found and (call(fn, found[0], c // block), found[1])
    return None


def _is_lane(e: Expr, block: int) -> bool:
    """Whether this is a loop variable that runs over the lanes of a block."""
    return getattr(e, "extent", None) == block


DENSE = Layout()
