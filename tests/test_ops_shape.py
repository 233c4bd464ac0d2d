"""Ops that move elements: shapes, values, refusals, and loop nests that do what the reference does."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nest_interpreter import run_lowering

from graphc.codegen.layout import Layout
from graphc.codegen.lowering import shape as nests
from graphc.codegen.nest import Nest
from graphc.errors import ShapeError
from graphc.ir import Array, DType, Op, TensorType, dims, f32, parse_type
from graphc.ops.shape import PAD_MODES, Concat, Flatten, Pad, Reshape, Slice, Split, Transpose

N, H, W = map(dims.symbol, "NHW")
INT_MAX, INT64_MAX = 2**31 - 1, 2**63 - 1
sides = st.integers(1, 6)


def count_up(*shape: int) -> Array:
    """0, 1, 2, ...: every element tells where it came from."""
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)


Lowering = Callable[..., Iterator[Nest]]


def check(op: Op, lowering: Lowering, *inputs: tuple[TensorType, Array], **sizes: int) -> list[Array]:
    """The outputs by the reference, once their types are what `infer` says and the loop nests agree."""
    types, arrays = zip(*inputs, strict=True)
    inferred, expected = op.infer(*types), op.bind(sizes).eval(*arrays)
    results = list(expected) if isinstance(expected, tuple) else [expected]
    found = run_lowering(op, lowering, *arrays, types=types, sizes=sizes)
    for type, a, b in zip(inferred if isinstance(inferred, tuple) else [inferred], results, found, strict=True):
        assert type.substitute(sizes) == TensorType(DType.of(a.dtype), a.shape)
        np.testing.assert_array_equal(a, b)
    return results


def image(n: int, c: int, h: int, w: int, dtype: str = "f32") -> tuple[TensorType, Array]:
    type = parse_type(f"{dtype}[N,{c},H,W]")
    return type, count_up(n, c, h, w).astype(type.dtype.numpy)


@given(sides, sides, sides, sides, st.integers(-4, 4))
def test_flatten(n: int, c: int, h: int, w: int, axis: int) -> None:
    (y,) = check(Flatten(axis), nests.lower_reshape, image(n, c, h, w), N=n, H=h, W=w)
    assert y.shape[0] == np.prod((n, c, h, w)[:axis])


@pytest.mark.parametrize("shape", [(-1,), (N, -1), (N, 6, H * W), (3, N, -1, H), (H, W, N, 2, 3), (N * H, 6 * W)])
def test_reshape(shape: tuple[dims.DimLike, ...]) -> None:
    (y,) = check(Reshape(shape), nests.lower_reshape, image(2, 6, 3, 5), N=2, H=3, W=5)
    np.testing.assert_array_equal(y.ravel(), count_up(y.size))


def test_reshape_infers_the_open_dim() -> None:
    assert Reshape((N, -1)).infer(f32("N", 4, "H", "W")) == f32("N", "4*H*W")
    assert Reshape((-1, 2)).infer(f32(3, 4)) == f32(6, 2)
    assert Reshape(()).infer(f32(1, 1)) == f32()


def test_reshape_notes_what_it_cannot_prove() -> None:
    with dims.assumptions() as assumed:
        Reshape((N, 2, -1)).infer(f32("N", "H"))
    ((a, b),) = assumed
    assert dims.evaluate(a - b, {"N": 3, "H": 4}) == 0
    assert dims.evaluate(a - b, {"N": 3, "H": 5}) != 0


def blocked(lowering: Lowering) -> Lowering:
    """The lowering for buffers in blocks of channels, which have no views; the interpreter looks at no layout."""
    return lambda op, *buffers: lowering(op, *(replace(b, layout=Layout(8)) for b in buffers))


def test_blocked_layouts_do_without_views() -> None:
    x = image(2, 3, 4, 5)
    check(Reshape((W, -1, N, H)), blocked(nests.lower_reshape), x, N=2, H=4, W=5)
    check(Flatten(-1), blocked(nests.lower_reshape), x, N=2, H=4, W=5)
    check(Concat(-3), blocked(nests.lower_concat), x, x, N=2, H=4, W=5)
    check(Split(1, (1, 2)), blocked(nests.lower_split), x, N=2, H=4, W=5)


@given(st.permutations(range(4)), sides, sides)
def test_transpose(perm: list[int], h: int, w: int) -> None:
    (y,) = check(Transpose(tuple(perm)), nests.lower_transpose, image(2, 3, h, w), N=2, H=h, W=w)
    np.testing.assert_array_equal(y, count_up(2, 3, h, w).transpose(perm))


@given(st.integers(-4, 3), st.lists(sides, min_size=1, max_size=4))
def test_concat_and_split_are_inverse(axis: int, lengths: list[int]) -> None:
    parts = []
    for length in lengths:
        shape = [2, 3, 4, 5]
        shape[axis] = length
        parts.append((f32(*shape), count_up(*shape) + length))
    (y,) = check(Concat(axis), nests.lower_concat, *parts)
    again = check(Split(axis, tuple(lengths)), nests.lower_split, (f32(*y.shape), y))
    for (_, a), b in zip(parts, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_concat_of_an_open_dim_that_would_be_two_numbers() -> None:
    types = [TensorType(DType.F32, (1, 2, dims.symbol("H"))), *(TensorType(DType.F32, (1, 2, n)) for n in (4, 1))]
    for order in ((0, 1, 2), (1, 0, 2), (1, 2, 0)):
        with pytest.raises(ShapeError, match="expected inputs equal but for dim 1"):
            Concat(1).infer(*(types[i] for i in order))
    assert Concat(1).infer(types[0], types[1], types[1]).shape == (1, 6, dims.symbol("H"))


def test_concat_and_split_of_symbolic_lengths() -> None:
    x, y = (f32("N", 2, "H", "W"), count_up(2, 2, 3, 4)), (f32("N", 2, 1, "W"), count_up(2, 2, 1, 4))
    (z,) = check(Concat(2), nests.lower_concat, x, y, x, N=2, H=3, W=4)
    assert z.shape == (2, 2, 7, 4)
    op = Split(2, (H, 1, H))
    assert op.infer(f32("N", 2, "2*H+1", "W")) == (x[0], y[0], x[0])
    check(op, nests.lower_split, (f32("N", 2, "2*H+1", "W"), z), N=2, H=3, W=4)


steps = st.integers(-3, 3).filter(bool)
bounds = st.integers(-8, 8) | st.sampled_from([INT_MAX, INT64_MAX, -INT_MAX, -(2**63)])


@given(st.tuples(bounds, bounds, steps), st.tuples(bounds, bounds, steps), sides, sides)
def test_slice_is_python_slicing(rows: tuple[int, int, int], columns: tuple[int, int, int], h: int, w: int) -> None:
    """Symbolic and constant sizes alike; what is empty in Python is refused, or left to the check of the sizes."""
    x = count_up(2, 3, h, w)
    expected = x[:, :, slice(*rows), slice(*columns)]
    op = Slice((2, -1), *zip(rows, columns, strict=True))
    if expected.size:
        (y,) = check(op, nests.lower_slice, image(2, 3, h, w), N=2, H=h, W=w)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(check(op, nests.lower_slice, (f32(*x.shape), x))[0], expected)
    else:
        with pytest.raises(ShapeError, match="leaves nothing of dim"):
            op.infer(f32(*x.shape))
        with suppress(ShapeError):  # 3:3 is empty whatever the size
            type = op.infer(f32("N", 3, "H", "W"))
            assert min(type.substitute({"N": 2, "H": h, "W": w}).static_shape()) < 1


def test_slice_keeps_types_readable() -> None:
    x = f32("N", 3, "H", "W")
    assert Slice((2, 3), (1, 0), (-1, INT64_MAX), (1, 2)).infer(x) == f32("N", 3, "H-2", "(W+1)//2")
    assert Slice((3,), (-1,), (-(2**63),), (-1,)).infer(x) == x
    assert Slice((3,), (W // 2,), (W,), (1,)).infer(f32("N", 3, "H", "W")) == f32("N", 3, "H", "W-W//2")


def test_slice_from_a_symbolic_place() -> None:
    (y,) = check(Slice((3, 2), (W // 2, 0), (W - 1, H), (1, 1)), nests.lower_slice, image(1, 2, 3, 7), N=1, H=3, W=7)
    np.testing.assert_array_equal(y, count_up(1, 2, 3, 7)[..., 3:6])


def test_slice_notes_that_a_symbolic_place_is_not_negative() -> None:
    with dims.assumptions() as assumed:
        Slice((3,), (W - 4,), (W,), (1,)).infer(f32("N", 3, "H", "W"))
    assert [dims.evaluate(a - b, {"W": w}) == 0 for w in (3, 4) for a, b in assumed[:1]] == [False, True]


@given(
    st.sampled_from(PAD_MODES),
    st.lists(st.integers(0, 9), min_size=4, max_size=4),
    sides,
    sides,
    st.sampled_from(["f32", "i64"]),
)
def test_pad(mode: str, border: list[int], h: int, w: int, dtype: str) -> None:
    """All modes, borders longer than the image among them, are NumPy's."""
    top, left, bottom, right = border
    op = Pad((0, 1, top, left, 0, 0, bottom, right), mode, -2.0 if mode == "constant" else 0.0)
    (y,) = check(op, nests.lower_pad, image(2, 3, h, w, dtype), N=2, H=h, W=w)
    np.testing.assert_array_equal(y[:, 1:, top : top + h, left : left + w], count_up(2, 3, h, w))


def test_reflect_does_not_repeat_the_border() -> None:
    (y,) = check(Pad((2, 2), "reflect"), nests.lower_pad, (f32(3), count_up(3)))
    assert y.tolist() == [2, 1, 0, 1, 2, 1, 0]
    (y,) = check(Pad((2, 2), "symmetric"), nests.lower_pad, (f32(3), count_up(3)))
    assert y.tolist() == [1, 0, 0, 1, 2, 2, 1]


BAD: list[tuple[Op, tuple[str, ...], str]] = [
    (Flatten(3), ("f32[N,2]",), r"axis must lie from -2 to 2 for x f32\[N,2\], got 3"),
    (Reshape((2, -1, -1)), ("f32[8]",), r"at most one -1, got \(2, -1, -1\)"),
    (Reshape((-2, 4)), ("f32[8]",), r"dims of at least 0 and at most one -1, got \(-2, 4\)"),
    (Reshape((3, -1)), ("f32[8]",), r"shape \[3,-1\] must hold the 8 elements of x f32\[8\]"),
    (Reshape((N, 5)), ("f32[N+1,5]",), r"shape \[N,5\] must hold the 5\*N\+5 elements of x f32\[N\+1,5\]"),
    (Transpose((0, 0)), ("f32[2,3]",), r"perm must hold 0 to 1 once each for x f32\[2,3\], got \(0, 0\)"),
    (Transpose((0,)), ("f32[2,3]",), "perm must hold 0 to 1 once each"),
    (Concat(1), ("f32[N,2,H]", "f32[N,3,H+1]"), r"equal but for dim 1, got f32\[N,2,H\], f32\[N,3,H\+1\]"),
    (Concat(1), ("f32[N,2]", "f64[N,2]"), "equal but for dim 1"),
    (Concat(1), ("f32[N,2]", "f32[N,2,1]"), "equal but for dim 1"),
    (Concat(2), ("f32[N,2]",), "axis must lie from -2 to 1"),
    (Concat(1), (), "expected at least 1 input, got 0"),
    (Split(1, (2, 2)), ("f32[N,5]",), r"add up to dim 1 of x f32\[N,5\], got \(2, 2\)"),
    (Split(1, (5, 0)), ("f32[N,5]",), "sizes must be positive"),
    (Split(1, ()), ("f32[N,5]",), "sizes must be positive"),
    (Slice((1,), (0,), (3,), (0,)), ("f32[N,5]",), "a step other than 0"),
    (Slice((1,), (0, 1), (3,), (1,)), ("f32[N,5]",), "a start, an end and a step"),
    (Slice((1, -1), (0, 0), (3, 3), (1, 1)), ("f32[N,5]",), r"axes must differ, got \(1, -1\)"),
    (Slice((2,), (0,), (3,), (1,)), ("f32[N,5]",), "axis must lie from -2 to 1"),
    (Slice((1,), (5,), (9,), (1,)), ("f32[N,5]",), "5:9:1 leaves nothing of dim 1"),
    (Pad((1, 1)), ("f32[N,5]",), r"padding must be 4 dims of at least 0 for x f32\[N,5\], got \(1, 1\)"),
    (Pad((1, 1, -1, 0)), ("f32[N,5]",), "padding must be 4 dims of at least 0"),
    (Pad((1, 1, 0, 0), "mirror"), ("f32[N,5]",), "mode must be one of constant, reflect, .*, got 'mirror'"),
    (Pad((0, 5, 0, 0), "reflect"), ("f32[N,5]",), "reflect padding must be less than the size 5, got 5 and 0"),
    (Pad((0, 5, 0, 0), value=0.5), ("i64[N,5]",), "value must be an integer for x i64"),
    (Flatten(), ("f32[2]", "f32[2]"), "expected 1 input, got 2"),
]


@pytest.mark.parametrize(("op", "types", "message"), BAD, ids=[f"{i}-{op.name}" for i, (op, _, _) in enumerate(BAD)])
def test_refusals(op: Op, types: tuple[str, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(*map(parse_type, types))
