"""Resizing: what the definitions say, pixel by pixel, and loop nests that do what the reference does."""

from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nest_interpreter import run_lowering

from graphc.codegen.lowering import resize as nests
from graphc.codegen.nest import Nest
from graphc.errors import ShapeError
from graphc.ir import Array, Op, TensorType, dims, f32, parse_type
from graphc.ops.resize import BedOfNails, UpsampleBilinear, UpsampleNearest

sides, scales = st.integers(1, 9), st.tuples(st.integers(1, 4), st.integers(1, 4))
H, W = map(dims.symbol, "HW")
new_sizes = st.none() | st.tuples(st.integers(1, 12), st.integers(1, 12)) | st.just((H * 3 + 1, (W + 1) // 2))


def draw_image(h: int, w: int) -> Array:
    return np.random.default_rng(h * 10 + w).standard_normal((2, 3, h, w)).astype(np.float32)


def check(op: Op, lowering: Callable[..., Iterator[Nest]], x: Array, tolerance: float) -> Array:
    """The result by the reference, once its type is what `infer` says and the loop nests agree."""
    type, sizes = f32("N", 3, "H", "W"), {"N": 2, "H": x.shape[2], "W": x.shape[3]}
    y, inferred = op.bind(sizes).eval(x), op.infer(type)
    assert isinstance(y, np.ndarray)
    assert isinstance(inferred, TensorType)
    assert inferred.substitute(sizes) == f32(*y.shape)
    (found,) = run_lowering(op, lowering, x, types=[type], sizes=sizes)
    np.testing.assert_allclose(found, y, rtol=0, atol=tolerance)
    return y


@given(sides, sides, scales, new_sizes)
def test_nearest(h: int, w: int, scale: tuple[int, int], size: tuple[dims.DimLike, dims.DimLike] | None) -> None:
    x = draw_image(h, w)
    y = check(UpsampleNearest(scale, size), nests.lower_upsample_nearest, x, 0)
    p, q = y.shape[2:]
    for i in range(p):
        for j in range(q):
            np.testing.assert_array_equal(y[:, :, i, j], x[:, :, int(Fraction(i * h, p)), int(Fraction(j * w, q))])


def interpolate(x: Array, place: Fraction) -> Array:
    """x between the elements along its last dim, in float64."""
    i = int(place)
    return np.asarray(x[..., i] + (x[..., min(i + 1, x.shape[-1] - 1)] - x[..., i]) * float(place - i))


@given(sides, sides, scales, new_sizes, st.booleans())
def test_bilinear(
    h: int, w: int, scale: tuple[int, int], size: tuple[dims.DimLike, dims.DimLike] | None, align_corners: bool
) -> None:
    x = draw_image(h, w)
    y = check(UpsampleBilinear(scale, size, align_corners), nests.lower_upsample_bilinear, x, 1e-6)

    def place(i: int, old: int, new: int) -> Fraction:
        if align_corners:
            return Fraction(i * (old - 1), max(new - 1, 1))
        return max((i + Fraction(1, 2)) * old / new - Fraction(1, 2), Fraction(0))

    p, q = y.shape[2:]
    columns = np.stack([interpolate(x.astype(np.float64), place(j, w, q)) for j in range(q)], axis=2)
    expected = np.stack([interpolate(columns, place(i, h, p)) for i in range(p)], axis=2)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-6)


def test_bilinear_keeps_float64() -> None:
    x = draw_image(3, 4).astype(np.float64)
    y = UpsampleBilinear((3, 2)).eval(x)
    assert y.dtype == np.float64
    found = run_lowering(UpsampleBilinear((3, 2)), nests.lower_upsample_bilinear, x)
    np.testing.assert_allclose(found[0], y, rtol=0, atol=1e-14)


def test_bilinear_by_hand() -> None:
    x = np.array([[[[0, 4]]]], np.float32)
    assert UpsampleBilinear((1, 2)).eval(x).tolist() == [[[[0, 1, 3, 4]]]]
    assert UpsampleBilinear((1, 2), align_corners=True).eval(x)[0, 0, 0, 1] == pytest.approx(4 / 3, abs=1e-6)


@given(sides, sides, scales)
def test_bed_of_nails(h: int, w: int, scale: tuple[int, int]) -> None:
    x = draw_image(h, w)
    y = check(BedOfNails(scale), nests.lower_bed_of_nails, x, 0)
    np.testing.assert_array_equal(y[:, :, :: scale[0], :: scale[1]], x)
    assert np.count_nonzero(y) == np.count_nonzero(x)


@pytest.mark.parametrize(
    ("op", "type", "message"),
    [
        (UpsampleNearest(), "f32[N,C,H]", r"expected a float image batch \[N,C,H,W\] .*, got f32\[N,C,H\]"),
        (UpsampleNearest((2, 0)), "f32[N,3,H,W]", r"scale must be 2 integers of at least 1, got \(2, 0\)"),
        (UpsampleBilinear(size=(4, 0)), "f32[N,3,H,W]", r"size must be 2 positive dims, got \(4, 0\)"),
        (BedOfNails((1, -1)), "f32[N,3,H,W]", r"scale must be 2 integers of at least 1, got \(1, -1\)"),
        (BedOfNails(), "i64[N,3,H,W]", "expected a float image batch"),
    ],
)
def test_refusals(op: Op, type: str, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(parse_type(type))
