"""graphc/codegen/arithmetic.py: where native code could trap, round differently or lose a sign, it does as NumPy."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from test_executors import LEVELS

from graphc import ops
from graphc.driver import compile
from graphc.errors import ShapeError
from graphc.ir import Array, Builder, DType, Op, TensorType, dims, f32
from graphc.ops.scalar import convert
from graphc.text import parse


def run_native(op: Op, *arrays: Array, cpu: str = "native") -> Array:
    """The op in code for this CPU over vectors of any length."""
    net = Builder("arithmetic")
    inputs = [net.input(f"x{i}", TensorType(DType.of(a.dtype), (dims.symbol("N"),))) for i, a in enumerate(arrays)]
    result: Array = compile(net.build(y=net.apply(op, *inputs)), cpu=cpu)(*arrays)
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


INTEGERS = [t for t in DType if t.is_integer]
FLOATS = ["exp(x0)", "expm1(x0)", "log(x0)", "log1p(x0)", "tanh(x0)", "erf(x0)", "sigmoid(x0)", "softplus(x0)"]


def edges(dtype: DType) -> Array:
    """The numbers at which integers of this type overflow or change their sign, and some others."""
    least, most = dtype.limits
    near = [least, least + 1, most // 2, most // 2 + 1, most - 1, most, 0, 1, 2, 3, 7, 100]
    return np.array(near + ([-1, -2, -7] if least < 0 else []), dtype.numpy)


def check_all(texts: Sequence[str], *arrays: Array) -> None:
    """Native code for all these expressions, in one network, gives the reference's results, bit by bit."""
    net = Builder("arithmetic")
    inputs = [net.input(f"x{i}", TensorType(DType.of(a.dtype), (dims.symbol("N"),))) for i, a in enumerate(arrays)]
    results = compile(net.build(**{f"y{i}": net.apply(ops.Fused(t), *inputs) for i, t in enumerate(texts)}))(*arrays)
    for text, found in zip(texts, results, strict=True):
        expected = ops.Fused(text).eval(*arrays)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected, text)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_of_every_width(dtype: DType) -> None:
    a, b = (m.ravel() for m in np.meshgrid(edges(dtype), edges(dtype)))
    infix = [f"(x0 {sign} x1)" for sign in "+-*/"]
    check_all([*infix, *(f"{fn}(x0, x1)" for fn in ("fmod", "pow", "max", "min", "lt", "ge", "eq"))], a, b)
    check_all(["abs(x0)", "-x0", "(x0 // 7)", "(x0 % 7)"], a)


@pytest.mark.parametrize("source", [t for t in DType if t.is_integer or t == DType.BOOL])
def test_integers_wrap_around_in_casts(source: DType) -> None:
    x = np.array([False, True, True]) if source == DType.BOOL else edges(source)
    check_all([f"to_{to.value}(x0)" for to in DType if not to.is_half and to != source], x)


@pytest.mark.parametrize("source", [np.float32, np.float64])
def test_floats_saturate_in_casts(source: type[np.floating]) -> None:
    limits = [float(limit) + step for to in INTEGERS for limit in to.limits for step in (-1.5, -1, -0.5, 0, 0.5, 1)]
    x = np.array([*limits, 0.9, -0.9, 3.7, -3.7, 1e30, -1e30, np.inf, -np.inf, np.nan], source)
    check_all([f"to_{to.value}(x0)" for to in INTEGERS], x)
    for to in INTEGERS:
        assert convert(x[-3:], to).tolist() == [to.limits[1], to.limits[0], 0]


@pytest.mark.parametrize("kind", [DType.F16, DType.BF16])
@pytest.mark.parametrize("cpu", LEVELS)
@np.errstate(all="ignore")  # NaN and infinity are among the halves
def test_halves_round_as_numpy(kind: DType, cpu: str) -> None:
    """All 65536 halves, and the floats halfway between two of them and next to these."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(kind.numpy)
    wide = halves.astype(np.float64)
    middle = (wide[:-1] + wide[1:])[np.isfinite(wide[:-1] + wide[1:])] / 2
    doubles = np.hstack(
        [middle, np.nextafter(middle, 0), np.nextafter(middle, np.inf), [1e300, -1e-300, 65519.99, 65520]]
    )
    for op, x in (
        (f"to_{kind.value}(x0)", doubles),
        (f"to_{kind.value}(x0)", np.hstack([doubles, wide]).astype(np.float32)),
        (f"to_{kind.value}(x0)", np.arange(-70000, 70000, 7)),
        ("to_f32(x0)", halves),
        ("to_i16(x0)", halves),
        ("to_bool(x0)", halves),
    ):
        found, expected = run_native(ops.Fused(op), x, cpu=cpu), ops.Fused(op).eval(x)
        assert found.dtype == expected.dtype
        numbers = ~np.isnan(expected.astype(np.float64))
        np.testing.assert_array_equal(~np.isnan(found.astype(np.float64)), numbers)
        bits = np.dtype(f"u{found.itemsize}")
        np.testing.assert_array_equal(found.view(bits)[numbers], expected.view(bits)[numbers], op)


def test_functions_of_doubles() -> None:
    rng = np.random.default_rng(0)
    x = np.hstack([np.ldexp(rng.standard_normal(300), rng.integers(-30, 8, 300)), [0.0, -0.0, np.inf, -np.inf, np.nan]])
    for text in FLOATS:
        found, expected = run_native(ops.Fused(text), x), ops.Fused(text).eval(x)
        np.testing.assert_allclose(found, expected, rtol=1e-15, atol=0, err_msg=text)


def test_powers_of_doubles() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 9, 200), rng.uniform(-20, 20, 200)
    np.testing.assert_allclose(run_native(ops.Pow(), a, b), a**b, rtol=1e-15)


@pytest.mark.parametrize("dtype", [DType.U8, DType.I8, DType.U64])
@pytest.mark.parametrize("op", [ops.ReduceMax((0,)), ops.ReduceMin((0,)), ops.Prod((0,)), ops.ArgMax(0)])
def test_reductions_of_integers(op: Op, dtype: DType) -> None:
    np.testing.assert_array_equal(run_native(op, edges(dtype)), op.eval(edges(dtype)))


@pytest.mark.parametrize("dtype", [DType.F32, DType.U8])
@pytest.mark.parametrize("op", [ops.ReduceMax, ops.ReduceMin, ops.Sum, ops.Prod])
def test_reductions_of_nothing(op: Callable[..., Op], dtype: DType) -> None:
    x, net = np.empty((2, 0, 3), dtype.numpy), Builder("nothing")
    v, axes = net.input("x", TensorType(dtype, x.shape)), [(1,), (0,), (0, 1, 2)]
    graph = net.build(**{f"y{i}": net.apply(op(a), v) for i, a in enumerate(axes)})
    assert str(parse(str(graph))) == str(graph)
    for a, found in zip(axes, compile(graph)(x), strict=True):
        np.testing.assert_array_equal(found, op(a).eval(x))


def test_ops_that_need_an_element_refuse_nothing() -> None:
    net = Builder("nothing")
    with pytest.raises(ShapeError, match=r"softmax 'softmax_1': expected at least one element, got %x: f32\[3,0\]"):
        net.apply(ops.Softmax(), net.input("x", f32(3, 0)))


@pytest.mark.parametrize(
    ("op", "dtype", "message"),
    [
        (ops.Fused("round(x0)"), DType.I64, "round wants floats, got i64"),
        (ops.Fused("(x0 + x0)"), DType.F16, "add wants a type to compute with, got f16: cast it to f32 first"),
        (ops.Sum(), DType.BF16, "expected numbers, got bf16"),
        (ops.Fused("fmod(x0, x0)"), DType.BOOL, "fmod wants numbers, got bool"),
    ],
)
def test_refusals(op: Op, dtype: DType, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(TensorType(dtype, (3,)))
