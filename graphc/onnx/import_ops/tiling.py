"""Repeating and rearranging: Expand, Tile, DepthToSpace, SpaceToDepth; and Size."""

from collections.abc import Callable

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import DimLike, dims
from graphc.onnx.reader import NodeReader
from graphc.onnx.scope import Constant
from graphc.ops.elementwise import Identity
from graphc.ops.shape import Expand, Reshape, Transpose


def read_expand(n: NodeReader) -> None:
    """Expand: to the shape that x and the given one broadcast to."""
    n.emit(Expand(tuple(n.dims(1, "the shape"))), n.value(0))


def read_tile(n: NodeReader) -> None:
    """Tile -> a dim of 1 before each that repeats, expanded and merged with it."""
    x, repeats = n.value(0), n.dims(1, "repeats")
    if len(repeats) != x.type.rank or any(isinstance(r, int) and r < 1 for r in repeats):
        raise ShapeError(f"repeats: expected {x.type.rank} positive integers, got {repeats}")
    if all(r == 1 for r in repeats):
        return n.emit(Identity(), x)
    opened: list[DimLike] = []
    repeated: list[DimLike] = []
    for d, r in zip(x.type.shape, repeats, strict=True):
        opened += [d] if r == 1 else [1, d]
        repeated += [d] if r == 1 else [r, d]
    tiles = n.step(Expand(tuple(repeated)), n.step(Reshape(tuple(opened)), x))
    return n.emit(Reshape(tuple(d * r for d, r in zip(x.type.shape, repeats, strict=True))), tiles)


def _read_block(n: NodeReader) -> int:
    size = n.integer("blocksize", 0)
    if size < 1:
        raise ShapeError(f"blocksize: expected at least 1, got {size}")
    return size


def read_depth_to_space(n: NodeReader) -> None:
    """DepthToSpace: b*b channels become a block of b*b pixels, the outer (DCR) or inner part of C (CRD) the block's."""
    x, b, mode = n.image(), _read_block(n), n.text("mode", "DCR")
    batch, c, h, w = x.type.shape
    if not isinstance(c, int) or c % (b * b) or mode not in ("DCR", "CRD"):
        raise ShapeError(f"expected channels a multiple of {b * b} and mode DCR or CRD, got {x.type} and {mode}")
    k = c // (b * b)
    if mode == "DCR":
        parts, perm = (batch, b, b, k, h, w), (0, 3, 4, 1, 5, 2)
    else:
        parts, perm = (batch, k, b, b, h, w), (0, 1, 4, 2, 5, 3)
    blocks = n.step(Transpose(perm), n.step(Reshape(parts), x))
    n.emit(Reshape((batch, k, h * b, w * b)), blocks)


def read_space_to_depth(n: NodeReader) -> None:
    """SpaceToDepth: a block of b*b pixels becomes b*b channels, the block's the outer (DCR) or inner (CRD) part."""
    x, b, mode = n.image(), _read_block(n), n.text("mode", "DCR")
    batch, c, h, w = x.type.shape
    if mode not in ("DCR", "CRD"):
        raise ShapeError(f"mode: expected DCR or CRD, got {mode}")
    perm = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    blocks = n.step(Reshape((batch, c, h // b, b, w // b, b)), x)
    n.emit(Reshape((batch, c * (b * b), h // b, w // b)), n.step(Transpose(perm), blocks))


def read_size(n: NodeReader) -> None:
    """Size: the number of elements, known now but for the symbols."""
    x = n.operand(0)
    shape = x.shape if isinstance(x, Constant) else n.value(0).type.shape
    count = np.empty((), object)
    count[()] = dims.product(shape)
    n.fold(count)


HANDLERS: dict[str, Callable[[NodeReader], None]] = {
    "Expand": read_expand,
    "Tile": read_tile,
    "DepthToSpace": read_depth_to_space,
    "SpaceToDepth": read_space_to_depth,
    "Size": read_size,
}
