"""Reading ONNX: each op against ONNX Runtime, names and symbols kept, and files that are damaged or ask too much."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, defs, helper, numpy_helper

from graphc.errors import FileError, GraphcError, GraphError, ShapeError, UnsupportedError
from graphc.ir import Array, Graph
from graphc.onnx import from_model, load, to_model
from graphc.reference import run_reference

Shape = Sequence[int | str | None]
IMAGE: Shape = ("batch", 3, "height", "width")


def node(op_type: str, inputs: str, outputs: str = "y", name: str | None = None, **attributes: Any) -> NodeProto:
    """A node; inputs and outputs are separated by blanks, "-" is one that is left out."""
    names = [["" if i == "-" else i for i in text.split()] for text in (inputs, outputs)]
    return helper.make_node(op_type, *names, name=f"node_{outputs.split()[0]}" if name is None else name, **attributes)


def make_model(
    nodes: Sequence[NodeProto],
    inputs: dict[str, Shape] | None = None,
    data: dict[str, Array] | None = None,
    outputs: str = "y",
    opset: int = 18,
) -> onnx.ModelProto:
    """A model whose inputs are float32, by default one image `x`."""
    declared = {"x": IMAGE} if inputs is None else inputs
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in declared.items()],
        [onnx.ValueInfoProto(name=o) for o in outputs.split()],
        [numpy_helper.from_array(a, n) for n, a in (data or {}).items()],
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=helper.find_min_ir_version_for(imports))


def floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def number(value: float) -> Array:
    return np.array(value, np.float32)


def run_onnxruntime(model: onnx.ModelProto, arrays: dict[str, Array]) -> list[Array]:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    for i, output in enumerate(model.graph.output):  # ONNX Runtime wants outputs with a type; any element type will do
        if not output.HasField("type"):
            inferred = onnx.shape_inference.infer_shapes(model)
            model.graph.output[i].CopyFrom(inferred.graph.output[i])
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, arrays))


def check_import(model: onnx.ModelProto, arrays: dict[str, Array], tolerance: float = 2e-6) -> Graph:
    """Import, and compare with ONNX Runtime."""
    graph = from_model(model)
    found = run_reference(graph, [arrays[v.name] for v in graph.inputs])
    for a, b in zip(found, run_onnxruntime(model, arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, float(np.abs(b).max())))
    return graph


W3 = floats(4, 3, 3, 3, seed=1)
CASES: dict[str, onnx.ModelProto] = {
    "conv": make_model([node("Conv", "x w")], data={"w": W3}),
    "conv_all": make_model(
        [node("Conv", "x w b", kernel_shape=[3, 2], strides=[2, 1], pads=[0, 1, 2, 1], dilations=[1, 2], group=3)],
        data={"w": floats(6, 1, 3, 2), "b": floats(6)},
    ),
    "conv_same_upper": make_model([node("Conv", "x w", auto_pad="SAME_UPPER")], data={"w": floats(2, 3, 2, 4)}),
    "conv_same_lower": make_model([node("Conv", "x w", auto_pad="SAME_LOWER")], data={"w": floats(2, 3, 2, 4)}),
    "conv_same_strided": make_model(
        [node("Conv", "x w", auto_pad="SAME_UPPER", strides=[2, 3])], {"x": ["N", 3, 7, 8]}, {"w": floats(2, 3, 2, 4)}
    ),
    "conv_valid": make_model([node("Conv", "x w", auto_pad="VALID")], data={"w": W3}),
    "conv_transpose": make_model(
        [node("ConvTranspose", "x w b", strides=[2, 2], pads=[1, 0, 0, 1], output_padding=[1, 0], dilations=[2, 1])],
        data={"w": floats(3, 2, 3, 3), "b": floats(2)},
    ),
    "conv_transpose_same": make_model(
        [node("ConvTranspose", "x w", strides=[2, 3], auto_pad="SAME_LOWER")], data={"w": floats(3, 2, 3, 4)}
    ),
    "conv_transpose_upper": make_model(
        [node("ConvTranspose", "x w", strides=[2, 3], auto_pad="SAME_UPPER")], data={"w": floats(3, 2, 3, 4)}
    ),
    "conv_transpose_shape": make_model(
        [node("ConvTranspose", "x w", strides=[2, 2], output_shape=[10, 12])],
        {"x": ["N", 3, 5, 6]},
        {"w": floats(3, 2, 3, 3)},
    ),
    "gemm": make_model([node("Gemm", "x w b", transB=1)], {"x": ["N", 5]}, {"w": floats(4, 5), "b": floats(4)}),
    "gemm_factors": make_model(
        [node("Gemm", "x w b", alpha=0.5, beta=2.0)], {"x": ["N", 5]}, {"w": floats(5, 4), "b": floats(1, 4)}
    ),
    "gemm_transposed": make_model(
        [node("Gemm", "x w b", transA=1, transB=1, beta=0.5)], {"x": [5, 6]}, {"w": floats(4, 5), "b": floats(6, 1)}
    ),
    "gemm_no_bias": make_model([node("Gemm", "x w", alpha=3.0)], {"x": ["N", 5]}, {"w": floats(5, 4)}),
    "gemm_scalar_bias": make_model([node("Gemm", "x w b")], {"x": ["N", 5]}, {"w": floats(5, 4), "b": floats()}),
    "gemm_computed": make_model(
        [node("Gemm", "x x b", transB=1, alpha=0.5, beta=3.0)], {"x": [5, 6]}, {"b": floats(5)}
    ),
    "gemm_computed_plain": make_model([node("Gemm", "x x", transA=1)], {"x": [5, 6]}),
    "gemm_computed_scaled": make_model([node("Gemm", "x x", transA=1, alpha=0.3)], {"x": [5, 6]}),
    "matmul": make_model([node("MatMul", "x w")], {"x": ["N", 7, 5]}, {"w": floats(5, 4)}),
    **{op: make_model([node(op, "x")]) for op in ("Relu", "Sigmoid", "Tanh", "Softplus", "Exp", "Neg", "Abs", "Erf")},
    "identity": make_model([node("Identity", "x")]),
    "leaky_relu": make_model([node("LeakyRelu", "x", alpha=0.3)]),
    "elu": make_model([node("Elu", "x", alpha=1.7)]),
    "log_sqrt": make_model([node("Abs", "x", "a"), node("Log", "a", "b"), node("Abs", "b", "c"), node("Sqrt", "c")]),
    "clip": make_model([node("Clip", "x lo hi")], data={"lo": number(-0.3), "hi": number(0.6)}),
    "clip_above": make_model([node("Clip", "x - hi")], data={"hi": number(0.6)}),
    "clip_computed": make_model(
        [node("ReduceMin", "x", "m", keepdims=0), node("Mul", "m half", "lo"), node("Clip", "x lo hi")],
        data={"half": number(0.5), "hi": number(0.6)},
    ),
    **{op: make_model([node(op, "x k")], data={"k": floats(3, 1, 1)}) for op in ("Add", "Sub", "Mul", "Div")},
    "pow": make_model([node("Pow", "x k")], data={"k": ints(3)}),
    **{op: make_model([node(op, "x k x m")], data={"k": number(0.1), "m": floats(3, 1, 1)})
       for op in ("Max", "Min", "Sum")},
    "max_of_one": make_model([node("Max", "x")]),
    "hard_threshold": make_model([node("Greater", "x t", "m"), node("Cast", "m", to=1)], data={"t": number(0.2)}),
    "max_pool": make_model(
        [node("MaxPool", "x", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1], ceil_mode=1, dilations=[1, 2])]
    ),
    "max_pool_same": make_model([node("MaxPool", "x", kernel_shape=[3, 2], auto_pad="SAME_UPPER")]),
    "max_unpool": make_model(
        [node("MaxPool", "x", "p i", kernel_shape=[2, 2], strides=[2, 2]),
         node("MaxUnpool", "p i", kernel_shape=[2, 2], strides=[2, 2])],
        {"x": [2, 3, 6, 4]},
    ),
    "max_unpool_shape": make_model(
        [node("MaxPool", "x", "p i", kernel_shape=[2, 2], strides=[2, 2]), node("Shape", "x", "s"),
         node("MaxUnpool", "p i s", kernel_shape=[2, 2], strides=[2, 2])]
    ),
    "average_pool": make_model(
        [node("AveragePool", "x", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1], count_include_pad=1)]
    ),
    "average_pool_ceil": make_model([node("AveragePool", "x", kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1)]),
    "lp_pool": make_model([node("LpPool", "x", kernel_shape=[3, 2], p=2, pads=[1, 0, 1, 0])]),
    "global_pools": make_model([node("GlobalAveragePool", "x", "a"), node("GlobalMaxPool", "x", "b"),
                                node("Sub", "a b")]),
    "batch_norm": make_model(
        [node("BatchNormalization", "x a b m v", epsilon=1e-3, momentum=0.8)],
        data={"a": floats(3), "b": floats(3, seed=1), "m": floats(3, seed=2), "v": np.abs(floats(3, seed=3))},
    ),
    "lrn": make_model([node("LRN", "x", size=3, alpha=0.1, beta=0.6, bias=2.0)]),
    "softmax": make_model([node("Softmax", "x")]),
    "softmax_channels": make_model([node("Softmax", "x", axis=1)]),
    "softmax_11": make_model([node("Softmax", "x")], opset=11),
    "softmax_11_matrix": make_model([node("Softmax", "x")], {"x": ["N", 5]}, opset=11),
    "log_softmax_11": make_model([node("LogSoftmax", "x", axis=2)], opset=11),
    "log_softmax": make_model([node("LogSoftmax", "x", axis=-3)]),
    "dropout": make_model([node("Dropout", "x r")], data={"r": number(0.3)}),
    "dropout_11": make_model([node("Dropout", "x", ratio=0.3)], opset=11),
    "flatten": make_model([node("Flatten", "x", axis=-2)]),
    "reshape_copy": make_model([node("Reshape", "x s")], data={"s": ints(0, -1, 3)}),
    "reshape_constant": make_model([node("Constant", "", "s", value_ints=[-1]), node("Reshape", "x s")]),
    "squeeze": make_model([node("GlobalMaxPool", "x", "p"), node("Squeeze", "p a")], data={"a": ints(2, -1)}),
    "squeeze_11": make_model([node("GlobalMaxPool", "x", "p"), node("Squeeze", "p", axes=[2, 3])], opset=11),
    "squeeze_all": make_model([node("GlobalMaxPool", "x", "p"), node("Squeeze", "p")]),
    "unsqueeze": make_model([node("Unsqueeze", "x a")], data={"a": ints(0, -1)}),
    "unsqueeze_11": make_model([node("Unsqueeze", "x", axes=[1])], opset=11),
    "transpose": make_model([node("Transpose", "x", perm=[0, 2, 3, 1])]),
    "transpose_default": make_model([node("Transpose", "x")]),
    "concat": make_model([node("Concat", "x x", axis=-3)]),
    "split": make_model([node("Split", "x s", "y z", axis=1)], data={"s": ints(1, 2)}, outputs="y z"),
    "split_11": make_model([node("Split", "x", "y z w", axis=1)], outputs="w y", opset=11),
    "split_unequal": make_model([node("Split", "x", "y z", axis=1, num_outputs=2)], outputs="y z"),
    "slice": make_model(
        [node("Slice", "x a b c d")], data={"a": ints(-1, 1), "b": ints(-(2**63), 2**63 - 1), "c": ints(3, -2),
                                            "d": ints(-2, 1)}),
    "slice_plain": make_model([node("Slice", "x a b")], data={"a": ints(0, 1), "b": ints(5, 3)}),
    "pad": make_model([node("Pad", "x p v")], data={"p": ints(0, 1, 2, 0, 0, 0, 1, 3), "v": number(0.5)}),
    "pad_axes": make_model([node("Pad", "x p - a", mode="reflect")], data={"p": ints(1, 2, 0, 1), "a": ints(-1, 2)}),
    "pad_edge": make_model([node("Pad", "x p", mode="edge")], data={"p": ints(0, 0, 2, 0, 0, 0, 1, 3)}, opset=13),
    "pad_wrap": make_model([node("Pad", "x p", mode="wrap")], data={"p": ints(0, 0, 2, 0, 0, 0, 1, 3)}, opset=19),
    "reduce_sum": make_model([node("ReduceSum", "x a", keepdims=0)], data={"a": ints(-1, 1)}),
    "reduce_sum_noop": make_model([node("ReduceSum", "x", noop_with_empty_axes=1)]),
    "reduce_sum_11": make_model([node("ReduceSum", "x", axes=[1])], opset=11),
    "reduce_mean": make_model([node("ReduceMean", "x", axes=[2, 3])], opset=13),
    "reduce_mean_18": make_model([node("ReduceMean", "x a")], data={"a": ints(2, 3)}),
    "reduce_max": make_model([node("ReduceMax", "x", keepdims=0)]),
    "reduce_min": make_model([node("ReduceMin", "x a")], data={"a": ints(1)}),
    "where": make_model([node("Less", "x t", "m"), node("Where", "m x t")], data={"t": number(0.2)}),
    "not_a_threshold": make_model([node("Greater", "x t", "m"), node("Where", "m x t")], data={"t": number(0.2)}),
    "resize_nearest": make_model(
        [node("Resize", "x - s", coordinate_transformation_mode="asymmetric", nearest_mode="floor")],
        data={"s": np.array([1, 1, 2, 3], np.float32)}),
    "resize_default": make_model([node("Resize", "x - s")], data={"s": np.array([1, 1, 2, 3], np.float32)}),
    "resize_linear": make_model(
        [node("Resize", "x - s", mode="linear")], data={"s": np.array([1, 1, 2, 2], np.float32)}),
    "resize_corners": make_model(
        [node("Resize", "x - s", mode="linear", coordinate_transformation_mode="align_corners", axes=[3, 2])],
        data={"s": np.array([3, 2], np.float32)}),
    "resize_fraction": make_model(
        [node("Resize", "x - s", mode="linear")], {"x": ["N", 3, 4, 6]}, {"s": np.array([1, 1, 1.5, 0.5], np.float32)}),
    "resize_sizes": make_model(
        [node("Resize", "x - - s", mode="linear")], {"x": [2, 3, 4, 6]}, {"s": ints(2, 3, 7, 12)}),
    "shape_chain": make_model([  # x.reshape(N, C*H, -1), as exporters write it
        node("Shape", "x", "s"), node("Gather", "s zero", "n"), node("Slice", "s one three", "ch"),
        node("ReduceProd", "ch", "product", keepdims=1), node("Unsqueeze", "n axis", "n1"),
        node("Cast", "product", "p64", to=7), node("Concat", "n1 p64 rest", "shape", axis=0), node("Reshape", "x shape"),
    ], data={"zero": ints(0).reshape(()), "one": ints(1), "three": ints(3), "axis": ints(0), "rest": ints(-1)}),
    "shape_arithmetic": make_model([  # resized to the size that twice its half has
        node("Shape", "x", "hw", start=2), node("Div", "hw two", "half"), node("Mul", "half four", "size"),
        node("Shape", "x", "nc", end=2), node("Concat", "nc size", "sizes", axis=0),
        node("Resize", "x - - sizes", mode="linear"),
    ], data={"two": ints(2), "four": ints(4)}),
    "cross_entropy": make_model([
        node("ReduceMax", "x a", "scores", keepdims=0), node("Constant", "", "labels", value_ints=[0, 2]),
        node("SoftmaxCrossEntropyLoss", "scores labels"),
    ], {"x": [2, 3, 5, 6]}, {"a": ints(2, 3)}),
}  # fmt: skip
IN_ORDER = {"N": 2, "batch": 2, "height": 5, "width": 6}  # sizes that every case takes


@pytest.mark.parametrize("name", CASES)
def test_import_agrees_with_onnxruntime(name: str) -> None:
    model = CASES[name]
    arrays = {}
    for seed, v in enumerate(model.graph.input):
        shape = [d.dim_value or IN_ORDER[d.dim_param] for d in v.type.tensor_type.shape.dim]
        arrays[v.name] = floats(*shape, seed=seed)
    check_import(model, arrays)


def text(model: onnx.ModelProto) -> str:
    return str(from_model(model))


def test_names_and_symbols_are_kept() -> None:
    model = make_model(
        [node("Conv", "x w", "/conv/out", name="/conv/Conv"), node("Relu", "/conv/out", "scores", name="")],
        data={"w": W3},
        outputs="scores",
    )
    model.metadata_props.add(key="classes", value="cat dog")
    graph = from_model(model)
    assert str(graph) == "\n".join([
        "graph net(%x: f32[N,3,H,W]) {",
        "  %w: f32[4,3,3,3] = param()",
        '  %/conv/out: f32[N,4,H-2,W-2] = conv2d(%x, %w, bias=False) @ "/conv/Conv"',
        "  %scores: f32[N,4,H-2,W-2] = relu(%/conv/out)",
        "  return %scores",
        "}",
    ])  # fmt: skip
    assert graph.meta == {"classes": "cat dog"}


def test_strange_names_stay_apart() -> None:
    model = make_model([node("Relu", "x", 'a"b', name="n\n"), node("Relu", 'a"b', "a_b", name="n_"),
                        node("Neg", "a_b", 'a\\b', name="n_"), node("Add", 'a\\b a"b')])  # fmt: skip
    graph = from_model(model)
    assert [n.outputs[0].name for n in graph.nodes] == ["a_b_1", "a_b", "a_b_2", "y"]
    assert [n.name for n in graph.nodes] == ["n__1", "n_", "n__2", "node_y"]


@pytest.mark.parametrize(
    ("inputs", "types"),
    [
        ({"x": ["b", 3, "h", "w"]}, "f32[N,3,H,W]"),
        ({"x": [None, 3, None, None]}, "f32[N,3,H,W]"),
        ({"x": [1, 3, "s", "s"]}, "f32[1,3,H,H]"),
        ({"x": ["b", 7]}, "f32[b,7]"),
        ({"x": [None, 7, "not-a-name", "max"]}, "f32[N,7,H,W]"),
        ({"x": ["if", "d1", "a b"]}, "f32[d1,d2,d3]"),
        ({"a": ["h", "b"], "x": ["b", 3, "h", "w"]}, "f32[H,N] f32[N,3,H,W]"),
        ({"a": ["H", 4], "x": ["b", 3, "h", "w"]}, "f32[d1,4] f32[N,3,H,W]"),
        ({"a": ["b", 1, "h", "w"], "x": ["b", 3, "h2", "w"]}, "f32[N,1,H,W] f32[N,3,h2,W]"),
        ({"a": ["b", 1, "2*h", "w//2+1"], "x": ["b", 3, "h", "w"]}, "f32[N,1,2*H,W//2+1] f32[N,3,H,W]"),
    ],
)
def test_symbols_of_inputs(inputs: dict[str, Shape], types: str) -> None:
    graph = from_model(make_model([node("Relu", "x")], inputs))
    assert " ".join(str(v.type) for v in graph.inputs) == types


def test_initializer_that_is_an_input_is_a_parameter() -> None:
    graph = from_model(make_model([node("Conv", "x w")], {"x": IMAGE, "w": (4, 3, 3, 3)}, {"w": W3}))
    assert [v.name for v in graph.inputs] == ["x"]
    np.testing.assert_array_equal(graph.params["w"].array, W3)


def test_shared_and_unused_initializers() -> None:
    nodes = [node("Identity", "w", "w2"), node("Conv", "x w", "a"), node("Conv", "x w2", "b"), node("Add", "a b")]
    graph = from_model(make_model(nodes, data={"w": W3, "unused": W3}))
    assert list(graph.params) == ["w"]
    assert graph.params["w"].trainable


def test_statistics_and_constants_are_not_trained() -> None:
    nodes = [node("BatchNormalization", "x a b m v", "n"), node("Mul", "n half")]
    data = {**{k: np.ones(3, np.float32) for k in "abmv"}, "half": number(0.5)}
    graph = from_model(make_model(nodes, data=data))
    assert {k: p.trainable for k, p in graph.params.items()} == {
        "a": True, "b": True, "m": False, "v": False, "half": False}  # fmt: skip


def test_attributes_are_short_decimals() -> None:
    model = make_model([node("LeakyRelu", "x", "a", alpha=0.2), node("Clip", "a lo")], data={"lo": number(-0.1)})
    assert "leaky_relu(%x, alpha=0.2)" in text(model)
    assert "clip(%a, minimum=-0.1)" in text(model)


def test_nodes_in_any_order() -> None:
    nodes = [node("Relu", "b"), node("Neg", "x", "a"), node("Abs", "a", "b")]
    assert [n.op.name for n in from_model(make_model(nodes)).nodes] == ["neg", "abs", "relu"]


def test_long_chain() -> None:
    """10,000 nodes, in reverse order: no recursion, nothing quadratic."""
    nodes = [node("Relu", f"v{i}", f"v{i + 1}") for i in range(10_000)]
    graph = from_model(make_model(nodes[::-1], {"v0": IMAGE}, outputs="v10000"))
    assert len(graph.nodes) == 10_000


def test_resize_by_sizes_is_a_scale_where_it_is_whole() -> None:
    assert "upsample_bilinear(%x)" in text(CASES["resize_linear"])
    assert "size=(4*(H//2), 4*(W//2))" in text(CASES["shape_arithmetic"])
    assert "upsample_nearest(%x, scale=(2, 3))" in text(CASES["resize_default"])


# ---- what graphc cannot do -------------------------------------------------------------------------------------------


def test_unsupported_nodes_are_listed_at_once() -> None:
    nodes = [
        node("Foo", "x", "a", name="first"),
        node("Relu", "a", "b"),
        node("Det", "b", "c", name="second"),
        node("LpPool", "x", "d", name="third", kernel_shape=[2, 2], p=3),
        node("Add", "c d"),
    ]
    with pytest.raises(UnsupportedError) as caught:
        from_model(make_model(nodes), name="m.onnx")
    assert caught.value.problems == (
        "node 'first' (op Foo): graphc has no such op",
        "node 'second' (op Det): graphc has no such op",
        "node 'third' (op LpPool): p=3; only p=2 is supported",
    )
    assert str(caught.value).startswith("m.onnx: node 'first' (op Foo)")


UNSUPPORTED = {
    "domain": (make_model([helper.make_node("Relu", ["x"], ["y"], domain="com.microsoft")]), "domain com.microsoft"),
    "attribute": (make_model([node("Relu", "x", novelty=1)]), "attribute 'novelty'"),
    "storage_order": (make_model([node("MaxPool", "x", kernel_shape=[2, 2], storage_order=1)]), "storage_order=1"),
    "same": (
        make_model([node("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER")]),
        "auto_pad=SAME_UPPER with stride 2 pads by a number that depends on H=H",
    ),
    "conv1d": (make_model([node("Conv", "x w")], data={"w": floats(4, 3, 3)}), "only two spatial dims"),
    "cubic": (
        make_model([node("Resize", "x - s", mode="cubic")], data={"s": np.array([1, 1, 2, 2], np.float32)}),
        "mode=cubic with coordinate_transformation_mode=half_pixel; only",
    ),
    "fraction": (
        make_model([node("Resize", "x - s", mode="linear")], data={"s": np.array([1, 1, 1.5, 2], np.float32)}),
        "not whole numbers",
    ),
    "nearest": (
        make_model([node("Resize", "x - s", nearest_mode="ceil")], data={"s": np.array([1, 1, 2, 2], np.float32)}),
        "only asymmetric and floor",
    ),
    "channels": (
        make_model([node("Resize", "x - s", mode="linear")], data={"s": np.array([1, 2, 2, 2], np.float32)}),
        "resize N or C",
    ),
    "computed_shape": (
        make_model([node("ReduceMax", "x", "m", keepdims=0), node("Reshape", "x m")]), "computed at run time"),
    "crop": (make_model([node("Pad", "x p")], data={"p": ints(0, 0, -1, 0, 0, 0, 0, 0)}), "crop"),
    "training": (
        make_model([node("BatchNormalization", "x a a a a", training_mode=1)], data={"a": floats(3)}), "training_mode=1"),
    "mask_output": (make_model([node("Dropout", "x", "y m")], outputs="y m"), "output 'm' is not supported"),
    "float16": (make_model([node("Add", "x h")], data={"h": np.ones(3, np.float16)}), "element type FLOAT16"),
    "float_to_int": (make_model([node("Cast", "x", to=7)]), "from f32 to i64"),
    "gather": (make_model([node("Gather", "x i")], data={"i": ints(0)}), "constants or shapes"),
    "shape_output": (make_model([node("Shape", "x")]), "a shape that depends on the inputs"),
    "big": (
        make_model([node("ConstantOfShape", "s", "z"), node("Add", "x z")], data={"s": ints(10**6, 10**6)}),
        "at most 1048576 elements",
    ),
    "old": (make_model([node("Relu", "x")], opset=10), "opset 10, expected 11 to"),
    "input_dtype": (
        helper.make_model(
            helper.make_graph([node("Relu", "x")], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1])],
                              [onnx.ValueInfoProto(name="y")])  # fmt: skip
        ),
        "input 'x': element type FLOAT16",
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported(name: str) -> None:
    model, reason = UNSUPPORTED[name]
    with pytest.raises(UnsupportedError, match=reason.replace("(", r"\(")) as caught:
        from_model(model, name="m.onnx")
    assert str(caught.value).startswith("m.onnx: ")


def test_newer_opset_than_onnx_knows() -> None:
    model = make_model([node("Relu", "x")])
    model.opset_import[0].version = defs.onnx_opset_version() + 1
    with pytest.raises(UnsupportedError, match="expected 11 to"):
        from_model(model)


# ---- files that are not well formed ------------------------------------------------------------------------------------


def spoil(model: onnx.ModelProto, **fields: Any) -> onnx.ModelProto:
    """The model with these fields of its first initialiser replaced."""
    tensor = model.graph.initializer[0]
    for field, value in fields.items():
        tensor.ClearField(field)
        if isinstance(value, list):
            getattr(tensor, field).extend(value)
        elif value is not None:
            setattr(tensor, field, value)
    return model


def conv(**attributes: Any) -> onnx.ModelProto:
    return make_model([node("Conv", "x w", **attributes)], data={"w": W3})


def pool(**attributes: Any) -> onnx.ModelProto:
    return make_model([node("MaxPool", "x", **attributes)])


MALFORMED = {
    "cycle": (
        make_model([node("Add", "x c", "a"), node("Relu", "a", "b"), node("Neg", "b", "c"), node("Neg", "c")]),
        r"the graph has a cycle: node 'node_a' \(op Add\) -> node 'node_b' \(op Relu\) -> node 'node_c' \(op Neg\)",
    ),
    "self_loop": (make_model([node("Relu", "y")]), r"cycle: node 'node_y' \(op Relu\)$"),
    "dangling": (make_model([node("Relu", "nowhere")]), r"node 'node_y' \(op Relu\): its input 'nowhere' is not defined"),
    "twice": (make_model([node("Relu", "x"), node("Neg", "x")]), "its output 'y' is already defined"),
    "output": (make_model([node("Relu", "x", "z")]), "output 'y' is not defined"),
    "no_output": (make_model([node("Relu", "x")], outputs=""), "at least one output"),
    "same_output": (make_model([node("Relu", "x")], outputs="y y"), "a different name for each"),
    "input_twice": (make_model([node("Relu", "x")], data={"w": W3, "w2": W3}), None),
    "missing_data": (spoil(conv(), raw_data=None), r"tensor 'w': expected 108 elements for f32\[4,3,3,3\], got 0"),
    "short_data": (spoil(conv(), raw_data=b"1234"), r"tensor 'w': expected 432 bytes for f32\[4,3,3,3\], got 4"),
    "negative_dim": (spoil(conv(), dims=[4, 3, 3, -3]), r"tensor 'w': expected a whole tensor"),
    "huge_dim": (spoil(conv(), dims=[2**40, 2**40, 1, 1]), "expected .* bytes"),
    "kernel_shape": (conv(kernel_shape=[5, 5]), r"node 'node_y' \(op Conv\): kernel_shape \[5, 5\] is not that of"),
    "zero_stride": (conv(strides=[0, 1]), r"\(op Conv\): stride must be 2 integers of at least 1, got \(0, 1\)"),
    "zero_stride_same": (conv(strides=[0, 1], auto_pad="SAME_UPPER"), "at least 1"),
    "negative_stride": (pool(kernel_shape=[2, 2], strides=[-1, 1]), "stride must be 2 integers"),
    "zero_kernel": (pool(kernel_shape=[0, 2]), "kernel must be 2 integers of at least 1"),
    "no_kernel": (pool(), "expected an attribute 'kernel_shape'"),
    "negative_pads": (conv(pads=[0, 0, -1, 0]), "padding must be 4 integers of at least 0"),
    "groups": (conv(group=2), "wants 3.2 input channels"),
    "no_groups": (conv(group=0), "group"),
    "auto_pad": (conv(auto_pad="SAME"), "auto_pad: expected one of"),
    "nan": (make_model([node("LeakyRelu", "x", alpha=float("nan"))]), "attribute 'alpha': expected a finite number"),
    "nan_bound": (make_model([node("Clip", "x b")], data={"b": number(float("nan"))}), "clip"),
    "attribute_kind": (conv(strides=[1.5, 1.0]), "attribute 'strides': expected a list of integers, got a list of floats"),
    "rank": (make_model([node("Conv", "x w")], {"x": ["N", 3]}, {"w": W3}), r"\(op Conv\): expected an image batch"),
    "dtype": (make_model([node("Conv", "x w")], data={"w": W3.astype(np.float64)}), r"weight must be f32\[K,C,R,S\], got f64"),
    "channels": (make_model([node("Conv", "x w")], data={"w": floats(4, 2, 3, 3)}), "wants 2.1 input channels"),
    "dynamic_channels": (
        make_model([node("Relu", "x")], {"x": ["N", "C", "H", "W"]}), "input 'x': expected a constant number of channels"),
    "zero_dim": (make_model([node("Relu", "x")], {"x": [0, 3]}), "every dim must be at least 1"),
    "no_inputs": (make_model([node("Conv", "")]), "expected 2 to 3 inputs, got 0"),
    "no_operands": (make_model([node("Sum", "")]), "expected at least 1 inputs, got 0"),
    "broadcast": (make_model([node("Add", "x k")], data={"k": floats(4, 1, 1)}), r"\(op Add\): shapes .* do not broadcast"),
    "reshape": (make_model([node("Reshape", "x s")], {"x": [2, 3]}, {"s": ints(4, 2)}), "must hold the 6 elements"),
    "axis": (make_model([node("Concat", "x x", axis=4)]), "axis 4 does not exist in rank 4"),
    "perm": (make_model([node("Transpose", "x", perm=[0, 0, 1, 2])]), "perm must hold"),
    "no_axes": (make_model([node("Gather", "s i", "z"), node("Reshape", "x z")], data={"s": ints(1), "i": ints(5)}),
                r"\(op Gather\): malformed: index 5"),
    "zero_division": (make_model([node("Div", "s s", "z"), node("Reshape", "x z")], data={"s": ints(0)}), "malformed"),
}  # fmt: skip
del MALFORMED["input_twice"]


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name: str) -> None:
    model, message = MALFORMED[name]
    with pytest.raises((GraphError, ShapeError), match=message) as caught:
        from_model(model, name="m.onnx")
    assert str(caught.value).startswith("m.onnx: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "m.onnx: not an ONNX model: it has no graph"),
        (b"\x89PNG\r\n\x1a\n and so on", "m.onnx: not an ONNX model: "),
        (CASES["conv"].SerializeToString()[:200], "m.onnx: not an ONNX model: "),
        (CASES["conv"].SerializeToString().replace(b"node_y", b"node_\xff"), "m.onnx: not an ONNX model: "),
        (make_model([node("Relu", "x")]).graph.SerializeToString(), "m.onnx: not an ONNX model: "),
    ],
)
def test_not_an_onnx_file(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(FileError) as caught:
        load(tmp_path / "m.onnx")
    assert str(caught.value).startswith(message)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="m.onnx: No such file"):
        load(tmp_path / "m.onnx")
    with pytest.raises(FileError, match="Is a directory"):
        load(tmp_path)


FUZZED = to_model(from_model(CASES["conv_all"])).SerializeToString()


@given(st.lists(st.tuples(st.integers(0, len(FUZZED) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_damage_raises_only_graphc_errors(changes: list[tuple[int, int]]) -> None:
    content = bytearray(FUZZED)
    for at, byte in changes:
        content[at] = byte
    model = onnx.ModelProto()
    try:
        model.ParseFromString(bytes(content))
    except Exception:  # protobuf's own; load turns it into a FileError
        return
    try:
        from_model(model)
    except GraphcError as error:
        assert "\n" not in str(error)


# ---- external data -----------------------------------------------------------------------------------------------------


def external(folder: Path, location: str, **entries: str) -> Path:
    """A model in `folder` whose weights are said to lie at `location`."""
    model = spoil(conv(), raw_data=None)
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"head" + W3.tobytes())
    graph = load(external(tmp_path, "w.bin", offset="4", length=str(W3.nbytes)))
    np.testing.assert_array_equal(graph.params["w"].array, W3)


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "link.bin", "missing.bin", "", "sub/../../w.bin"])
def test_external_data_stays_in_the_folder(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "w.bin").write_bytes(W3.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(FileError) as caught:
        load(external(folder, location))
    assert str(caught.value).startswith(f"m.onnx: node 'node_y' (op Conv): tensor 'w': external data '{location}': ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("entries", [{"offset": "-4"}, {"offset": "many"}, {"length": "1000000"}, {"length": "8"}])
def test_external_data_of_the_wrong_size(tmp_path: Path, entries: dict[str, str]) -> None:
    (tmp_path / "w.bin").write_bytes(W3.tobytes())
    with pytest.raises((FileError, GraphError), match="tensor 'w'"):
        load(external(tmp_path, "w.bin", **entries))


def test_external_data_without_a_folder(tmp_path: Path) -> None:
    model = onnx.load(external(tmp_path, "w.bin"), load_external_data=False)
    with pytest.raises(FileError, match="tensor 'w': external data 'w.bin': expected the model's folder"):
        from_model(model)
    assert model.graph.initializer[0].data_location == TensorProto.EXTERNAL
