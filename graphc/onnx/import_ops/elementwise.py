"""ONNX's elementwise ops."""

from collections.abc import Callable

import numpy as np

from graphc.errors import UnsupportedError
from graphc.ir import DType, Op, Value
from graphc.onnx.reader import NodeReader
from graphc.onnx.scope import Mask
from graphc.onnx.tensors import read_dtype
from graphc.ops import elementwise


def _unary(op: Op) -> Callable[[NodeReader], None]:
    return lambda n: n.emit(op, n.value(0))


def _nary(op: Op) -> Callable[[NodeReader], None]:
    """A handler that combines two operands, then the result with the next."""

    def read(n: NodeReader) -> None:
        total = n.value(0)
        for i in range(1, len(n.inputs) - 1):
            total = n.step(op, total, n.value(i))
        if len(n.inputs) == 1:
            n.emit(elementwise.Identity(), total)
        else:
            n.emit(op, total, n.value(len(n.inputs) - 1))

    return read


def read_identity(n: NodeReader) -> None:
    """Identity; of a constant, another name for it (exporters write so where layers share weights)."""
    x = n.operand(0)
    if isinstance(x, Value):
        n.emit(elementwise.Identity(), x)
    else:
        n.bind(x)


def read_div(n: NodeReader) -> None:
    """Div; ONNX divides integers towards zero, which graphc's div does not."""
    a, b = n.value(0), n.value(1)
    if not a.type.dtype.is_float:
        raise UnsupportedError(f"division of {a.type.dtype.value}, expected floats")
    n.emit(elementwise.Div(), a, b)


def read_pow(n: NodeReader) -> None:
    """Pow; a constant exponent may have another dtype than the base."""
    base = n.value(0)
    dtype = base.type.dtype
    if not dtype.is_float:
        raise UnsupportedError(f"a power of {dtype.value}, expected floats")
    exponent = n.constant(1)
    if exponent is not None and exponent.array.dtype != dtype.numpy:
        n.emit(elementwise.Pow(), base, n.derive(1, dtype.value, lambda a: a.astype(dtype.numpy)))
    else:
        n.emit(elementwise.Pow(), base, n.value(1))


def read_clip(n: NodeReader) -> None:
    """Clip: bounds are constants, computed values, or left out."""
    x = n.value(0)
    if n.has("min") or n.has("max"):  # the form of opset 6, which some exporters go on writing
        return n.emit(elementwise.Clip(n.real("min", -np.inf), n.real("max", np.inf)), x)
    given = [i for i in (1, 2) if n.has_input(i)]
    if all(n.constant(i) for i in given):
        lowest, highest = (n.scalar(i, "a bound") if i in given else limit for i, limit in ((1, -np.inf), (2, np.inf)))
        return n.emit(elementwise.Clip(lowest, highest), x)
    for i in given:
        op = elementwise.Maximum() if i == 1 else elementwise.Minimum()
        if i == given[-1]:
            return n.emit(op, x, n.value(i))
        x = n.step(op, x, n.value(i))
    return None


def read_dropout(n: NodeReader) -> None:
    """Dropout as it is when a network is used: the identity."""
    ratio = n.real("ratio", 0.5)
    n.integer("seed", 0)  # of the training that is over
    if n.has_input(1):
        ratio = n.scalar(1, "ratio")
    if n.has_input(2) and n.scalar(2, "training_mode"):
        raise UnsupportedError("training_mode is true")
    n.emit(elementwise.Dropout(ratio), n.value(0))


def read_greater(n: NodeReader) -> None:
    """Greater; than a number, it waits for a Cast that makes it a hard threshold."""
    x, number = n.value(0), n.constant(1)
    if number is None or number.array.size != 1 or number.array.ndim > x.type.rank or not n.used_outputs:
        return n.emit(elementwise.Fused("gt(x0, x1)"), x, n.value(1))
    return n.bind(Mask(n.name, n.scope.names[n.outputs[0]], x, n.scalar(1, "the threshold")))


def read_cast(n: NodeReader) -> None:
    """Cast to the dtype that the input has, or of booleans to numbers."""
    to = read_dtype(n.integer("to", 0))
    n.integer("saturate", 1)  # about 8-bit floats only
    n.text("round_mode", "up")  # the same
    mask = n.operand(0)
    if isinstance(mask, Mask) and to == mask.x.type.dtype:
        return n.emit(elementwise.HardThreshold(mask.threshold), mask.x)
    x = n.value(0)
    if x.type.dtype == to:
        return n.emit(elementwise.Identity(), x)
    if x.type.dtype != DType.BOOL:
        raise UnsupportedError(f"from {x.type.dtype.value} to {to.value}")
    return n.emit(elementwise.Fused(f"to_{to.value}(x0)"), x)


EXPRESSIONS = {  # ONNX ops that graphc has as scalar expressions only
    "Less": "lt(x0, x1)",
    "LessOrEqual": "le(x0, x1)",
    "GreaterOrEqual": "ge(x0, x1)",
    "Equal": "eq(x0, x1)",
    "Where": "select(x0, x1, x2)",
    "Floor": "floor(x0)",
    "Ceil": "ceil(x0)",
    "Erf": "erf(x0)",
    "Reciprocal": "(1.0 / x0)",
}


def _expression(text: str) -> Callable[[NodeReader], None]:
    return lambda n: n.emit(elementwise.Fused(text), *(n.value(i) for i in range(len(n.inputs))))


HANDLERS: dict[str, Callable[[NodeReader], None]] = {
    "Identity": read_identity,
    "Relu": _unary(elementwise.Relu()),
    "Sigmoid": _unary(elementwise.Sigmoid()),
    "Tanh": _unary(elementwise.Tanh()),
    "Softplus": _unary(elementwise.Softplus()),
    "Exp": _unary(elementwise.Exp()),
    "Log": _unary(elementwise.Log()),
    "Sqrt": _unary(elementwise.Sqrt()),
    "Neg": _unary(elementwise.Neg()),
    "Abs": _unary(elementwise.Abs()),
    "LeakyRelu": lambda n: n.emit(elementwise.LeakyRelu(n.real("alpha", 0.01)), n.value(0)),
    "Elu": lambda n: n.emit(elementwise.Elu(n.real("alpha", 1.0)), n.value(0)),
    "Add": _nary(elementwise.Add()),
    "Sub": _nary(elementwise.Sub()),
    "Mul": _nary(elementwise.Mul()),
    "Max": _nary(elementwise.Maximum()),
    "Min": _nary(elementwise.Minimum()),
    "Sum": _nary(elementwise.Add()),
    "Div": read_div,
    "Pow": read_pow,
    "Clip": read_clip,
    "Dropout": read_dropout,
    "Greater": read_greater,
    "Cast": read_cast,
    **{op_type: _expression(text) for op_type, text in EXPRESSIONS.items()},
}
