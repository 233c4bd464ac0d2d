"""Hostile files whose ops ask for what cannot be: attributes, constants and shapes that do not fit, or are huge."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hostile import Case, bad
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper
from onnx_models import W3, Shape, floats, ints, make_model, node, number

from graphc.errors import GraphcError, GraphError, InputError, ShapeError, UnsupportedError
from graphc.ir import Array

BIG, HUGE = 2**31, 2**62
IMAGE = [1, 3, 8, 8]


def one(
    op: str,
    x: str = "x",
    data: dict[str, Array] | None = None,
    shape: Shape | None = None,
    opset: int = 18,
    **fields: Any,
) -> ModelProto:
    """A model of one node, `node_y`, over the input x, by default an open image."""
    return make_model([node(op, x, **fields)], None if shape is None else {"x": shape}, data, opset=opset)


def conv(w: Array = W3, shape: Shape | None = None, op: str = "Conv", **fields: Any) -> ModelProto:
    return one(op, "x w", {"w": w}, shape, **fields)


def two(op: str, inputs: str, data: dict[str, Array]) -> ModelProto:
    """A Reshape to what another op, `node_z`, computes of constants."""
    return make_model([node(op, inputs, "z"), node("Reshape", "x z")], {"x": IMAGE}, data)


def parts(data: dict[str, Array], **fields: Any) -> ModelProto:
    return make_model([node("Split", "x s" if data else "x", "y z", **fields)], {"x": IMAGE}, data)


def top(k: int) -> ModelProto:
    return make_model([node("TopK", "x k", "y i")], {"x": [3]}, {"k": ints(k)})


def constant(**fields: Any) -> ModelProto:
    return make_model([node("Constant", "", "k", **fields), node("Add", "x k")])


def with_attribute(op: str, attribute: AttributeProto) -> ModelProto:
    model = one(op)
    model.graph.node[0].attribute.append(attribute)
    return model


def scales(*values: float) -> dict[str, Array]:
    return {"s": np.array(values, np.float32)}


def bounds(**values: Sequence[int]) -> dict[str, Array]:
    return {k: np.array(v, np.int64) for k, v in values.items()}


nan, inf = float("nan"), float("inf")

SHAPE_ERRORS = {
    # convolutions
    "conv_kernel_beyond_image": conv(floats(4, 3, 9, 9), [1, 3, 8, 8]),
    "conv_stride_0": conv(strides=[0, 1]),
    "conv_stride_negative": conv(strides=[1, -1]),
    "conv_stride_big": conv(strides=[BIG, BIG]),
    "conv_stride_huge": conv(strides=[HUGE, 1]),
    "conv_stride_too_many": conv(strides=[1, 1, 1]),
    "conv_dilation_0": conv(dilations=[0, 1]),
    "conv_dilation_negative": conv(dilations=[-1, 1]),
    "conv_dilation_huge": conv(dilations=[HUGE, 1]),
    "conv_dilation_huge_static": conv(dilations=[HUGE, 1], shape=[1, 3, 8, 8]),
    "conv_pads_negative": conv(pads=[0, 0, -1, 0]),
    "conv_pads_big": conv(pads=[BIG, BIG, BIG, BIG]),
    "conv_pads_huge": conv(pads=[HUGE, HUGE, HUGE, HUGE]),
    "conv_pads_huge_static": conv(pads=[HUGE, HUGE, HUGE, HUGE], shape=[1, 3, 8, 8]),
    "conv_pads_wrap": conv(pads=[2**32, 2**32, 2**32, 2**32]),
    "conv_group_0": conv(group=0),
    "conv_group_negative": conv(group=-1),
    "conv_group_not_dividing": conv(floats(4, 1, 3, 3), group=3),
    "conv_group_huge": conv(group=HUGE),
    "conv_channels": conv(floats(4, 2, 3, 3)),
    "conv_weights_f64": conv(W3.astype(np.float64)),
    "conv_weights_i64": conv(W3.astype(np.int64)),
    "conv_weights_rank": conv(floats(4, 3)),
    "conv_bias_length": one("Conv", "x w b", {"w": W3, "b": floats(5)}),
    "conv_kernel_shape": conv(kernel_shape=[5, 5]),
    "conv_kernel_0": conv(np.zeros((4, 3, 0, 3), np.float32)),
    "conv_no_channels": conv(np.zeros((4, 0, 3, 3), np.float32), [1, 0, 8, 8]),
    "conv_auto_pad": conv(auto_pad="SAME"),
    "conv_auto_pad_bytes": conv(auto_pad=b"\xff\xfe"),
    "conv_transpose_pads_beyond": conv(floats(3, 4, 3, 3), op="ConvTranspose", pads=[9, 9, 9, 9], shape=[1, 3, 2, 2]),
    "conv_transpose_stride_huge": conv(floats(3, 4, 3, 3), op="ConvTranspose", strides=[HUGE, HUGE]),
    "conv_transpose_stride_big": conv(
        floats(3, 4, 3, 3), op="ConvTranspose", strides=[2**40, 2**40], shape=[1, 3, 8, 8]
    ),
    "conv_transpose_group": conv(floats(3, 4, 3, 3), op="ConvTranspose", group=2),
    # pools
    "pool_kernel_0": one("MaxPool", kernel_shape=[0, 2]),
    "pool_kernel_negative": one("MaxPool", kernel_shape=[-2, 2]),
    "pool_kernel_huge": one("MaxPool", kernel_shape=[HUGE, HUGE]),
    "pool_kernel_big_padded": one("AveragePool", kernel_shape=[BIG, BIG], pads=[BIG - 1] * 4),
    "pool_kernel_beyond_image": one("AveragePool", kernel_shape=[9, 9], shape=[1, 3, 8, 8]),
    "pool_pads_huge": one("MaxPool", kernel_shape=[2, 2], pads=[HUGE] * 4),
    "pool_stride_negative": one("MaxPool", kernel_shape=[2, 2], strides=[-1, 1]),
    "lrn_0": one("LRN", size=0),
    # shapes
    "reshape_twice": one("Reshape", "x s", {"s": ints(-1, -1)}, IMAGE),
    "reshape_negative": one("Reshape", "x s", {"s": ints(-2, 4)}, IMAGE),
    "reshape_count": one("Reshape", "x s", {"s": ints(5, 5)}, IMAGE),
    "reshape_wrap": one("Reshape", "x s", {"s": ints(HUGE, 4, 192)}, IMAGE),
    "reshape_zero_beyond": one("Reshape", "x s", {"s": ints(192, 1, 1, 1, 0)}, IMAGE),
    "reshape_floats": one("Reshape", "x s", {"s": floats(2)}, IMAGE),
    "expand_negative": one("Expand", "x s", {"s": ints(-5)}, [1]),
    "constant_of_shape_negative": one("ConstantOfShape", "s", {"s": ints(-1)}, [1]),
    "constant_of_shape_two": one(
        "ConstantOfShape", "s", {"s": ints(4)}, [1], value=helper.make_tensor("v", 1, [2], [1.0, 2.0])
    ),
    "tile_negative": one("Tile", "x r", {"r": ints(-2)}, [3]),
    "tile_length": one("Tile", "x r", {"r": ints(2, 2)}, [3]),
    "pad_away": one("Pad", "x p", {"p": ints(-2, -2)}, [3]),
    "pad_reflect_beyond": one("Pad", "x p", {"p": ints(5, 5)}, [3], mode="reflect"),
    "pad_mode": one("Pad", "x p", {"p": ints(1, 1)}, [3], mode="mirror\n"),
    "pad_length": one("Pad", "x p", {"p": ints(1, 1, 1)}, [3]),
    "slice_step_0": one("Slice", "x a b c d", bounds(a=[0], b=[2], c=[0], d=[0]), [3]),
    "slice_axis": one("Slice", "x a b c", {"a": ints(0), "b": ints(2), "c": ints(HUGE)}, [3]),
    "slice_axes_twice": one("Slice", "x a b c", {"a": ints(0, 1), "b": ints(2, 2), "c": ints(0, 0)}, [3]),
    "slice_lengths": one("Slice", "x a b", {"a": ints(0, 1), "b": ints(2)}, [3]),
    "concat_axis": one("Concat", "x x", axis=4),
    "concat_axis_huge": one("Concat", "x x", axis=-HUGE),
    "concat_shapes": one("Concat", "x k", {"k": floats(1, 3, 5, 5)}, [1, 3, 8, 8], axis=1),
    "concat_ranks": one("Concat", "x k", {"k": floats(3)}, axis=1),
    "split_sizes": parts({"s": ints(1, 1)}),
    "split_negative": parts({"s": ints(-1, 4)}, axis=1),
    "split_count": parts({}, num_outputs=BIG),
    "split_0": parts({}, num_outputs=0),
    "transpose_perm": one("Transpose", perm=[0, 0, 1, 2]),
    "transpose_huge": one("Transpose", perm=[0, 1, 2, HUGE]),
    "squeeze_3": one("Squeeze", "x a", {"a": ints(1)}),
    "unsqueeze_huge": one("Unsqueeze", "x a", {"a": ints(HUGE)}),
    "unsqueeze_twice": one("Unsqueeze", "x a", {"a": ints(0, 0)}),
    "flatten_axis": one("Flatten", axis=9),
    "depth_to_space_0": one("DepthToSpace", blocksize=0),
    "depth_to_space_negative": one("DepthToSpace", blocksize=-1),
    "depth_to_space_huge": one("DepthToSpace", blocksize=BIG),
    "space_to_depth_0": one("SpaceToDepth", blocksize=0),
    "space_to_depth_3": one("SpaceToDepth", blocksize=3, shape=[1, 3, 8, 8]),
    # constants and sizes
    "one_hot_values": one("OneHot", "x d v", {"d": ints(3), "v": floats(3)}, [3]),
    "top_k_negative": top(-1),
    "top_k_huge": top(HUGE),
    "resize_scale_0": one("Resize", "x - s", scales(1, 1, 0, 1)),
    "resize_scale_negative": one("Resize", "x - s", scales(1, 1, -2, 1)),
    "resize_scale_nan": one("Resize", "x - s", scales(1, 1, nan, 1)),
    "resize_scale_inf": one("Resize", "x - s", scales(1, 1, inf, 1)),
    "resize_scale_huge": one("Resize", "x - s", scales(1, 1, 1e30, 1)),
    "resize_scale_tiny": one("Resize", "x - s", scales(1, 1, 1e-30, 1), [1, 3, 8, 8]),
    "resize_sizes": one("Resize", "x - - s", {"s": ints(1, 3, -9, 9)}),
    "resize_both": one("Resize", "x - s t", {"s": floats(4), "t": ints(1, 3, 9, 9)}),
    "resize_mode": one("Resize", "x - - s", {"s": ints(1, 3, 9, 9)}, mode="cubist"),
    "upsample_scale": one("Upsample", "x s", scales(1, 1, 0.0, 1), opset=9),
    "gather_axis": one("Gather", "x i", {"i": ints(0)}, axis=HUGE),
    "pow_sizes": two("Pow", "s e", {"s": ints(10), "e": ints(10**6)}),
    # others
    "softmax_axis": one("Softmax", axis=4),
    "softmax_empty": one("Softmax", shape=[0, 3]),
    "reduce_axis": one("ReduceSum", "x a", {"a": ints(7)}),
    "reduce_axes_twice": one("ReduceSum", "x a", {"a": ints(1, 1)}),
    "arg_max_axis": one("ArgMax", axis=-9),
    "norm_lengths": one("BatchNormalization", "x a b c d", {k: floats(4) for k in "abcd"}),
    "group_norm_0": one("GroupNormalization", "x a b", {"a": floats(3), "b": floats(3)}, num_groups=0, opset=21),
    "group_norm_2": one("GroupNormalization", "x a b", {"a": floats(3), "b": floats(3)}, num_groups=2, opset=21),
    "clip_nan": one("Clip", "x b", {"b": number(nan)}),
    "clip_shape": one("Clip", "x b", {"b": floats(2)}),
    "gemm": one("Gemm", "x k", {"k": floats(4, 5)}, [2, 3]),
    "gemm_rank": one("Gemm", "x k", {"k": floats(4, 5)}),
    "mat_mul": one("MatMul", "x k", {"k": floats(4, 5)}, [2, 3]),
    "add_shapes": one("Add", "x k", {"k": floats(4, 1, 1)}),
    "add_types": one("Add", "x k", {"k": ints(1)}),
    "einsum": one("Einsum", "x", equation="abcd->" + "z" * 2000),
    "einsum_bytes": one("Einsum", "x", equation=b"\xff->\x00"),
    "einsum_ellipsis": one("Einsum", "x", equation="..." * 30),
    "roi_output": one("RoiAlign", "x b i", {"b": floats(2, 4), "i": ints(0, 0)}, output_height=-1, sampling_ratio=2),
    "quantise_scale": one("QuantizeLinear", "x s z", {"s": floats(5), "z": np.zeros(5, np.uint8)}),
    "dequantise_f64": one("DequantizeLinear", "x s", {"s": number(1)}),
}
GRAPH_ERRORS = {
    # convolutions
    "conv_strides_floats": conv(strides=[1.5, 1.0]),
    "conv_strides_string": conv(strides="1"),
    # pools
    "pool_kernel_missing": one("MaxPool"),
    "lrn_nan": one("LRN", size=3, alpha=nan),
    # shapes
    "reshape_zero": one("Reshape", "x s", {"s": ints(0, -1)}, [0, 3]),
    # constants and sizes
    "range_0": one("Range", "a b c", {"a": np.array(0), "b": np.array(9), "c": np.array(0)}, [1]),
    "range_nan": one("Range", "a b c", {"a": number(0), "b": number(nan), "c": number(1)}, [1]),
    "range_inf": one("Range", "a b c", {"a": number(0), "b": number(inf), "c": number(1)}, [1]),
    "gather_constant": two("Gather", "s i", {"s": ints(1), "i": ints(5)}),
    "divide_sizes_by_0": two("Div", "s s", {"s": ints(0)}),
    "mod_sizes_by_0": two("Mod", "s s", {"s": ints(0)}),
    "pow_negative": two("Pow", "s e", {"s": ints(10), "e": ints(-1)}),
    # others
    "norm_epsilon": one("BatchNormalization", "x a b c d", {k: floats(3) for k in "abcd"}, epsilon=nan),
    "norm_momentum": one("BatchNormalization", "x a b c d", {k: floats(3) for k in "abcd"}, epsilon=inf),
    "leaky_nan": one("LeakyRelu", alpha=nan),
    "elu_inf": one("Elu", alpha=inf),
    "gemm_alpha": one("Gemm", "x k", {"k": floats(3, 5)}, [2, 3], alpha=nan),
    "too_few": one("Conv", ""),
    "too_many": one("Relu", "x x x"),
    "attribute_type": with_attribute("LeakyRelu", helper.make_attribute("alpha", "0.1")),
    "attribute_graph": with_attribute(
        "Softmax", AttributeProto(name="axis", type=AttributeProto.GRAPH, g=GraphProto())
    ),
}
UNSUPPORTED = {
    # convolutions
    "conv_transpose_output_shape": conv(floats(3, 4, 3, 3), op="ConvTranspose", output_shape=[-5, HUGE]),
    # pools
    "pool_rank": one("MaxPool", kernel_shape=[2, 2], shape=[3, 8]),
    "lp_pool_p": one("LpPool", kernel_shape=[2, 2], p=0),
    # shapes
    "reshape_long": one("Reshape", "x s", {"s": np.ones(100_000, np.int64)}, [1]),
    "expand_huge": one("Expand", "x s", {"s": ints(HUGE, 1, 1)}, [1]),
    "expand_wrap": one("Expand", "x s", {"s": ints(2**32, 2**32)}, [1]),
    "expand_open_wrap": one("Expand", "x s", {"s": ints(2**32, 2**32, 1, 1, 1, 1)}),
    "constant_of_shape_huge": one("ConstantOfShape", "s", {"s": ints(HUGE)}, [1]),
    "constant_of_shape_wrap": one("ConstantOfShape", "s", {"s": ints(2**32, 2**32)}, [1]),
    "tile_huge": one("Tile", "x r", {"r": ints(HUGE)}, [3]),
    "tile_big": one("Tile", "x r", {"r": ints(2**40)}, [3]),
    "pad_huge": one("Pad", "x p", {"p": ints(HUGE, HUGE)}, [3]),
    "pad_big": one("Pad", "x p", {"p": ints(2**40, 2**40)}, [3]),
    "unsqueeze_many": one("Unsqueeze", "x a", {"a": ints(*range(1000))}, [1]),
    # constants and sizes
    "range_tiny": one("Range", "a b c", {"a": number(0), "b": number(1), "c": number(1e-30)}, [1]),
    "range_huge": one("Range", "a b c", {"a": np.array(0), "b": np.array(HUGE), "c": np.array(1)}, [1]),
    "one_hot_depth": one("OneHot", "x d v", {"d": ints(2**40), "v": floats(2)}, [3]),
    "one_hot_negative": one("OneHot", "x d v", {"d": ints(-1), "v": floats(2)}, [3]),
    "window_huge": one("HannWindow", "s", {"s": np.array(2**40)}, [1]),
    "window_negative": one("HannWindow", "s", {"s": np.array(-4)}, [1]),
    "mel_huge": one(
        "MelWeightMatrix",
        "a b c d e",
        {"a": np.array(2**40), "b": np.array(8), "c": np.array(16000), "d": number(0), "e": number(8000)},
        [1],
    ),
    "random_huge": one("RandomNormal", "", shape=[HUGE]),
    "col2im": one("Col2Im", "x s b", {"s": ints(HUGE, HUGE), "b": ints(1, 1)}, [1, 3, 5]),
    "resize_sizes_huge": one("Resize", "x - - s", {"s": ints(1, 3, HUGE, HUGE)}),
    "cast_to_unknown": one("Cast", to=999),
    "cast_to_negative": one("Cast", to=-1),
    "cast_to_string": one("Cast", to=TensorProto.STRING),
    # others
    "attribute_unknown": one("Relu", novelty=1),
    "constant_nothing": constant(),
    "constant_string": constant(value_string="x"),
    "grid": one("AffineGrid", "t s", {"t": floats(1, 2, 3), "s": ints(1, 3, 2**20, 2**20)}, [1]),
    "roi": one("RoiAlign", "x b i", {"b": floats(2, 3), "i": ints(0, 0)}),
    "roi_ratio": one("RoiAlign", "x b i", {"b": floats(2, 4), "i": ints(0, 0)}, output_height=BIG, sampling_ratio=BIG),
    "dropout": one("Dropout", "x r t", {"r": number(2), "t": np.array(True)}, seed=1),
}
IN_A_RUN = {
    "conv_kernel_beyond_open_image": conv(floats(4, 3, 9, 9)),
    "prelu": one("PRelu", "x k", {"k": floats(7)}),
}
RIGHT = {
    "lrn_huge": one("LRN", size=HUGE),
    "slice_least_step": one("Slice", "x a b c d", bounds(a=[2], b=[-(2**63)], c=[0], d=[-(2**63)]), [3]),
    "slice_empty": one("Slice", "x a b", {"a": ints(2), "b": ints(2)}, [3]),
    "eye_like": one("EyeLike", k=HUGE, shape=[3, 3]),
    "trilu": one("Trilu", "x k", {"k": np.array(HUGE)}, [3, 3]),
    "shape_bounds": one("Shape", start=-HUGE, end=HUGE),
}

OTHERS = {  # nodes and inputs that are at fault and not called node_y
    "gather_constant": "node_z",
    "divide_sizes_by_0": "node_z",
    "mod_sizes_by_0": "node_z",
    "pow_negative": "node_z",
    "constant_nothing": "node_k",
    "constant_string": "node_k",
    "random_huge": "x",
}


def listed(models: dict[str, ModelProto], error: type[GraphcError]) -> dict[str, Case]:
    return {name: bad(model, error, OTHERS.get(name, "node_y")) for name, model in models.items()}


CASES = {
    **listed(SHAPE_ERRORS, ShapeError),
    **listed(GRAPH_ERRORS, GraphError),
    **listed(UNSUPPORTED, UnsupportedError),
    **listed(IN_A_RUN, InputError),
    **{name: Case(model) for name, model in RIGHT.items()},
}
