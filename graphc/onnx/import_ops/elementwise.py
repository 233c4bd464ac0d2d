"""ONNX's elementwise ops."""

from collections.abc import Callable
from math import prod

import numpy as np

from graphc.errors import ShapeError, UnsupportedError
from graphc.ir import Op, Value
from graphc.onnx.import_ops.rounding import cast_small, read_small_target
from graphc.onnx.reader import NodeReader
from graphc.onnx.scope import Mask
from graphc.onnx.tensors import read_dtype
from graphc.ops import elementwise
from graphc.ops.scalar import convert
from graphc.ops.shape import Expand

FLOAT_MOD_OPSET = 28  # the first in which Mod with fmod=0 takes floats


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


def read_mod(n: NodeReader) -> None:
    """Mod: with fmod the remainder has the sign of the dividend, without that of the divisor (NumPy's mod)."""
    a, b = n.value(0), n.value(1)
    if n.integer("fmod", 0) or a.type.dtype.is_unsigned:
        return n.emit(elementwise.Fused("fmod(x0, x1)"), a, b)
    if a.type.dtype.is_float and n.opset < FLOAT_MOD_OPSET:
        raise ShapeError(f"fmod=0 wants integers before opset {FLOAT_MOD_OPSET}, got {a.type}")
    rest = n.step(elementwise.Fused("fmod(x0, x1)"), a, b)
    zero = "select(lt(x1, 0.0), -abs(x0), abs(x0))" if a.type.dtype.is_float else "x0"
    moved = f"select(eq(x0, 0), {zero}, select(ne(lt(x0, 0), lt(x1, 0)), (x0 + x1), x0))"
    return n.emit(elementwise.Fused(moved), rest, b)


def read_mean(n: NodeReader) -> None:
    """Mean of any number of operands."""
    total = n.value(0)
    for i in range(1, len(n.inputs)):
        total = n.step(elementwise.Add(), total, n.value(i))
    n.emit(elementwise.Fused(f"(x0 / {len(n.inputs)}.0)"), total)


def read_is_inf(n: NodeReader) -> None:
    """IsInf, of either sign or of one."""
    positive, negative = n.integer("detect_positive", 1), n.integer("detect_negative", 1)
    text = {(1, 1): "eq(abs(x0), inf)", (1, 0): "eq(x0, inf)", (0, 1): "eq(x0, -inf)", (0, 0): "lt(x0, -inf)"}
    n.emit(elementwise.Fused(text[bool(positive), bool(negative)]), n.value(0))


def read_pow(n: NodeReader) -> None:
    """Pow; the exponent may have another dtype than the base."""
    base = n.value(0)
    dtype = base.type.dtype
    exponent = n.constant(1)
    if dtype.is_integer and (n.dtype(1).is_float or n.dtype(1).is_half):
        return n.emit(elementwise.Fused(f"to_{dtype.value}(pow(to_f64(x0), to_f64(x1)))"), base, n.value(1))
    if n.dtype(1) == dtype:
        return n.emit(elementwise.Pow(), base, n.value(1))
    if exponent is not None:
        return n.emit(elementwise.Pow(), base, n.derive(1, dtype.value, lambda a: a.astype(dtype.numpy)))
    return n.emit(elementwise.Pow(), base, n.step(elementwise.Fused(f"to_{dtype.value}(x0)"), n.value(1)))


def read_clip(n: NodeReader) -> None:
    """Clip: bounds are constants, computed values, or left out."""
    x = n.value(0)
    if n.has("min") or n.has("max"):  # the form of opset 6, which some exporters go on writing
        return n.emit(elementwise.Clip(n.real("min", -np.inf), n.real("max", np.inf)), x)
    given = [i for i in (1, 2) if n.has_input(i)]
    if not x.type.dtype.is_float and not given:
        return n.emit(elementwise.Identity(), x)
    if x.type.dtype.is_float and all(n.constant(i) for i in given):
        lowest, highest = (n.scalar(i, "a bound") if i in given else limit for i, limit in ((1, -np.inf), (2, np.inf)))
        return n.emit(elementwise.Clip(lowest, highest), x)
    for i in given:
        op = elementwise.Maximum() if i == 1 else elementwise.Minimum()
        if i == given[-1]:
            return n.emit(op, x, n.value(i))
        x = n.step(op, x, n.value(i))
    return None


def read_dropout(n: NodeReader) -> None:
    """Dropout as it is when a network is used: the identity, and a mask that keeps every element.

    In training mode the mask is that of ONNX's reference for the node's seed, the same in each run.
    """
    x, ratio, seed = n.value(0), n.real("ratio", 0.5), n.integer("seed", 0)
    training = n.has_input(2) and bool(n.scalar(2, "training_mode"))
    if n.has_input(1) and (training or n.constant(1) is not None):  # elsewhere one that is computed changes nothing
        ratio = n.scalar(1, "ratio")
    if training and ratio:
        return _emit_training_dropout(n, x, ratio, seed)
    if n.used_outputs > 1:
        kept = np.array(True) if n.opset >= 10 else np.ones((), x.type.dtype.numpy)
        n.deliver(1, n.step(Expand(x.type.shape), n.parameter(kept, "kept")))
    return n.emit(elementwise.Dropout(ratio), x)


def _emit_training_dropout(n: NodeReader, x: Value, ratio: float, seed: int) -> None:
    shape = [d for d in x.type.shape if isinstance(d, int)]
    if not n.has("seed") or len(shape) < x.type.rank:
        raise UnsupportedError(f"training_mode is true; only with a seed, for x of constant shape, got {x.type}")
    mask = np.random.RandomState(seed).uniform(0, 1, shape) >= ratio
    kept = n.parameter(mask, "kept")
    if n.used_outputs > 1:
        n.deliver(1, n.step(elementwise.Identity(), kept))
    n.emit(elementwise.Fused(f"select(x1, (x0 * {1 / (1 - ratio)!r}), 0.0)"), x, kept)


def read_sign(n: NodeReader) -> None:
    """Sign; NaN and the zeros stay as they are."""
    x = n.value(0)
    negative = "x0" if x.type.dtype.is_unsigned else "select(lt(x0, 0), -1, x0)"
    n.emit(elementwise.Fused(f"select(gt(x0, 0), 1, {negative})"), x)


def read_greater(n: NodeReader) -> None:
    """Greater; than a number, it waits for a Cast that makes it a hard threshold."""
    x, number = n.value(0), n.constant(1)
    if number is None or prod(number.shape) != 1 or len(number.shape) > x.type.rank or not n.used_outputs:
        return n.emit(elementwise.Fused("gt(x0, x1)"), x, n.value(1))
    return n.bind(Mask(n.name, n.scope.names[n.outputs[0]], x, n.scalar(1, "the threshold")))


def read_cast(n: NodeReader) -> None:
    """Cast, and CastLike: to the dtype of the second input."""
    if (small := read_small_target(n)) is not None:
        return cast_small(n, small)
    to = n.dtype(1) if n.op_type == "CastLike" else read_dtype(n.integer("to", 0))
    n.integer("saturate", 1)  # about 8-bit floats only
    n.text("round_mode", "up")  # the same
    mask = n.operand(0)
    if isinstance(mask, Mask) and to == mask.x.type.dtype:
        return n.emit(elementwise.HardThreshold(mask.threshold), mask.x)
    known = n.constant(0)
    if known is not None and not known.trainable:
        return n.fold(convert(known.array, to))
    x = mask if isinstance(mask, Value) else n.value(0)  # f16 and bf16 as they are
    if x.type.dtype == to:
        return n.emit(elementwise.Identity(), x)
    n.emit(elementwise.Fused(f"to_{to.value}(x0)"), x)
    return n.scope.skip_rounding(n.outputs[0], x)


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
    "Round": "round(x0)",
    "IsNaN": "ne(x0, x0)",
    "And": "logical_and(x0, x1)",
    "Or": "logical_or(x0, x1)",
    "Xor": "ne(x0, x1)",
    "Not": "logical_not(x0)",
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
    "Div": lambda n: n.emit(elementwise.Div(), n.value(0), n.value(1)),
    "Mod": read_mod,
    "Mean": read_mean,
    "IsInf": read_is_inf,
    "Pow": read_pow,
    "Clip": read_clip,
    "Dropout": read_dropout,
    "Sign": read_sign,
    "Greater": read_greater,
    "Cast": read_cast,
    "CastLike": read_cast,
    **{op_type: _expression(text) for op_type, text in EXPRESSIONS.items()},
}
