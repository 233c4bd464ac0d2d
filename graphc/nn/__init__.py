"""Layers: functions from values to values, with which a network is declared.

    net = Builder("lenet5", seed=0)
    x = net.input("image", f32("N", 1, "H", "W"))
    x = nn.tanh(nn.conv2d(x, 6, 5, name="conv1"))

A layer that has parameters takes a `name`, creates `<name>.weight` and so on with PyTorch's default initial values,
and names its node `<name>`. Where a pair is wanted, an int stands for two equal ones. Every function raises
ShapeError, which names the layer, if its operands or attributes do not fit.
"""
# ruff: noqa: I001 (which wants each name on a line of its own)

from graphc.nn.elementwise import (
    abs, add, clip, div, dropout, elu, exp, hard_threshold, identity, leaky_relu, log, maximum, minimum, mul, neg, pow,
    relu, sigmoid, softplus, sqrt, sub, tanh,
)  # fmt: skip
from graphc.nn.index import (
    cum_sum, gather, gather_elements, gather_nd, grid_sample, interpolate, positions, roi_align, scatter_elements,
    scatter_nd, top_k,
)  # fmt: skip
from graphc.nn.layers import batch_norm, conv2d, conv_transpose2d, linear, locally_connected2d
from graphc.nn.pool import (
    average_pool, channel_l2_pool, global_average_pool, global_max_pool, l2_pool, max_pool, max_pool_with_indices,
    max_unpool, min_pool,
)  # fmt: skip
from graphc.nn.reduce import (
    arg_max, arg_min, binary_cross_entropy_with_logits, l2_penalty, local_response_norm, log_softmax, matmul, mean,
    mean_squared_error, prod, reduce_max, reduce_min, softmax, softmax_cross_entropy, sum,
)  # fmt: skip
from graphc.nn.shape import (
    bed_of_nails, concat, expand, flatten, pad, reshape, slice, split, transpose, upsample_bilinear, upsample_nearest,
)  # fmt: skip

__all__ = [
    "abs", "add", "arg_max", "arg_min", "average_pool", "batch_norm", "bed_of_nails",
    "binary_cross_entropy_with_logits", "channel_l2_pool", "clip", "concat", "conv2d", "conv_transpose2d", "cum_sum",
    "div", "dropout", "elu", "exp", "expand", "flatten", "gather", "gather_elements", "gather_nd",
    "global_average_pool", "global_max_pool", "grid_sample", "hard_threshold", "identity", "interpolate",
    "l2_penalty", "l2_pool", "leaky_relu", "linear", "local_response_norm", "locally_connected2d", "log",
    "log_softmax", "matmul", "max_pool", "max_pool_with_indices", "max_unpool", "maximum", "mean",
    "mean_squared_error", "min_pool", "minimum", "mul", "neg", "pad", "positions", "pow", "prod", "reduce_max",
    "reduce_min", "relu", "reshape", "roi_align", "scatter_elements", "scatter_nd", "sigmoid", "slice", "softmax",
    "softmax_cross_entropy", "softplus", "split", "sqrt", "sub", "sum", "tanh", "top_k", "transpose",
    "upsample_bilinear", "upsample_nearest",
]  # fmt: skip
