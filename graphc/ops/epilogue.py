"""The elementwise tail that a convolution or product computes where it stores: an expression over x0 = its result."""

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import Array, DType, TensorType, dims
from graphc.ops import scalar


def check_epilogue(epilogue: str | None, result: TensorType, extra: tuple[TensorType, ...]) -> TensorType:
    """`result`, once the epilogue's operands x1, x2, ... are known to have its type (or ShapeError)."""
    if epilogue is None and extra:
        raise ShapeError(f"expected no further inputs without an epilogue, got {len(extra)}")
    if epilogue is not None:
        scalar.check_dtypes(scalar.parse(epilogue, [t.dtype for t in (result, *extra)]))
    for t in extra:
        if t.dtype != result.dtype or t.rank != result.rank or not all(map(dims.same, t.shape, result.shape)):
            raise ShapeError(f"an epilogue operand must be {result}, got {t}")
    return result


def apply_epilogue(epilogue: str | None, y: Array, extra: tuple[Array, ...]) -> Array:
    """`epilogue` over x0 = y and x1, ... = extra."""
    if epilogue is None:
        return y
    expression = scalar.parse(epilogue, [DType.of(a.dtype) for a in (y, *extra)])
    return np.broadcast_to(scalar.evaluate(expression, (y, *extra)), y.shape).astype(y.dtype)
