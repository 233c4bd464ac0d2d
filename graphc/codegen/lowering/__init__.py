"""From op to loop nests: one function for each op, `lower(op, *inputs, *outputs)`, listed in `LOWERINGS`."""

from collections.abc import Callable, Iterator

from graphc import ops
from graphc.codegen.lowering.conv import (
    lower_conv2d,
    lower_conv2d_weight_gradient,
    lower_conv_transpose2d,
    lower_locally_connected2d,
)  # fmt: skip
from graphc.codegen.lowering.elementwise import lower_elementwise
from graphc.codegen.lowering.index import (
    lower_gather,
    lower_gather_elements,
    lower_gather_nd,
    lower_positions,
    lower_scatter_elements,
    lower_scatter_nd,
)  # fmt: skip
from graphc.codegen.lowering.interpolate import lower_interpolate
from graphc.codegen.lowering.linear import lower_linear, lower_matmul
from graphc.codegen.lowering.loss import (
    lower_binary_cross_entropy_with_logits,
    lower_l2_penalty,
    lower_mean_squared_error,
    lower_softmax_cross_entropy,
)  # fmt: skip
from graphc.codegen.lowering.norm import lower_batch_norm, lower_local_response_norm
from graphc.codegen.lowering.order import lower_cum_sum, lower_top_k
from graphc.codegen.lowering.pool import (
    lower_average_pool,
    lower_average_pool_gradient,
    lower_channel_l2_pool,
    lower_global_average_pool,
    lower_global_max_pool,
    lower_l2_pool,
    lower_max_pool,
    lower_max_pool_gradient,
    lower_max_pool_route,
    lower_max_pool_with_indices,
    lower_max_unpool,
    lower_min_pool,
    lower_pick_cells,
)  # fmt: skip
from graphc.codegen.lowering.reduce import lower_arg_extreme, lower_moments, lower_reduce
from graphc.codegen.lowering.resize import lower_bed_of_nails, lower_upsample_bilinear, lower_upsample_nearest
from graphc.codegen.lowering.sample import lower_grid_sample, lower_roi_align
from graphc.codegen.lowering.shape import (
    lower_concat,
    lower_expand,
    lower_extent,
    lower_iota,
    lower_pad,
    lower_reshape,
    lower_slice,
    lower_slice_gradient,
    lower_split,
    lower_transpose,
)  # fmt: skip
from graphc.codegen.lowering.softmax import lower_log_softmax, lower_softmax
from graphc.codegen.nest import Buffer, Nest
from graphc.errors import UnsupportedError
from graphc.ir import Op

LOWERINGS: dict[type[Op], Callable[..., Iterator[Nest]]] = {
    ops.Conv2d: lower_conv2d,
    ops.Conv2dWeightGradient: lower_conv2d_weight_gradient,
    ops.ConvTranspose2d: lower_conv_transpose2d,
    ops.LocallyConnected2d: lower_locally_connected2d,
    ops.Linear: lower_linear,
    ops.MatMul: lower_matmul,
    ops.MaxPool: lower_max_pool,
    ops.MinPool: lower_min_pool,
    ops.AveragePool: lower_average_pool,
    ops.L2Pool: lower_l2_pool,
    ops.ChannelL2Pool: lower_channel_l2_pool,
    ops.GlobalAveragePool: lower_global_average_pool,
    ops.GlobalMaxPool: lower_global_max_pool,
    ops.MaxPoolWithIndices: lower_max_pool_with_indices,
    ops.MaxPoolGradient: lower_max_pool_gradient,
    ops.MaxPoolRoute: lower_max_pool_route,
    ops.PickCells: lower_pick_cells,
    ops.AveragePoolGradient: lower_average_pool_gradient,
    ops.MaxUnpool: lower_max_unpool,
    ops.BatchNorm: lower_batch_norm,
    ops.Moments: lower_moments,
    ops.LocalResponseNorm: lower_local_response_norm,
    ops.Softmax: lower_softmax,
    ops.LogSoftmax: lower_log_softmax,
    ops.UpsampleNearest: lower_upsample_nearest,
    ops.UpsampleBilinear: lower_upsample_bilinear,
    ops.BedOfNails: lower_bed_of_nails,
    ops.Flatten: lower_reshape,
    ops.Reshape: lower_reshape,
    ops.Transpose: lower_transpose,
    ops.Concat: lower_concat,
    ops.Split: lower_split,
    ops.Slice: lower_slice,
    ops.SliceGradient: lower_slice_gradient,
    ops.Pad: lower_pad,
    ops.Expand: lower_expand,
    ops.Extent: lower_extent,
    ops.Iota: lower_iota,
    ops.Sum: lower_reduce,
    ops.Mean: lower_reduce,
    ops.Prod: lower_reduce,
    ops.ReduceMax: lower_reduce,
    ops.ReduceMin: lower_reduce,
    ops.ArgMax: lower_arg_extreme,
    ops.ArgMin: lower_arg_extreme,
    ops.Positions: lower_positions,
    ops.Gather: lower_gather,
    ops.GatherElements: lower_gather_elements,
    ops.GatherND: lower_gather_nd,
    ops.ScatterElements: lower_scatter_elements,
    ops.ScatterND: lower_scatter_nd,
    ops.TopK: lower_top_k,
    ops.CumSum: lower_cum_sum,
    ops.Interpolate: lower_interpolate,
    ops.GridSample: lower_grid_sample,
    ops.RoiAlign: lower_roi_align,
    ops.MeanSquaredError: lower_mean_squared_error,
    ops.BinaryCrossEntropyWithLogits: lower_binary_cross_entropy_with_logits,
    ops.SoftmaxCrossEntropy: lower_softmax_cross_entropy,
    ops.L2Penalty: lower_l2_penalty,
}


def lower(op: Op, *buffers: Buffer) -> list[Nest]:
    """The loop nests that compute `op`, in order; buffers that are neither inputs nor outputs are temporaries."""
    if isinstance(op, ops.Elementwise):
        return list(lower_elementwise(op, *buffers))
    if type(op) not in LOWERINGS:
        raise UnsupportedError(f"{op.name}: no code generation for this op")
    return list(LOWERINGS[type(op)](op, *buffers))
