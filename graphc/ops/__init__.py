"""The op set: one frozen dataclass for each operation, listed in `OPS`."""

from graphc.ir import Op
from graphc.ops.conv import Conv2d
from graphc.ops.elementwise import (
    Abs, Add, Clip, Div, Dropout, Elementwise, Elu, Exp, Fused, HardThreshold, Identity, LeakyRelu, Log, Maximum,
    Minimum, Mul, Neg, Pow, Relu, Sigmoid, Softplus, Sqrt, Sub, Tanh,
)  # fmt: skip

OP_CLASSES: tuple[type[Op], ...] = (
    Conv2d,
    Identity, Relu, LeakyRelu, Elu, Sigmoid, Tanh, Softplus, HardThreshold, Clip, Exp, Log, Sqrt, Neg, Abs,
    Add, Sub, Mul, Div, Pow, Maximum, Minimum, Dropout, Fused,
)  # fmt: skip
OPS: dict[str, type[Op]] = {op.name: op for op in OP_CLASSES}
__all__ = ["OPS", "OP_CLASSES", "Elementwise", *(op.__name__ for op in OP_CLASSES)]
