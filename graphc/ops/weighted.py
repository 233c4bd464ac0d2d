"""What the layers with a weight share: a bias or none, an epilogue or none, and the way back through both."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from graphc import ops
from graphc.errors import ShapeError
from graphc.ir import Builder, Op, TensorType, Value
from graphc.ops.derive import full


class WeightedOp(Op):
    """Base of convolutions and products: x, weight, with `bias` a bias, then what the epilogue reads as x1, x2, ..."""

    channels: ClassVar[int] = 1  # the axis of the result along which the bias lies
    bias: bool
    epilogue: str | None

    def check_count(self, types: tuple[TensorType, ...]) -> None:
        """There are x, weight and, if `bias`, a bias; inputs of the epilogue may follow."""
        if len(types) < 2 + self.bias:
            raise ShapeError(f"expected x, weight{' and bias' * self.bias}, got {len(types)} inputs")

    @abstractmethod
    def pull_back(self, b: Builder, x: Value, w: Value, g: Value) -> tuple[Value, Value]:
        """The gradients of x and of the weight, given that of the result before bias and epilogue."""

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        """With an epilogue those of the tail, then with its first those of the op without it."""
        count = 2 + self.bias
        (g,), others = grads, list[Value | None]()
        if self.epilogue is not None:
            plain: WeightedOp = replace(self, epilogue=None)  # type: ignore[type-var]
            y = b.apply(plain, *inputs[:count])
            first, *others = ops.Fused(self.epilogue).vjp(b, (y, *inputs[count:]), outputs, grads)
            g = first or full(b, 0.0, y.type)
        axes = tuple(axis for axis in range(g.type.rank) if axis != self.channels % g.type.rank)
        of_bias = [b.apply(ops.Sum(axes, keepdims=False), g) if axes else g] if self.bias else []
        return [*self.pull_back(b, inputs[0], inputs[1], g), *of_bias, *others]
