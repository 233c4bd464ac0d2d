"""Elementwise ops: each is one scalar expression, from which reference, vector code and fusion come.

Operands broadcast as in NumPy. All operands have the same dtype; the result has the dtype of the expression.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import Array, Builder, DimLike, DType, Op, TensorType, Value, dims
from graphc.ops import derive, scalar
from graphc.ops.scalar import Arg, Expr, call
from graphc.ops.scalar_gradient import pull_back


class Elementwise(Op):
    """Base of the ops that compute every element from the elements at the same place in their inputs."""

    arity: ClassVar[int] = 1
    takes_empty: ClassVar[bool] = True

    def scalar(self, *x: Expr) -> Expr:
        """The result's element from the operands' elements."""
        raise NotImplementedError

    def expression(self, dtypes: tuple[DType, ...]) -> Expr:
        """The scalar expression over operands of these dtypes."""
        return self.scalar(*(Arg(i, t) for i, t in enumerate(dtypes)))

    def infer(self, *types: TensorType) -> TensorType:
        if len(types) != self.arity:
            raise ShapeError(f"expected {self.arity} inputs, got {len(types)}")
        return self.typed(types)

    def typed(self, types: tuple[TensorType, ...]) -> TensorType:
        """The result's type: the expression's dtype, the operands' shapes broadcast."""
        expression = scalar.check_dtypes(self.expression(tuple(t.dtype for t in types)))
        return TensorType(expression.dtype, broadcast_shapes([t.shape for t in types]))

    def eval(self, *arrays: Array) -> Array:
        expression = self.expression(tuple(DType.of(a.dtype) for a in arrays))
        result = scalar.evaluate(expression, arrays)
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
        return np.broadcast_to(result, shape).astype(expression.dtype.numpy)

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        operands = (*inputs, outputs[0], grads[0])
        *_, y, g = args = [Arg(i, v.type.dtype) for i, v in enumerate(operands)]
        expression = self.expression(tuple(v.type.dtype for v in inputs))
        pulled = pull_back(expression, g)
        found: list[Value | None] = [None] * len(inputs)
        for i, slope in pulled.items():
            # the slope of exp is exp again: the result is read, not computed once more
            slope = scalar.replace(slope, expression, y) if expression not in args else slope
            used = sorted(set(scalar.arguments(slope)))
            renumbered: list[Expr] = [Arg(used.index(a.index) if a.index in used else 0, a.dtype) for a in args]
            text = str(scalar.substitute(slope, renumbered))
            gradient = grads[0] if slope == g else derive.fused(b, text, *(operands[j] for j in used))
            found[i] = derive.sum_to(b, gradient, inputs[i].type)
        return found


def broadcast_shapes(shapes: list[tuple[DimLike, ...]]) -> tuple[DimLike, ...]:
    """NumPy's broadcasting rule over symbolic shapes; a symbolic dim never stands for 1."""
    rank = max(len(s) for s in shapes)
    result: list[DimLike] = []
    for axis in range(-rank, 0):
        found: DimLike = 1
        for d in (s[axis] for s in shapes if len(s) >= -axis):
            if found == 1:
                found = d
            elif d != 1 and not dims.same(found, d):
                listed = " and ".join(f"[{','.join(map(str, s))}]" for s in shapes)
                raise ShapeError(f"shapes {listed} do not broadcast: {found} against {d}")
        result.append(found)
    return tuple(result)


@dataclass(frozen=True)
class Identity(Elementwise):
    """y = x."""

    name: ClassVar[str] = "identity"

    def scalar(self, *x: Expr) -> Expr:
        return x[0]


@dataclass(frozen=True)
class Relu(Elementwise):
    """y = max(x, 0)."""

    name: ClassVar[str] = "relu"

    def scalar(self, *x: Expr) -> Expr:
        return call("max", x[0], 0.0)

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        """By y, which the next layer keeps anyway, so that x need not be kept."""
        return [derive.fused(b, "select(gt(x0, 0.0), x1, 0.0)", outputs[0], grads[0])]


@dataclass(frozen=True)
class LeakyRelu(Elementwise):
    """y = x where x >= 0, alpha*x elsewhere."""

    name: ClassVar[str] = "leaky_relu"
    alpha: float = 0.01

    def scalar(self, *x: Expr) -> Expr:
        return call("select", call("ge", x[0], 0.0), x[0], x[0] * self.alpha)


@dataclass(frozen=True)
class Elu(Elementwise):
    """y = x where x >= 0, alpha*(exp(x) - 1) elsewhere (Clevert et al. 2015)."""

    name: ClassVar[str] = "elu"
    alpha: float = 1.0

    def scalar(self, *x: Expr) -> Expr:
        return call("select", call("ge", x[0], 0.0), x[0], call("expm1", x[0]) * self.alpha)


@dataclass(frozen=True)
class Sigmoid(Elementwise):
    """y = 1 / (1 + exp(-x))."""

    name: ClassVar[str] = "sigmoid"

    def scalar(self, *x: Expr) -> Expr:
        return call("sigmoid", x[0])


@dataclass(frozen=True)
class Tanh(Elementwise):
    """y = tanh(x)."""

    name: ClassVar[str] = "tanh"

    def scalar(self, *x: Expr) -> Expr:
        return call("tanh", x[0])


@dataclass(frozen=True)
class Softplus(Elementwise):
    """y = log(1 + exp(x))."""

    name: ClassVar[str] = "softplus"

    def scalar(self, *x: Expr) -> Expr:
        return call("softplus", x[0])


@dataclass(frozen=True)
class HardThreshold(Elementwise):
    """y = 1 where x > threshold, 0 elsewhere: the unit of McCulloch and Pitts (1943)."""

    name: ClassVar[str] = "hard_threshold"
    threshold: float = 0.0

    def scalar(self, *x: Expr) -> Expr:
        return call("to_" + x[0].dtype.value, call("gt", x[0], self.threshold))


@dataclass(frozen=True)
class Clip(Elementwise):
    """y = min(max(x, minimum), maximum)."""

    name: ClassVar[str] = "clip"
    minimum: float = -float("inf")
    maximum: float = float("inf")

    def __post_init__(self) -> None:
        if not self.minimum <= self.maximum:
            raise ShapeError(f"clip: expected minimum <= maximum, got {self.minimum} and {self.maximum}")

    def scalar(self, *x: Expr) -> Expr:
        return call("min", call("max", x[0], self.minimum), self.maximum)

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        """By y where it is known to tell, as in relu."""
        if not self.minimum < self.maximum:
            return super().vjp(b, inputs, outputs, grads)
        inside = f"select(gt(x0, {float(self.minimum)}), select(lt(x0, {float(self.maximum)}), x1, 0.0), 0.0)"
        return [derive.fused(b, inside, outputs[0], grads[0])]


@dataclass(frozen=True)
class Exp(Elementwise):
    """y = exp(x)."""

    name: ClassVar[str] = "exp"

    def scalar(self, *x: Expr) -> Expr:
        return call("exp", x[0])


@dataclass(frozen=True)
class Log(Elementwise):
    """y = log(x), the natural logarithm."""

    name: ClassVar[str] = "log"

    def scalar(self, *x: Expr) -> Expr:
        return call("log", x[0])


@dataclass(frozen=True)
class Sqrt(Elementwise):
    """y = sqrt(x)."""

    name: ClassVar[str] = "sqrt"

    def scalar(self, *x: Expr) -> Expr:
        return call("sqrt", x[0])


@dataclass(frozen=True)
class Neg(Elementwise):
    """y = -x."""

    name: ClassVar[str] = "neg"

    def scalar(self, *x: Expr) -> Expr:
        return -x[0]


@dataclass(frozen=True)
class Abs(Elementwise):
    """y = |x|."""

    name: ClassVar[str] = "abs"

    def scalar(self, *x: Expr) -> Expr:
        return call("abs", x[0])


@dataclass(frozen=True)
class Add(Elementwise):
    """y = a + b."""

    name: ClassVar[str] = "add"
    arity: ClassVar[int] = 2

    def scalar(self, *x: Expr) -> Expr:
        return x[0] + x[1]


@dataclass(frozen=True)
class Sub(Elementwise):
    """y = a - b."""

    name: ClassVar[str] = "sub"
    arity: ClassVar[int] = 2

    def scalar(self, *x: Expr) -> Expr:
        return x[0] - x[1]


@dataclass(frozen=True)
class Mul(Elementwise):
    """y = a * b."""

    name: ClassVar[str] = "mul"
    arity: ClassVar[int] = 2

    def scalar(self, *x: Expr) -> Expr:
        return x[0] * x[1]


@dataclass(frozen=True)
class Div(Elementwise):
    """y = a / b; of integers rounded towards zero, and 0 where b is 0."""

    name: ClassVar[str] = "div"
    arity: ClassVar[int] = 2

    def scalar(self, *x: Expr) -> Expr:
        return x[0] / x[1]


@dataclass(frozen=True)
class Pow(Elementwise):
    """y = a ** b."""

    name: ClassVar[str] = "pow"
    arity: ClassVar[int] = 2

    def scalar(self, *x: Expr) -> Expr:
        return call("pow", x[0], x[1])


@dataclass(frozen=True)
class Maximum(Elementwise):
    """y = max(a, b); NaN where either is NaN."""

    name: ClassVar[str] = "maximum"
    arity: ClassVar[int] = 2

    def scalar(self, *x: Expr) -> Expr:
        return call("max", x[0], x[1])


@dataclass(frozen=True)
class Minimum(Elementwise):
    """y = min(a, b); NaN where either is NaN."""

    name: ClassVar[str] = "minimum"
    arity: ClassVar[int] = 2

    def scalar(self, *x: Expr) -> Expr:
        return call("min", x[0], x[1])


@dataclass(frozen=True)
class Dropout(Elementwise):
    """y = x when the network is used; `p` is the share of elements that training sets to 0 (Srivastava et al. 2014)."""

    name: ClassVar[str] = "dropout"
    p: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.p < 1:
            raise ShapeError(f"dropout: expected 0 <= p < 1, got {self.p}")

    def scalar(self, *x: Expr) -> Expr:
        return x[0]


@dataclass(frozen=True)
class Fused(Elementwise):
    """y = expr(x0, x1, ...): a chain of elementwise ops as one; made by the pass fuse_elementwise."""

    name: ClassVar[str] = "fused"
    expr: str = "x0"

    def infer(self, *types: TensorType) -> TensorType:
        return self.typed(types)

    def expression(self, dtypes: tuple[DType, ...]) -> Expr:
        return scalar.parse(self.expr, dtypes)
