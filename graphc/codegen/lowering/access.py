"""How lowerings read images: through a window, and with the spatial dims run together."""

from graphc.codegen.layout import DENSE
from graphc.codegen.nest import Buffer, Load
from graphc.ir import dims
from graphc.ops.scalar import Expr
from graphc.ops.window import Window

ExprPair = tuple[Expr, Expr]


def place(window: Window, position: ExprPair, cell: ExprPair) -> ExprPair:
    """The row and column of the image under cell (r, s) of the window at position (p, q)."""
    row, column = (
        p * stride + r * dilation - before
        for p, r, stride, dilation, before in zip(
            position, cell, window.stride, window.dilation, window.padding[:2], strict=True
        )
    )
    return row, column


def read(window: Window, x: Buffer, image: ExprPair, position: ExprPair, cell: ExprPair, fill: float) -> Load:
    """The cell (r, s) of the window at position (p, q) of image (n, c); `fill` outside."""
    index = *image, *place(window, position, cell)
    return x[index] if window.stays_inside else x.get(*index, fill=fill)


def merge_spatial(*buffers: Buffer) -> list[Buffer]:
    """[N,C,H,W] as [N,C,H*W], so that one long loop runs over it; unchanged where that saves or allows nothing."""
    if any(b.layout != DENSE or b.type.rank < 4 for b in buffers):
        return list(buffers)
    return [b.view(*b.shape[:2], dims.product(b.shape[2:])) for b in buffers]
