"""Activations that graphc has as scalar expressions only. x0 is the input, the attributes are numbers in the text."""

from collections.abc import Callable
from math import sqrt

from graphc.errors import ShapeError
from graphc.onnx.reader import NodeReader
from graphc.ops.elementwise import Fused
from graphc.ops.shape import Reshape


def write_hard_sigmoid(n: NodeReader) -> str:
    """max(0, min(1, alpha*x + beta))."""
    return f"max(min(((x0 * {n.real('alpha', 0.2)!r}) + {n.real('beta', 0.5)!r}), 1.0), 0.0)"


def write_selu(n: NodeReader) -> str:
    """gamma * (x or alpha*(e^x - 1)) (Klambauer et al. 2017)."""
    alpha, gamma = n.real("alpha", 1.67326319217681884765625), n.real("gamma", 1.05070102214813232421875)
    return f"(select(gt(x0, 0.0), x0, (expm1(x0) * {alpha!r})) * {gamma!r})"


def write_celu(n: NodeReader) -> str:
    """max(0, x) + min(0, alpha*(e^(x/alpha) - 1)) (Barron 2017)."""
    alpha = n.real("alpha", 1.0)
    return f"(max(x0, 0.0) + min((expm1((x0 / {alpha!r})) * {alpha!r}), 0.0))"


def write_gelu(n: NodeReader) -> str:
    """x * Phi(x), Phi the normal distribution, or its approximation by tanh (Hendrycks and Gimpel 2016)."""
    match n.text("approximate", "none"):
        case "none":
            return f"((x0 * 0.5) * (erf((x0 * {sqrt(0.5)!r})) + 1.0))"
        case "tanh":
            inner = f"(x0 * ((((x0 * x0) * 0.044715) + 1.0) * {sqrt(2 / 3.141592653589793)!r}))"
            return f"((x0 * 0.5) * (tanh({inner}) + 1.0))"
        case other:
            raise ShapeError(f"approximate: expected none or tanh, got {other}")


def write_swish(n: NodeReader) -> str:
    """x * sigmoid(alpha*x) (Ramachandran et al. 2017)."""
    alpha = n.real("alpha", 1.0)
    return "(x0 * sigmoid(x0))" if alpha == 1 else f"(x0 * sigmoid((x0 * {alpha!r})))"


def write_thresholded_relu(n: NodeReader) -> str:
    """x where it is greater than alpha, else 0."""
    return f"select(gt(x0, {n.real('alpha', 1.0)!r}), x0, 0.0)"


def write_shrink(n: NodeReader) -> str:
    """x moved by `bias` towards 0, and 0 from -lambd to lambd."""
    bias, bound = n.real("bias", 0.0), n.real("lambd", 0.5)
    return f"select(lt(x0, {-bound!r}), (x0 + {bias!r}), select(gt(x0, {bound!r}), (x0 - {bias!r}), 0.0))"


def read_prelu(n: NodeReader) -> None:
    """PRelu: x * slope below zero. Before opset 7, several slopes were those of x's channels (He et al. 2015)."""
    x, slope = n.value(0), n.value(1)
    if n.scope.written_opset < 7 and slope.type.rank == 1 and slope.type.shape != (1,):
        slope = n.step(Reshape((*slope.type.shape, *[1] * (x.type.rank - 2))), slope)
    n.emit(Fused("select(lt(x0, 0.0), (x0 * x1), x0)"), x, slope)


def _activation(write: Callable[[NodeReader], str]) -> Callable[[NodeReader], None]:
    return lambda n: n.emit(Fused(write(n)), n.value(0))


HANDLERS: dict[str, Callable[[NodeReader], None]] = {
    "HardSigmoid": _activation(write_hard_sigmoid),
    "HardSwish": _activation(lambda n: "(x0 * max(min(((x0 / 6.0) + 0.5), 1.0), 0.0))"),
    "Selu": _activation(write_selu),
    "Celu": _activation(write_celu),
    "Gelu": _activation(write_gelu),
    "Swish": _activation(write_swish),
    "Mish": _activation(lambda n: "(x0 * tanh(softplus(x0)))"),
    "Softsign": _activation(lambda n: "(x0 / (abs(x0) + 1.0))"),
    "ThresholdedRelu": _activation(write_thresholded_relu),
    "Shrink": _activation(write_shrink),
    "PRelu": read_prelu,
}
