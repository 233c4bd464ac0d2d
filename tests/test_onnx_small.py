"""Floats and integers of 8 bits and less: every number of each, against ml_dtypes and onnx's own casts."""

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx_models import node

from graphc.errors import UnsupportedError
from graphc.ir import Array, DType
from graphc.onnx import from_model
from graphc.onnx.backend import run_model
from graphc.onnx.small import SMALL_FLOATS, SMALL_INTEGERS

NAMES = {number: TensorProto.DataType.Name(number) for number in (*SMALL_FLOATS, *SMALL_INTEGERS)}


def declare(nodes: list[Any], types: dict[str, tuple[int, Any]], to: int, data: dict[str, Array] | None = None) -> Any:
    """A model with these inputs, whose output y is of type `to`."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(n, *t) for n, t in types.items()],
        [helper.make_tensor_value_info("y", to, None)],
        [numpy_helper.from_array(a, n) for n, a in (data or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)])


def cast_model(to: int, x: Array, constant: bool, **attributes: int) -> ModelProto:
    source = helper.np_dtype_to_tensor_dtype(x.dtype)
    cast = node("Cast", "x", to=to, **attributes)
    return declare([cast], {} if constant else {"x": (source, ["n"])}, to, {"x": x} if constant else {})


def numbers_of(number: int) -> Array:
    """Every number of a small float, ascending, as float32."""
    kind = helper.tensor_dtype_to_np_dtype(number)
    codes = np.arange(16 if number == TensorProto.FLOAT4E2M1 else 256, dtype=np.uint8).view(kind).astype(np.float32)
    return np.unique(codes[np.isfinite(codes)])


def hard_numbers(number: int) -> Array:
    """What is hard to round to a small float: its numbers, the middles between them, and both neighbours of each."""
    exact = numbers_of(number)
    middles = (exact[1:] + exact[:-1]) / 2
    places = np.concatenate([exact, middles, [exact[-1] * 1.01, exact[-1] * 4, 3e38, np.inf]]).astype(np.float32)
    ends = [np.nextafter(places, np.float32(end), dtype=np.float32) for end in (-np.inf, np.inf)]
    found = np.concatenate([places, *ends, [1e-30, 0.0]]).astype(np.float32)
    return np.concatenate([found, -found, [np.nan] if number != TensorProto.FLOAT4E2M1 else []]).astype(np.float32)


def same_bits(a: Array, b: Array) -> bool:
    """Whether two arrays of small floats have the same numbers and signs of zero; one NaN is as good as another."""
    nan = [np.isnan(v.astype(np.float32)) for v in (a, b)]
    codes = [v.view(np.uint8) for v in (a, b)]
    return a.dtype == b.dtype and bool(np.all((codes[0] == codes[1]) | (nan[0] & nan[1])))


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("saturate", [1, 0])
@pytest.mark.parametrize("number", SMALL_FLOATS, ids=NAMES.get)
def test_rounding_to_small_floats(number: int, saturate: int, constant: bool) -> None:
    x, kind = hard_numbers(number), helper.tensor_dtype_to_np_dtype(number)
    (y,) = run_model(cast_model(number, x, constant, saturate=saturate), [] if constant else [x])
    with np.errstate(invalid="ignore", over="ignore"):
        expected = numpy_helper.saturate_cast(x, kind) if saturate else x.astype(kind)
    assert same_bits(y, expected)


@pytest.mark.parametrize("number", SMALL_FLOATS, ids=NAMES.get)
def test_doubles_are_rounded_once(number: int) -> None:
    """A hair beside the middle of two numbers, which float32 would make the middle itself."""
    exact = numbers_of(number).astype(np.float64)
    middles = (exact[1:] + exact[:-1]) / 2
    for factor, index in ((1 + 1e-12, 1), (1 - 1e-12, 0)):
        x = middles[middles > 0] * factor
        (y,) = run_model(cast_model(number, x, constant=False), [x])
        np.testing.assert_array_equal(y.astype(np.float64), exact[index : len(exact) - 1 + index][middles > 0])


@pytest.mark.parametrize("number", SMALL_FLOATS, ids=NAMES.get)
def test_numbers_of_small_floats(number: int) -> None:
    """As inputs and as initialisers."""
    x = numbers_of(number).astype(helper.tensor_dtype_to_np_dtype(number))
    for constant in (False, True):
        model = cast_model(TensorProto.FLOAT, x, constant)
        (y,) = run_model(model, [] if constant else [x])
        np.testing.assert_array_equal(y, x.astype(np.float32))
    assert from_model(cast_model(TensorProto.FLOAT, x, constant=False)).inputs[0].type.dtype == DType.F32


@pytest.mark.parametrize("number", SMALL_INTEGERS, ids=NAMES.get)
def test_small_integers_wrap_around(number: int) -> None:
    (least, most), x = SMALL_INTEGERS[number], np.arange(-40, 40, dtype=np.int32)
    for constant in (False, True):
        (y,) = run_model(cast_model(number, x, constant), [] if constant else [x])
        assert y.dtype == helper.tensor_dtype_to_np_dtype(number)
        np.testing.assert_array_equal(y.astype(np.int32), (x - least) % (most - least + 1) + least)


@pytest.mark.parametrize("number", NAMES, ids=NAMES.get)
def test_there_and_back(number: int) -> None:
    """Quantised to the format and back, with the zero point as an input and as an initialiser."""
    x = np.linspace(-30, 30, 61, dtype=np.float32)
    zero = np.ones((), helper.tensor_dtype_to_np_dtype(number)) if number in SMALL_INTEGERS else None
    nodes = [node("QuantizeLinear", "x s z", "q"), node("Transpose", "q", "t"), node("DequantizeLinear", "t s z", "y")]
    scale, inputs = np.array(0.5, np.float32), {"x": (TensorProto.FLOAT, ["n"]), "z": (number, [])}
    zero = zero if zero is not None else np.zeros((), helper.tensor_dtype_to_np_dtype(number))
    if number in SMALL_INTEGERS:
        stored = np.clip(np.rint(x * 2) + 1, *SMALL_INTEGERS[number]) - 1
    else:
        stored = numpy_helper.saturate_cast(x * 2, zero.dtype).astype(np.float32)
    for data in ({"s": scale}, {"s": scale, "z": zero}):
        given = {name: t for name, t in inputs.items() if name not in data}
        (y,) = run_model(declare(nodes, given, TensorProto.FLOAT, data), [x, zero][: len(given)])
        np.testing.assert_array_equal(y, stored / 2)


def test_an_element_type_that_is_not_known_is_refused() -> None:
    """A value in f32 may be a small float: a cast to it must not pass for one to float."""
    nodes = [node("Transpose", "like", "t"), node("CastLike", "x t")]
    like = TensorProto.FLOAT8E5M2
    model = declare(nodes, {"x": (TensorProto.FLOAT, ["n"]), "like": (like, ["n"])}, like)
    with pytest.raises(UnsupportedError, match="the element type of 't', which may have 8 bits or less"):
        from_model(model)
    direct = declare([node("CastLike", "x like")], {"x": (TensorProto.FLOAT, ["n"]), "like": (like, ["n"])}, like)
    x = np.array([1.1, -300.0], np.float32)
    kind = helper.tensor_dtype_to_np_dtype(like)
    (y,) = run_model(direct, [x, np.ones(1, kind).repeat(2)])
    assert same_bits(y, x.astype(kind))
