"""Reading ONNX: each op against ONNX Runtime; names, symbols and parameters."""

import numpy as np
import onnx
import pytest
from onnx_models import IMAGE, W3, Shape, floats, ints, make_model, node, number, run_onnxruntime

from graphc.ir import Array, Graph
from graphc.ir.verify import verify
from graphc.onnx import from_model
from graphc.passes import optimize
from graphc.reference import run_reference


def check_import(model: onnx.ModelProto, arrays: dict[str, Array], tolerance: float = 2e-6) -> Graph:
    """Import, and compare with ONNX Runtime."""
    graph = verify(from_model(model))
    found = run_reference(graph, [arrays[v.name] for v in graph.inputs])
    for a, b in zip(found, run_onnxruntime(model, arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, float(np.abs(b).max())))
    return graph


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
    **{op: make_model([node(op, "x a")], data={"a": ints(1, -1)})
       for op in ("ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceProd", "ReduceSumSquare")},
    "reduce_log_sum": make_model([node("Exp", "x", "e"), node("ReduceLogSum", "e", axes=[2], keepdims=0)], opset=13),
    "reduce_log_sum_exp_all": make_model([node("ReduceLogSumExp", "x", keepdims=0)]),
    "arg_max": make_model([node("ArgMax", "x", "i", axis=-1, select_last_index=1), node("Cast", "i", to=1)]),
    "arg_min": make_model([node("ArgMin", "x", "i", axis=1, keepdims=0), node("Cast", "i", to=1)]),
    **{op: make_model([node(op, "x")]) for op in ("Floor", "Ceil", "Round", "Sign", "Reciprocal", "HardSigmoid",
       "HardSwish", "Selu", "Celu", "Mish", "Softsign", "ThresholdedRelu", "Shrink",
       "MeanVarianceNormalization", "LpNormalization", "GlobalLpPool")},
    "round_halves": make_model([node("Mul", "x four", "a"), node("Round", "a", "b"), node("Mul", "b half", "c"),
                                node("Round", "c")], data={"four": number(4.0), "half": number(0.5)}),
    "hardmax": make_model([node("Hardmax", "x", axis=-3)]),
    "gelu": make_model([node("Gelu", "x")], opset=20),
    "gelu_tanh": make_model([node("Gelu", "x", approximate="tanh")], opset=20),
    "celu_alpha": make_model([node("Celu", "x", alpha=0.7)]),
    "shrink_bias": make_model([node("Shrink", "x", bias=0.2, lambd=0.4)]),
    "prelu": make_model([node("PRelu", "x s")], data={"s": floats(3, 1, 1)}),
    "mean_of_three": make_model([node("Mean", "x k x")], data={"k": floats(3, 1, 1)}),
    "fmod": make_model([node("Mod", "x k", fmod=1)], data={"k": floats(3, 1, 1)}),
    "integers": make_model([node("Mul", "x ten", "a"), node("Cast", "a", "i", to=7), node("Mod", "i k", "m"),
                            node("Div", "i k", "d"), node("Mod", "i k", "f", fmod=1), node("Add", "m d", "md"),
                            node("Add", "md f", "s"), node("Cast", "s", to=1)],
                           data={"ten": number(10.0), "k": ints(3, -4, 5).reshape(3, 1, 1)}),
    "logic": make_model([node("Greater", "x t", "a"), node("Less", "x u", "b"), node("And", "a b", "c"),
                         node("Xor", "a c", "d"), node("Or", "c d", "e"), node("Not", "e", "f"),
                         node("Equal", "x x", "g"), node("Xor", "f g", "h"), node("Where", "h x t")],
                        data={"t": number(0.2), "u": number(0.9)}),
    "casts": make_model([node("Cast", "x", "i", to=6), node("Cast", "i", "b", to=9), node("Cast", "b", "d", to=11),
                         node("CastLike", "d x")]),
    "is_inf": make_model([node("Div", "x zero", "q"), node("IsInf", "q", "m", detect_negative=0),
                          node("IsNaN", "x", "n"), node("Or", "m n", "b"), node("Cast", "b", to=1)],
                         data={"zero": number(0.0)}),
    "instance_norm": make_model([node("InstanceNormalization", "x a b", epsilon=1e-3)],
                                data={"a": floats(3), "b": floats(3, seed=1)}),
    "layer_norm": make_model([node("LayerNormalization", "x a b", "y m d", axis=-2)], {"x": ["N", 3, 4, 5]},
                             {"a": floats(4, 5), "b": floats(4, 5, seed=1)}, outputs="y m d"),
    "layer_norm_scale": make_model([node("LayerNormalization", "x a")], {"x": ["N", 3, 5]}, {"a": floats(5)}),
    "group_norm": make_model([node("GroupNormalization", "x a b", num_groups=2)], {"x": ["N", 4, "h", "w"]},
                             {"a": floats(4), "b": floats(4, seed=1)}, opset=21),
    "lp_norm_1": make_model([node("LpNormalization", "x", p=1, axis=1)]),
    **{f"lp_pool_{p}": make_model([node("LpPool", "x", kernel_shape=[3, 2], p=p, pads=[1, 0, 1, 0])]) for p in (1, 3)},
    "lp_pool_dilated": make_model([node("LpPool", "x", kernel_shape=[3, 2], dilations=[1, 3])], opset=18),
    "lp_pool_line": make_model([node("LpPool", "x", kernel_shape=[3], strides=[2])], {"x": ["N", 3, "w"]}),
    "lp_pool_volume": make_model([node("LpPool", "x", kernel_shape=[3, 2, 2], strides=[2, 1, 1])],
                                 {"x": ["N", 3, 5, "h", "w"]}),
    "global_lp_pool_3": make_model([node("GlobalLpPool", "x", p=3)]),
    "expand": make_model([node("Shape", "x", "s"), node("Expand", "k s", "e"), node("Add", "x e")],
                         data={"k": floats(3, 1, 1)}),
    "tile": make_model([node("Tile", "x r")], data={"r": ints(1, 2, 3, 1)}),
    "depth_to_space": make_model([node("DepthToSpace", "x", blocksize=2)], {"x": ["N", 8, "h", "w"]}),
    "depth_to_space_crd": make_model([node("DepthToSpace", "x", blocksize=2, mode="CRD")], {"x": ["N", 8, "h", "w"]}),
    "space_to_depth": make_model([node("SpaceToDepth", "x", blocksize=2)], {"x": ["N", 3, 4, 6]}),
    "range": make_model([node("Range", "zero four one", "r"), node("Cast", "r", "f", to=1), node("Add", "x f")],
                        {"x": ["N", 4]}, {"zero": ints(0).reshape(()), "four": ints(4).reshape(()),
                                          "one": ints(1).reshape(())}),
    "slice_9": make_model([node("Slice", "x", starts=[1, -3], ends=[3, 2**31 - 1], axes=[1, 3])], opset=9),
    "pad_10": make_model([node("Pad", "x", pads=[0, 0, 1, 0, 0, 0, 2, 3], value=0.5)], opset=10),
    "upsample_7": make_model([node("Upsample", "x", scales=[1.0, 1.0, 2.0, 3.0])], opset=7),
    "resize_10": make_model([node("Resize", "x s")], data={"s": np.array([1, 1, 2, 3], np.float32)}, opset=10),
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
        node("Cast", "product", "p64", to=7), node("Concat", "n1 p64 rest", "shape", axis=0),
        node("Reshape", "x shape"),
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
IN_ORDER = {"N": 2, "batch": 2, "height": 5, "width": 6, "h": 5, "w": 6}  # sizes that every case takes


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


def test_bounds_as_attributes() -> None:
    """The form of opset 6, which some exporters go on writing, and which ONNX Runtime refuses."""
    assert "clip(%x, maximum=6.0)" in text(make_model([node("Clip", "x", max=6.0)]))


def test_folded_weights_are_shared_like_the_originals() -> None:
    nodes = [node("Gemm", "x w", "a"), node("Gemm", "a w", "b"), node("Gemm", "b w", alpha=0.5)]
    graph = from_model(make_model(nodes, {"x": ["N", 4]}, {"w": floats(4, 4)}))
    assert list(graph.params) == ["w.T", "w.T*0.5"]


def test_nodes_in_any_order() -> None:
    nodes = [node("Relu", "b"), node("Neg", "x", "a"), node("Abs", "a", "b")]
    assert [n.op.name for n in from_model(make_model(nodes)).nodes] == ["neg", "abs", "relu"]


def test_long_chain() -> None:
    """10,000 nodes, in reverse order: no recursion, nothing quadratic."""
    nodes = [node("Relu", f"v{i}", f"v{i + 1}") for i in range(10_000)]
    graph = from_model(make_model(nodes[::-1], {"v0": IMAGE}, outputs="v10000"))
    assert len(graph.nodes) == 10_000


def test_long_chain_of_convolutions() -> None:
    """10,000 nodes through the import, the verifier and every pass: linear time and no recursion."""
    nodes = [
        step
        for i in range(0, 10_000, 2)
        for step in (node("Conv", f"v{i} w", f"v{i + 1}"), node("Relu", f"v{i + 1}", f"v{i + 2}"))
    ]
    graph = verify(from_model(make_model(nodes, {"v0": IMAGE}, {"w": floats(3, 3, 1, 1)}, outputs="v10000")))
    assert len(graph.nodes) == 10_000
    assert len(optimize(graph).nodes) == 5_000


def test_old_opsets_are_raised() -> None:
    """By onnx's version converter: the attribute is_test of a dropout is gone since opset 7."""
    model = make_model([node("Dropout", "x", "h", is_test=1), node("Neg", "h")], {"x": [2, 3]}, opset=6)
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 3]))
    (y,) = run_reference(from_model(model), [floats(2, 3)])
    np.testing.assert_array_equal(y, -floats(2, 3))


@pytest.mark.parametrize(("opset", "axis"), [(6, 1), (7, 3)])
def test_slopes_of_channels_before_opset_7(opset: int, axis: int) -> None:
    """From 7 on they broadcast as NumPy does: here, along W."""
    x, slopes = floats(2, 3, 4, 3), np.array([0.1, 0.2, 0.3], np.float32)
    model = make_model([node("PRelu", "x s")], {"x": x.shape, "s": (3,)}, {"s": slopes}, opset=opset)
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, x.shape))
    factor = slopes.reshape([3 if i == axis else 1 for i in range(4)])
    np.testing.assert_array_equal(run_reference(from_model(model), [x])[0], np.where(x < 0, x * factor, x))


def test_resize_by_sizes_is_a_scale_where_it_is_whole() -> None:
    assert "upsample_bilinear(%x)" in text(CASES["resize_linear"])
    assert "size=(4*(H//2), 4*(W//2))" in text(CASES["shape_arithmetic"])
    assert "upsample_nearest(%x, scale=(2, 3))" in text(CASES["resize_default"])
