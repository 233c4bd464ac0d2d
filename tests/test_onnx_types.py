"""Element types and ranks beyond images of float32: halves, quantised networks, lines and volumes."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import floats, make_model, node, number, run_onnxruntime

from graphc.driver import compile
from graphc.errors import UnsupportedError
from graphc.ir import Array, DType
from graphc.onnx import from_model, to_model
from graphc.onnx.backend import run_model
from graphc.reference import run_reference
from graphc.text import parse

LINE, VOLUME = floats(2, 4, 19), floats(2, 4, 7, 8, 9)
WINDOWS = {
    "conv_line": (node("Conv", "x w b", strides=[2], dilations=[3], pads=[1, 4]), LINE, (6, 4, 4)),
    "conv_line_same": (node("Conv", "x w b", strides=[2], auto_pad="SAME_UPPER"), LINE, (6, 4, 4)),
    "conv_line_groups": (node("Conv", "x w", group=2), LINE, (6, 2, 3)),
    "conv_volume": (node("Conv", "x w b", strides=[2, 1, 3], pads=[1, 0, 2, 0, 1, 1]), VOLUME, (6, 4, 3, 2, 3)),
    "conv_volume_groups": (node("Conv", "x w", group=2, dilations=[2, 1, 1]), VOLUME, (6, 2, 3, 2, 2)),
    "transpose_line": (node("ConvTranspose", "x w b", strides=[3], output_padding=[1], pads=[1, 0]), LINE, (4, 6, 4)),
    "transpose_volume": (
        node("ConvTranspose", "x w b", strides=[2, 1, 3], output_padding=[1, 0, 1], pads=[1, 0, 2, 0, 1, 1]),
        VOLUME,
        (4, 6, 3, 2, 3),
    ),
    "transpose_volume_groups": (node("ConvTranspose", "x w", group=2, dilations=[2, 1, 1]), VOLUME, (4, 3, 3, 2, 2)),
    "max_line": (node("MaxPool", "x", kernel_shape=[3], strides=[2], pads=[1, 1], ceil_mode=1), LINE, None),
    "max_volume": (
        node("MaxPool", "x", kernel_shape=[3, 2, 2], strides=[2, 2, 1], pads=[1, 0, 1, 0, 1, 1]),
        VOLUME,
        None,
    ),
    "average_line": (node("AveragePool", "x", kernel_shape=[4], dilations=[2], pads=[2, 1]), LINE, None),
    "average_volume": (node("AveragePool", "x", kernel_shape=[3, 2, 2], pads=[1, 1, 0, 1, 0, 1]), VOLUME, None),
    "average_volume_counted": (
        node("AveragePool", "x", kernel_shape=[3, 2, 2], pads=[1, 1, 0, 1, 0, 1], count_include_pad=1),
        VOLUME,
        None,
    ),
    "global_line": (node("GlobalAveragePool", "x"), LINE, None),
    "global_volume": (node("GlobalMaxPool", "x"), VOLUME, None),
}


@pytest.mark.parametrize("name", sorted(WINDOWS))
def test_lines_and_volumes(name: str) -> None:
    """N and the sizes of the image stay open."""
    operation, x, weight = WINDOWS[name]
    data = {} if weight is None else {"w": floats(*weight, seed=1), "b": floats(6, seed=2)}
    shape = x.shape if "same" in name else ("n", 4, *(f"s{i}" for i in range(x.ndim - 2)))
    model = make_model([operation], {"x": shape}, data, opset=19)
    (expected,) = run_onnxruntime(model, {"x": x})
    graph = from_model(model)
    for found in (*run_model(model, [x]), *run_reference(graph, [x]), *run_onnxruntime(to_model(graph, 19), {"x": x})):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_indices_of_a_line() -> None:
    model = make_model([node("MaxPool", "x", "y i", kernel_shape=[3], strides=[2])], {"x": LINE.shape}, outputs="y i")
    for found, expected in zip(run_model(model, [LINE]), run_onnxruntime(model, {"x": LINE}), strict=True):
        np.testing.assert_array_equal(found, expected)


def typed_model(nodes: list[onnx.NodeProto], inputs: dict[str, Array], data: dict[str, Array]) -> onnx.ModelProto:
    """A model with inputs of these arrays' types, whose output y has the type that ONNX infers."""
    graph = helper.make_graph(
        nodes,
        "net",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in inputs.items()
        ],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(a, n) for n, a in data.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    model.graph.output[0].CopyFrom(onnx.shape_inference.infer_shapes(model).graph.output[0])
    return model


def integers(low: int, high: int, dtype: type[np.integer], *shape: int) -> Array:
    return np.random.default_rng(len(shape)).integers(low, high, shape).astype(dtype)


U8 = integers(0, 256, np.uint8, 2, 3, 9, 8)
QUANTISED = {
    "quantize": ([node("QuantizeLinear", "x s z", axis=1)], 20 * floats(2, 3, 9, 8), {
        "s": np.array([0.1, 0.2, 0.3], np.float32), "z": np.array([3, 128, 250], np.uint8)}),
    "quantize_signed": ([node("QuantizeLinear", "x s z")], 20 * floats(4, 5), {
        "s": number(0.25), "z": np.array(-3, np.int8)}),
    "dequantize": ([node("DequantizeLinear", "x s z", axis=1)], U8, {
        "s": np.array([0.1, 0.2, 0.3], np.float32), "z": np.array([3, 128, 250], np.uint8)}),
    "dequantize_sum": ([node("DequantizeLinear", "x s")], integers(-9999, 9999, np.int32, 5, 4), {"s": number(0.1)}),
    "conv_integer": ([node("ConvInteger", "x w z", strides=[2, 1], pads=[1, 1, 1, 1])], U8, {
        "w": integers(0, 256, np.uint8, 4, 3, 3, 3), "z": np.array(77, np.uint8)}),
    "matmul_integer": ([node("MatMulInteger", "x w z v")], integers(0, 256, np.uint8, 5, 40), {
        "w": integers(-128, 128, np.int8, 40, 7), "z": np.array(9, np.uint8), "v": np.array(-5, np.int8)}),
    "qlinear_conv": ([node("QLinearConv", "x xs xz w ws wz ys yz b", pads=[1, 1, 1, 1])], U8, {
        "xs": number(0.05), "xz": np.array(120, np.uint8), "w": integers(-128, 128, np.int8, 4, 3, 3, 3),
        "ws": np.array([0.01, 0.02, 0.03, 0.04], np.float32), "wz": np.zeros(4, np.int8), "ys": number(0.7),
        "yz": np.array(100, np.uint8), "b": integers(-999, 999, np.int32, 4)}),
    "qlinear_matmul": ([node("QLinearMatMul", "x xs xz w ws wz ys yz")], integers(0, 256, np.uint8, 5, 40), {
        "xs": number(0.05), "xz": np.array(120, np.uint8), "w": integers(-128, 128, np.int8, 40, 7),
        "ws": number(0.02), "wz": np.array(3, np.int8), "ys": number(0.9), "yz": np.array(100, np.uint8)}),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(QUANTISED))
def test_quantised_ops(name: str) -> None:
    nodes, x, data = QUANTISED[name]
    model = typed_model(nodes, {"x": x}, data)
    (expected,) = run_onnxruntime(model, {"x": x})
    graph = from_model(model)
    assert str(parse(str(graph), {p: v.array for p, v in graph.params.items()})) == str(graph)
    exported = to_model(graph)
    # ONNX Runtime's CPU provider has no convolution of float64, in which the sums are exact
    again = [] if "conv" in name else run_onnxruntime(exported, {"x": x})
    for found in (*run_model(model, [x]), *run_reference(graph, [x]), *again):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", [DType.F16, DType.BF16])
def test_halves_are_computed_as_floats(kind: DType) -> None:
    """Inputs and weights widen, nothing between is rounded, the result is rounded once."""
    x, w, b = (floats(*shape, seed=i) for i, shape in enumerate([(2, 3, 6, 5), (4, 3, 3, 3), (4,)]))
    data = {"w": w.astype(kind.numpy), "b": b.astype(kind.numpy)}
    given = x.astype(kind.numpy)
    model = typed_model([node("Conv", "x w b", "h"), node("Sigmoid", "h", "y")], {"x": given}, data)
    graph = from_model(model)
    assert graph.inputs[0].type.dtype == kind and graph.outputs[0].type.dtype == kind
    assert {p.value.type.dtype for p in graph.params.values()} == {DType.F32}
    wide = make_model(
        [node("Conv", "x w b", "h"), node("Sigmoid", "h", "y")],
        {"x": x.shape},
        {n: a.astype(np.float32) for n, a in data.items()},
    )
    (expected,) = run_model(wide, [given.astype(np.float32)])
    (found,) = run_model(model, [given])
    assert found.dtype == kind.numpy
    np.testing.assert_array_equal(found, expected.astype(kind.numpy))
    assert to_model(graph).graph.input[0].type.tensor_type.elem_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def test_a_rounding_between_is_left_out() -> None:
    """A Cast to float16 that only a computation reads; one that is cast back is a rounding that the file asks for."""
    x = floats(2, 3, 4, 5)
    to_half, back = node("Cast", "x", "h", to=TensorProto.FLOAT16), node("Cast", "h", "f", to=TensorProto.FLOAT)
    model = make_model(
        [to_half, back, node("Neg", "h", "n"), node("Cast", "n", "y", to=TensorProto.FLOAT)], outputs="f y"
    )
    rounded, exact = run_model(model, [x])
    np.testing.assert_array_equal(rounded, x.astype(np.float16))
    np.testing.assert_array_equal(exact, -x)


def test_reference_in_double_takes_casts_along() -> None:
    nodes, x, data = QUANTISED["dequantize"]
    graph = from_model(typed_model(nodes, {"x": x}, data))
    (found,) = run_reference(graph, [x], DType.F64)
    assert found.dtype == np.float64
    np.testing.assert_allclose(compile(graph)(x), found, rtol=1e-6)


def test_old_files_whose_ops_did_not_change() -> None:
    x = np.array([True, False])
    graph = helper.make_graph(
        [node("Not", "x")],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.BOOL, [2])],
        [helper.make_tensor_value_info("y", TensorProto.BOOL, [2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 1)])
    np.testing.assert_array_equal(run_model(model, [x])[0], ~x)


def test_what_cannot_be_quantised() -> None:
    model = typed_model([node("QuantizeLinear", "x s z")], {"x": LINE}, {"s": number(1), "z": np.array(0, np.uint8)})
    model.graph.initializer[1].CopyFrom(helper.make_tensor("z", TensorProto.FLOAT8E8M0, [], [1.0]))
    with pytest.raises(UnsupportedError, match="element type FLOAT8E8M0"):
        from_model(model)
