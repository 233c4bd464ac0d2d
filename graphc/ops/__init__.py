"""The op set: one frozen dataclass for each operation, listed in `OP_CLASSES`."""

from graphc.ir import Op
from graphc.ops.conv import Conv2d, Conv2dWeightGradient
from graphc.ops.conv_transpose import ConvTranspose2d
from graphc.ops.elementwise import (
    Abs,
    Add,
    Clip,
    Div,
    Dropout,
    Elementwise,
    Elu,
    Exp,
    Fused,
    HardThreshold,
    Identity,
    LeakyRelu,
    Log,
    Maximum,
    Minimum,
    Mul,
    Neg,
    Pow,
    Relu,
    Sigmoid,
    Softplus,
    Sqrt,
    Sub,
    Tanh,
)  # fmt: skip
from graphc.ops.index import Gather, GatherElements, GatherND, Positions, ScatterElements, ScatterND
from graphc.ops.interpolate import Interpolate
from graphc.ops.linear import Linear, MatMul
from graphc.ops.locally_connected import LocallyConnected2d
from graphc.ops.loss import BinaryCrossEntropyWithLogits, L2Penalty, MeanSquaredError, SoftmaxCrossEntropy
from graphc.ops.norm import BatchNorm, LocalResponseNorm
from graphc.ops.order import CumSum, TopK
from graphc.ops.pool import (
    AveragePool,
    AveragePoolGradient,
    ChannelL2Pool,
    GlobalAveragePool,
    GlobalMaxPool,
    L2Pool,
    MaxPool,
    MaxPoolGradient,
    MaxPoolWithIndices,
    MaxUnpool,
    MinPool,
    PickCells,
)  # fmt: skip
from graphc.ops.positions import Extent, Iota
from graphc.ops.reduce import ArgMax, ArgMin, Mean, Prod, ReduceMax, ReduceMin, Sum
from graphc.ops.resize import BedOfNails, UpsampleBilinear, UpsampleNearest
from graphc.ops.sample import GridSample, RoiAlign
from graphc.ops.shape import Concat, Expand, Flatten, Pad, Reshape, Slice, SliceGradient, Split, Transpose
from graphc.ops.softmax import LogSoftmax, Softmax

OP_CLASSES: tuple[type[Op], ...] = (
    Conv2d, Conv2dWeightGradient, ConvTranspose2d, LocallyConnected2d, Linear, MatMul,
    Identity, Relu, LeakyRelu, Elu, Sigmoid, Tanh, Softplus, HardThreshold, Clip, Exp, Log, Sqrt, Neg, Abs,
    Add, Sub, Mul, Div, Pow, Maximum, Minimum, Dropout, Fused,
    MaxPool, MinPool, AveragePool, L2Pool, ChannelL2Pool, GlobalAveragePool, GlobalMaxPool, MaxPoolWithIndices,
    MaxPoolGradient, PickCells, AveragePoolGradient, MaxUnpool, UpsampleNearest, UpsampleBilinear, BedOfNails,
    BatchNorm, LocalResponseNorm, Softmax, LogSoftmax,
    Flatten, Reshape, Transpose, Concat, Split, Slice, SliceGradient, Pad, Expand, Extent, Iota,
    Sum, Mean, Prod, ReduceMax, ReduceMin, ArgMax, ArgMin,
    Positions, Gather, GatherElements, GatherND, ScatterElements, ScatterND, TopK, CumSum, Interpolate, GridSample,
    RoiAlign,
    MeanSquaredError, BinaryCrossEntropyWithLogits, SoftmaxCrossEntropy, L2Penalty,
)  # fmt: skip
OPS: dict[str, type[Op]] = {op.name: op for op in OP_CLASSES}

__all__ = [
    "OPS", "OP_CLASSES", "Abs", "Add", "ArgMax", "ArgMin", "AveragePool", "AveragePoolGradient", "BatchNorm",
    "BedOfNails", "BinaryCrossEntropyWithLogits", "ChannelL2Pool", "Clip", "Concat", "Conv2d", "Conv2dWeightGradient",
    "ConvTranspose2d", "CumSum", "Div", "Dropout", "Elementwise", "Elu", "Exp", "Expand", "Extent", "Flatten", "Fused",
    "Gather", "GatherElements", "GatherND", "GlobalAveragePool", "GlobalMaxPool", "GridSample", "HardThreshold",
    "Identity", "Interpolate", "Iota", "L2Penalty", "L2Pool", "LeakyRelu", "Linear", "LocalResponseNorm",
    "LocallyConnected2d", "Log", "LogSoftmax", "MatMul", "MaxPool", "MaxPoolGradient", "MaxPoolWithIndices",
    "MaxUnpool", "Maximum", "Mean", "MeanSquaredError", "MinPool", "Minimum", "Mul", "Neg", "Pad", "PickCells",
    "Positions", "Pow", "Prod", "ReduceMax", "ReduceMin", "Relu", "Reshape", "RoiAlign", "ScatterElements", "ScatterND",
    "Sigmoid", "Slice", "SliceGradient", "Softmax", "SoftmaxCrossEntropy", "Softplus", "Split", "Sqrt", "Sub", "Sum",
    "Tanh", "TopK", "Transpose", "UpsampleBilinear", "UpsampleNearest",
]  # fmt: skip
