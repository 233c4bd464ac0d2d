"""What the tests of the passes share: graphs from text with random parameters, and the check of a rewrite."""

import textwrap
import zlib
from collections.abc import Callable, Mapping

import numpy as np
from hypothesis import strategies as st

from graphc import ops
from graphc.ir import Array, Builder, Graph, Op, Value, f32
from graphc.ir.text import parse_graph
from graphc.ir.types import DType
from graphc.ir.verify import verify
from graphc.ops import OPS
from graphc.reference import random_inputs, run_reference

SIZES = {"N": 2, "H": 9, "W": 11}
# float32 constants that a pass has computed are rounded once: 2**-24 of each, over sums of a few hundred terms.
TOLERANCE = 1e-6


def random_param(value: Value) -> Array:
    """Data for a `param()` or `const()` of a text, by its name; variances are positive."""
    rng = np.random.default_rng(zlib.crc32(value.name.encode()))
    data = rng.standard_normal(value.type.static_shape())
    return (np.abs(data) + 0.5 if "var" in value.name else data).astype(value.type.dtype.numpy)


def read(text: str) -> Graph:
    """The graph of a text, verified, with random parameters."""
    return verify(parse_graph(textwrap.dedent(text), OPS, random_param))


def show(graph: Graph) -> str:
    """The text of a graph's inputs, nodes and outputs: without the lines of its parameters."""
    lines = str(graph).splitlines()
    return "\n".join(line.strip() for line in lines if " = param(" not in line and " = const(" not in line)


def check_rewrite(
    rewrite: Callable[[Graph], Graph], before: str | Graph, after: str | None = None, sizes: Mapping[str, int] = SIZES
) -> Graph:
    """The rewritten graph, once it is known to be well formed, to read `after`, and to compute what `before` does.

    Every value whose name both graphs have must be the same tensor in both, in float64.
    """
    old = read(before) if isinstance(before, str) else before
    new = verify(rewrite(old))
    if after is not None:
        expected = "\n".join(line.strip() for line in after.strip().splitlines())
        assert show(new) == expected, f"got\n{show(new)}"
    check_same_values(old, new, sizes)
    return new


def check_same_values(old: Graph, new: Graph, sizes: Mapping[str, int] = SIZES) -> None:
    """Outputs, in order, and values of one name are equal in both graphs, for random inputs of these sizes."""
    assert [(v.name, v.type) for v in new.inputs] == [(v.name, v.type) for v in old.inputs]
    assert new.output_names == old.output_names
    there = {v.name: v for v in new.values()}
    pairs = [*zip(old.outputs, new.outputs, strict=True)]
    pairs += [(v, there[v.name]) for v in old.values() if v.name in there]
    inputs = random_inputs(old, {s: sizes[s] for s in old.symbols})
    expected = run_reference(old, inputs, DType.F64, keep=[a for a, _ in pairs])
    got = run_reference(new, inputs, DType.F64, keep=[b for _, b in pairs])
    # relative to the largest number anywhere, since a difference of large numbers, or their clipping, may be small
    largest = max(1.0, *(float(np.abs(x).max()) for x in run_reference(old, inputs, DType.F64, keep=[*old.values()])))
    for (a, b), x, y in zip(pairs, expected, got, strict=True):
        assert x.shape == y.shape, f"%{a.name} and %{b.name}"
        np.testing.assert_allclose(y, x, rtol=0, atol=TOLERANCE * largest, err_msg=f"%{a.name} and %{b.name}")


UNARY: tuple[Op, ...] = (
    ops.Relu(), ops.Tanh(), ops.LeakyRelu(0.2), ops.Clip(-1.0, 0.5), ops.Sigmoid(), ops.Neg(), ops.Identity(),
    ops.Dropout(0.3),
)  # fmt: skip
BINARY: tuple[Op, ...] = (ops.Add(), ops.Sub(), ops.Mul(), ops.Maximum())


@st.composite
def random_graphs(draw: st.DrawFn) -> Graph:
    """A network of up to 14 layers on f32[N,2,H,W], H and W at least 3, in which any value may be read again."""
    net = Builder("random")
    values = [net.input("image", f32("N", 2, "H", "W"))]

    def constant(name: str, *shape: int) -> Value:
        value = Value(net.fresh(name), f32(*shape))
        return net.param(value.name, random_param(value), trainable=draw(st.booleans()))

    def convolve(x: Value) -> Value:
        k, pad, bias = draw(st.sampled_from([1, 3])), draw(st.booleans()), draw(st.booleans())
        if k == 3 and not pad and x.type.shape[2] != values[0].type.shape[2]:
            return x  # once cut by 2 is enough: H and W stay positive
        padding = (k // 2,) * 4 if pad else (0,) * 4
        parameters = [constant("w", 2, 2, k, k), *([constant("b", 2)] if bias else [])]
        return net.apply(ops.Conv2d(padding=padding, bias=bias), x, *parameters)

    def combine(x: Value) -> Value:
        y = draw(st.sampled_from([v for v in values if v.type == x.type]))
        return net.apply(draw(st.sampled_from(BINARY)), x, y)

    def scale(x: Value) -> Value:
        shape = draw(st.sampled_from([(), (1,), (2, 1, 1), (1, 2, 1, 1), (1, 1, 1, 1)]))
        pair = [x, constant("c", *shape)]
        return net.apply(draw(st.sampled_from(BINARY)), *(pair if draw(st.booleans()) else reversed(pair)))

    def normalise(x: Value) -> Value:
        return net.apply(ops.BatchNorm(), x, *(constant(n, 2) for n in ("scale", "shift", "mean", "var")))

    def activate(x: Value) -> Value:
        return net.apply(draw(st.sampled_from(UNARY)), x)

    def combine_constants(x: Value) -> Value:
        sum_ = net.apply(ops.Add(), constant("c", 2, 1, 1), constant("c", 2, 1, 1))
        return net.apply(ops.Mul(), x, sum_)

    layers = st.sampled_from([convolve, convolve, combine, combine, scale, normalise, activate, combine_constants])
    for layer in draw(st.lists(layers, min_size=1, max_size=14)):
        values.append(layer(draw(st.sampled_from(values[-4:]))))
    last = draw(st.sampled_from(values))
    return net.build(y=values[-1], z=last)
