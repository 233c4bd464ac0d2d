"""The interface of an op: a frozen dataclass with an operation's attributes, shape rule, reference and gradient."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from graphc.errors import NoGradientError
from graphc.ir import dims
from graphc.ir.dims import Dim, DimLike
from graphc.ir.types import TensorType

if TYPE_CHECKING:
    from graphc.ir.graph import Builder, Value

Array: TypeAlias = NDArray[Any]


class Op(ABC):
    """An operation on tensors. A subclass is a frozen dataclass whose fields are the attributes."""

    name: ClassVar[str]
    takes_empty: ClassVar[bool] = False  # whether an input may have a dim of 0

    @abstractmethod
    def infer(self, *types: TensorType) -> TensorType | tuple[TensorType, ...]:
        """The types of the results; ShapeError (without the node's name) if the inputs do not fit."""

    @abstractmethod
    def eval(self, *arrays: Array) -> Array | tuple[Array, ...]:
        """The results by NumPy, in the dtype of the inputs: the reference for everything else."""

    def vjp(
        self, b: "Builder", inputs: "Sequence[Value]", outputs: "Sequence[Value]", grads: "Sequence[Value]"
    ) -> "Sequence[Value | None]":
        """The gradient of each input as a value that `b` has built of others; None where it is 0 everywhere.

        `inputs` and `outputs` are those of a node with this op, `grads` the gradients of the outputs: of a number with
        respect to each of their elements, of the same shape. NoGradientError (without the node's name) if none exists.
        """
        raise NoGradientError("this op has no gradient rule")

    def attributes(self) -> dict[str, Any]:
        """The fields that differ from their defaults, in order: what the text form prints."""
        values = {f.name: (getattr(self, f.name), f.default) for f in fields(self)}  # type: ignore[arg-type]
        return {k: v for k, (v, default) in values.items() if default is MISSING or v != default}

    def bind(self, sizes: Mapping[str, DimLike]) -> "Op":
        """This op with the symbols in its attributes replaced."""
        bound = {k: _bind(v, sizes) for k, v in self.attributes().items()}
        return replace(self, **bound) if bound else self  # type: ignore[type-var]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={format_attribute(v)}' for k, v in self.attributes().items())})"


def _bind(value: Any, sizes: Mapping[str, DimLike]) -> Any:
    if isinstance(value, tuple):
        return tuple(_bind(v, sizes) for v in value)
    return dims.substitute(value, sizes) if isinstance(value, Dim) else value


def format_attribute(value: Any) -> str:
    """An attribute as the text form writes it: a Python literal, with dim expressions and inf allowed."""
    if isinstance(value, tuple):
        inner = ", ".join(format_attribute(v) for v in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, Dim):
        return str(value)
    return repr(value.item() if isinstance(value, np.generic) else value)
