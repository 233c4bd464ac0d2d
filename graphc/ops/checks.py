"""Checks that the shape rules of several ops share. Each raises ShapeError with what was expected and what came."""

from graphc.errors import ShapeError
from graphc.ir import TensorType


def check_inputs(types: tuple[TensorType, ...], count: int) -> tuple[TensorType, ...]:
    """`types`, if there are `count`."""
    if len(types) != count:
        raise ShapeError(f"expected {count} input{'s' * (count != 1)}, got {len(types)}")
    return types


def check_image(x: TensorType) -> int:
    """x is a float [N,C,H,W] with a constant number of channels, which is returned."""
    if x.rank != 4 or not x.dtype.is_float or not isinstance(x.shape[1], int):
        raise ShapeError(f"expected a float image batch [N,C,H,W] with constant C, got {x}")
    return x.shape[1]


MOST = 2**31 - 1  # as sizes have: products of two then fit 64 bits


def check_integers(name: str, values: tuple[int, ...], length: int, least: int) -> None:
    """`values` are `length` integers of at least `least`, and no larger than a size can be."""
    if len(values) != length or not all(isinstance(v, int) and v >= least for v in values):
        raise ShapeError(f"{name} must be {length} integers of at least {least}, got {values}")
    if max(values, default=0) > MOST:
        raise ShapeError(f"{name} must be {length} integers of at most {MOST}, got {values}")
