"""From the shapes of input arrays to the value of every symbol."""

from collections.abc import Sequence

from graphc.errors import InputError
from graphc.ir import dims
from graphc.ir.types import TensorType


def bind_sizes(inputs: Sequence[tuple[str, TensorType]], shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
    """The value of every symbol; InputError names the input that does not fit.

    A dim that is an expression (2*H) is checked, not solved: some other dim must give its symbols.
    """
    sizes: dict[str, int] = {}
    for (name, type), shape in zip(inputs, shapes, strict=True):
        if len(shape) != type.rank:
            raise InputError(f"input '{name}': expected {type}, got an array of shape {list(shape)}")
        for d, length in zip(type.shape, shape, strict=True):
            if isinstance(d, dims.Dim) and str(d).isidentifier():
                sizes.setdefault(str(d), length)
    for (name, type), shape in zip(inputs, shapes, strict=True):
        missing = type.symbols - sizes.keys()
        if missing:
            raise InputError(
                f"input '{name}': {type} leaves {', '.join(sorted(missing))} open; give it a dim of its own"
            )
        empty = any(length == 0 for d, length in zip(type.shape, shape, strict=True) if isinstance(d, dims.Dim))
        if empty or tuple(dims.evaluate(d, sizes) for d in type.shape) != tuple(shape):
            raise InputError(f"input '{name}': expected {type}, got an array of shape {list(shape)}")
    return sizes
