"""What a problem for executors is: one op over symbolic sizes, with the types and data of its inputs."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from graphc.ir import Array, Builder, DType, Graph, Op, TensorType, Value, dims, f32

N, H, W = (dims.symbol(s) for s in "NHW")
Data = Callable[[np.random.Generator, tuple[int, ...]], Array]
SINGLE_ROUNDING = 1e-6  # ops that compute each element from few others
SUMS = 1e-5  # ops that add up to a few thousand products in float32


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def positive(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.uniform(0.1, 3, shape).astype(np.float32)


def below(count: int) -> Data:
    return lambda rng, shape: rng.integers(0, count, shape)


@dataclass(frozen=True)
class Input:
    """One operand: its type over N, H and W, its data, and whether it is a parameter of the graph."""

    type: TensorType
    data: Data = normal
    param: bool = False


@dataclass(frozen=True)
class Problem:
    """One op with its operands. `tolerance` is a share of the largest element."""

    op: Op
    inputs: tuple[Input, ...]
    tolerance: float = SINGLE_ROUNDING
    least_size: int = 1
    operands: int | None = None  # the op has the first of the inputs, or all; others give the sizes that it speaks of
    opset: int = 18  # of ONNX; some attributes need a newer one

    def build(self, seed: int = 0) -> Graph:
        """The graph of this one op."""
        net, rng = Builder("problem"), np.random.default_rng(seed)
        values: list[Value] = []
        for i, x in enumerate(self.inputs):
            if x.param:
                values.append(net.param(f"p{i}", x.data(rng, x.type.static_shape())))
            else:
                values.append(net.input(f"x{i}", x.type))
        return net.build(*net.add(self.op, tuple(values[: self.operands]), "y"))

    def arrays(self, sizes: dict[str, int], seed: int = 0) -> list[Array]:
        """Data for the inputs at these sizes."""
        rng = np.random.default_rng(seed)
        return [x.data(rng, tuple(dims.evaluate(d, sizes) for d in x.type.shape)) for x in self.inputs if not x.param]


def image(channels: int, data: Data = normal) -> Input:
    return Input(f32(N, channels, H, W), data)


def weight(*shape: int, data: Data = normal) -> Input:
    return Input(f32(*shape), data, param=True)


def anything(dtype: DType) -> Data:
    """Floats, small integers without 0 (a division by which ONNX leaves open; unsigned: up to 199), or booleans."""
    if dtype == DType.BOOL:
        return lambda rng, shape: rng.integers(0, 2, shape).astype(np.bool_)
    if dtype.is_float or dtype.is_half:
        return lambda rng, shape: (3 * normal(rng, shape)).astype(dtype.numpy)
    if dtype.is_unsigned:
        return lambda rng, shape: rng.integers(1, 200, shape).astype(dtype.numpy)
    return lambda rng, shape: (rng.choice([-1, 1], shape) * rng.integers(1, 9, shape)).astype(dtype.numpy)


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def shapes4(
    draw: st.DrawFn, make: Callable[[st.DrawFn, int], Op], tolerance: float = SINGLE_ROUNDING, least_size: int = 1
) -> Problem:
    c = draw(st.integers(1, 5))
    return Problem(make(draw, c), (image(c),), tolerance, least_size)
