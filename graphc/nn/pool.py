"""Pooling layers. x is [N,C,H,W]; `stride` None means the kernel's size, so that windows do not overlap."""

from graphc import ops
from graphc.ir import Value
from graphc.nn.arguments import PaddingLike, PairLike, apply, builder_of, pair, spatial_padding


def max_pool(
    x: Value,
    kernel: PairLike,
    stride: PairLike | None = None,
    padding: PaddingLike = 0,
    dilation: PairLike = 1,
    ceil_mode: bool = False,
    name: str | None = None,
) -> Value:
    """The maximum of each window; [N,C,H,W] to [N,C,P,Q]. Padding never wins."""
    kernel, dilation = pair(kernel), pair(dilation)
    padding = spatial_padding(padding, kernel, dilation)
    return apply(ops.MaxPool(kernel, _stride(stride, kernel), padding, dilation, ceil_mode), x, name=name)


def max_pool_with_indices(
    x: Value,
    kernel: PairLike,
    stride: PairLike | None = None,
    padding: PaddingLike = 0,
    dilation: PairLike = 1,
    ceil_mode: bool = False,
    name: str | None = None,
) -> tuple[Value, Value]:
    """(maxima, i64 indices), both [N,C,P,Q]; an index is a position in the flattened x, the first of equal maxima."""
    kernel, dilation = pair(kernel), pair(dilation)
    padding = spatial_padding(padding, kernel, dilation)
    op = ops.MaxPoolWithIndices(kernel, _stride(stride, kernel), padding, dilation, ceil_mode)
    y, indices = builder_of(x).add(op, (x,), name)
    return y, indices


def max_unpool(
    x: Value,
    indices: Value,
    kernel: PairLike,
    stride: PairLike | None = None,
    padding: PaddingLike = 0,
    like: Value | None = None,
    name: str | None = None,
) -> Value:
    """x's elements at their `indices` (from max_pool_with_indices), 0 elsewhere; [N,C,P,Q] to [N,C,H,W].

    H = (P-1)*stride - padding + kernel, or that of the tensor `like`.
    """
    kernel = pair(kernel)
    op = ops.MaxUnpool(kernel, _stride(stride, kernel), spatial_padding(padding, kernel), like is not None)
    return apply(op, x, indices, *([] if like is None else [like]), name=name)


def min_pool(
    x: Value,
    kernel: PairLike,
    stride: PairLike | None = None,
    padding: PaddingLike = 0,
    dilation: PairLike = 1,
    ceil_mode: bool = False,
    name: str | None = None,
) -> Value:
    """The minimum of each window; [N,C,H,W] to [N,C,P,Q]. Padding never wins."""
    kernel, dilation = pair(kernel), pair(dilation)
    padding = spatial_padding(padding, kernel, dilation)
    return apply(ops.MinPool(kernel, _stride(stride, kernel), padding, dilation, ceil_mode), x, name=name)


def average_pool(
    x: Value,
    kernel: PairLike,
    stride: PairLike | None = None,
    padding: PaddingLike = 0,
    ceil_mode: bool = False,
    count_padding: bool = False,
    name: str | None = None,
) -> Value:
    """The mean of each window, of its cells inside the image or, with `count_padding`, inside the padded image."""
    kernel = pair(kernel)
    padding = spatial_padding(padding, kernel)
    return apply(ops.AveragePool(kernel, _stride(stride, kernel), padding, ceil_mode, count_padding), x, name=name)


def l2_pool(
    x: Value,
    kernel: PairLike,
    stride: PairLike | None = None,
    padding: PaddingLike = 0,
    ceil_mode: bool = False,
    name: str | None = None,
) -> Value:
    """The square root of the sum of squares of each window; [N,C,H,W] to [N,C,P,Q]."""
    kernel = pair(kernel)
    op = ops.L2Pool(kernel, _stride(stride, kernel), spatial_padding(padding, kernel), ceil_mode)
    return apply(op, x, name=name)


def channel_l2_pool(x: Value, size: int, stride: int | None = None, name: str | None = None) -> Value:
    """The square root of the sum of squares over `size` consecutive channels, every `stride` (None: size) channels."""
    return apply(ops.ChannelL2Pool(size, size if stride is None else stride), x, name=name)


def global_average_pool(x: Value, name: str | None = None) -> Value:
    """The mean of each channel's map; [N,C,H,W] to [N,C,1,1]."""
    return apply(ops.GlobalAveragePool(), x, name=name)


def global_max_pool(x: Value, name: str | None = None) -> Value:
    """The maximum of each channel's map; [N,C,H,W] to [N,C,1,1]."""
    return apply(ops.GlobalMaxPool(), x, name=name)


def _stride(stride: PairLike | None, kernel: tuple[int, int]) -> tuple[int, int]:
    return kernel if stride is None else pair(stride)
