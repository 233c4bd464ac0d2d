"""graphc/codegen/arithmetic.py: where native code could trap, round differently or lose a sign, it does as NumPy."""

import numpy as np
import pytest

from graphc import ops
from graphc.driver import compile
from graphc.errors import ShapeError
from graphc.ir import Array, Builder, DType, TensorType, dims


def run_native(op: ops.Elementwise, *arrays: Array) -> Array:
    """The op in code for this CPU over vectors of any length."""
    net = Builder("arithmetic")
    inputs = [net.input(f"x{i}", TensorType(DType.of(a.dtype), (dims.symbol("N"),))) for i, a in enumerate(arrays)]
    result: Array = compile(net.build(y=net.apply(op, *inputs)))(*arrays)
    return result


def check(op: ops.Elementwise, *arrays: Array) -> Array:
    """The native result, which is the reference's, bit by bit."""
    found = run_native(op, *arrays)
    np.testing.assert_array_equal(found, op.eval(*arrays))
    if found.dtype.kind == "f":
        np.testing.assert_array_equal(np.signbit(found), np.signbit(op.eval(*arrays)))
    return found


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_division_of_integers_never_traps(dtype: type[np.signedinteger]) -> None:
    limits = np.iinfo(dtype)
    values = np.array([0, 1, -1, 2, -2, 7, -7, 8, limits.max, limits.min, limits.min + 1], dtype)
    a, b = (m.ravel() for m in np.meshgrid(values, values))
    quotient = check(ops.Div(), a, b)
    rest = check(ops.Fused("fmod(x0, x1)"), a, b)
    assert quotient[(a == -7) & (b == 2)] == -3  # towards zero
    assert rest[(a == -7) & (b == 2)] == -1
    assert not quotient[b == 0].any()
    np.testing.assert_array_equal((quotient * b + rest)[b != 0], a[b != 0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_half_to_even(dtype: type[np.floating]) -> None:
    halves = np.arange(-9, 10) / 2
    huge = [2.0**22 + 0.5, 2.0**23 - 0.5, 2.0**23 + 1, 2.0**51 + 0.5, 2.0**53, 1e30, np.inf, np.nan, -0.0, -0.2, 1e-40]
    x = np.hstack([halves, huge, np.negative(huge), np.nextafter(0.5, 0)]).astype(dtype)
    check(ops.Fused("round(x0)"), x[~np.isnan(x)])
    assert np.isnan(run_native(ops.Fused("round(x0)"), np.full(3, np.nan, dtype))).all()


def test_remainder_of_floats_is_exact() -> None:
    rng = np.random.default_rng(0)
    a, b = (np.ldexp(rng.standard_normal(200), rng.integers(-60, 60, 200)).astype(np.float32) for _ in range(2))
    check(ops.Fused("fmod(x0, x1)"), a, b)


@pytest.mark.parametrize(
    ("op", "dtype", "message"),
    [
        (ops.Fused("round(x0)"), DType.I64, "round wants floats, got i64"),
        (ops.Fused("fmod(x0, x0)"), DType.BOOL, "fmod wants numbers, got bool"),
    ],
)
def test_refusals(op: ops.Elementwise, dtype: DType, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(TensorType(dtype, (3,)))
