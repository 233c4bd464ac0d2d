"""Layer functions: the nodes and parameters that they add, and errors that name the layer."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from graphc import nn, ops
from graphc.errors import GraphcError, GraphError, ShapeError
from graphc.ir import Builder, DType, Graph, TensorType, Value, f32, parse_type
from graphc.nn.arguments import PaddingLike, PairLike
from graphc.reference import run_reference


def declare(layer: Callable[[Value], Value], type: str = "f32[N,4,H,W]") -> Graph:
    """The network of one layer."""
    net = Builder("net", seed=1)
    return net.build(y=layer(net.input("x", parse_type(type))))


def two(make: Callable[..., Value]) -> Callable[[Value], Value]:
    """A layer of two tensors, applied to x twice."""
    return lambda x: make(x, x)


def labels(x: Value) -> Value:
    assert x.builder is not None
    return x.builder.input("labels", TensorType(DType.I64, (x.type.shape[0], *x.type.shape[2:])))


LAYERS: dict[str, tuple[Callable[[Value], Value], str]] = {
    "conv2d": (lambda x: nn.conv2d(x, 6, 3, stride=2, padding=1, groups=2, name="c"), "f32[N,6,(H+1)//2,(W+1)//2]"),
    "conv_transpose2d": (lambda x: nn.conv_transpose2d(x, 6, 2, stride=2, name="c"), "f32[N,6,2*H,2*W]"),
    "locally_connected2d": (
        lambda x: nn.locally_connected2d(nn.reshape(x, (-1, 4, 6, 7)), 3, (2, 3), (2, 1), (1, 0, 0, 1), name="l"),
        "f32[N*H*W//42,3,3,6]",
    ),
    "linear": (lambda x: nn.linear(nn.transpose(x, (0, 2, 3, 1)), 5, name="fc"), "f32[N,H,W,5]"),
    "batch_norm": (lambda x: nn.batch_norm(x, name="bn"), "f32[N,4,H,W]"),
    "max_pool": (lambda x: nn.max_pool(x, 3, 2, 1, dilation=1, ceil_mode=True), "f32[N,4,H//2+1,W//2+1]"),
    "max_pool_with_indices": (lambda x: nn.max_pool_with_indices(x, 2)[1], "i64[N,4,H//2,W//2]"),
    "max_unpool": (lambda x: nn.max_unpool(*nn.max_pool_with_indices(x, 2), 2), "f32[N,4,2*(H//2),2*(W//2)]"),
    "min_pool": (lambda x: nn.min_pool(x, (1, 2)), "f32[N,4,H,W//2]"),
    "average_pool": (lambda x: nn.average_pool(x, 3, padding="same", stride=1), "f32[N,4,H,W]"),
    "l2_pool": (lambda x: nn.l2_pool(x, 2), "f32[N,4,H//2,W//2]"),
    "channel_l2_pool": (lambda x: nn.channel_l2_pool(x, 2), "f32[N,2,H,W]"),
    "global_average_pool": (nn.global_average_pool, "f32[N,4,1,1]"),
    "global_max_pool": (nn.global_max_pool, "f32[N,4,1,1]"),
    "concat": (lambda x: nn.concat([x, x, x]), "f32[N,12,H,W]"),
    "split": (lambda x: nn.split(x, (1, 3))[1], "f32[N,3,H,W]"),
    "slice": (lambda x: nn.slice(x, (2, 3), (1, 0), (-1, 2**63 - 1)), "f32[N,4,H-2,W]"),
    "pad": (lambda x: nn.pad(x, (0, 0, 1, 2, 0, 0, 3, 4), "reflect"), "f32[N,4,H+4,W+6]"),
    "reshape": (lambda x: nn.reshape(x, (x.type.shape[0], -1)), "f32[N,4*H*W]"),
    "flatten": (nn.flatten, "f32[N,4*H*W]"),
    "transpose": (lambda x: nn.transpose(x, (3, 2, 1, 0)), "f32[W,H,4,N]"),
    "upsample_nearest": (lambda x: nn.upsample_nearest(x, size=(x.type.shape[3], 9)), "f32[N,4,W,9]"),
    "upsample_bilinear": (lambda x: nn.upsample_bilinear(x, (2, 3), align_corners=True), "f32[N,4,2*H,3*W]"),
    "bed_of_nails": (nn.bed_of_nails, "f32[N,4,2*H,2*W]"),
    "matmul": (lambda x: nn.matmul(x, nn.transpose(x, (0, 1, 3, 2))), "f32[N,4,H,H]"),
    "sum": (nn.sum, "f32[1,1,1,1]"),
    "mean": (lambda x: nn.mean(x, [2, -1], keepdims=False), "f32[N,4]"),
    "prod": (lambda x: nn.prod(x, (1,), keepdims=False), "f32[N,H,W]"),
    "arg_max": (lambda x: nn.arg_max(x, 1), "i64[N,1,H,W]"),
    "arg_min": (lambda x: nn.arg_min(x, -1, keepdims=False), "i64[N,4,H]"),
    "expand": (lambda x: nn.expand(x, (2, 1, 1, 1, 1)), "f32[2,N,4,H,W]"),
    "reduce_max": (lambda x: nn.reduce_max(x, (0,)), "f32[1,4,H,W]"),
    "reduce_min": (lambda x: nn.reduce_min(x, (0,)), "f32[1,4,H,W]"),
    "positions": (lambda x: nn.positions(x, 2), "i64[H]"),
    "gather": (lambda x: nn.gather(x, nn.arg_max(x, 1), 1), "f32[N,N,1,H,W,H,W]"),
    "gather_elements": (lambda x: nn.gather_elements(x, nn.arg_max(x, 1), 1), "f32[N,1,H,W]"),
    "gather_nd": (lambda x: nn.gather_nd(x, nn.reshape(nn.positions(x), (-1, 1))), "f32[W,4,H,W]"),
    "scatter_elements": (lambda x: nn.scatter_elements(x, *nn.top_k(x, 2, 1)[::-1], 1, "add"), "f32[N,4,H,W]"),
    "scatter_nd": (lambda x: nn.scatter_nd(x, nn.reshape(nn.positions(x, 0), (-1, 1)), x, "max"), "f32[N,4,H,W]"),
    "top_k": (lambda x: nn.top_k(x, 3, 1, largest=False)[1], "i64[N,3,H,W]"),
    "cum_sum": (lambda x: nn.cum_sum(x, 2, exclusive=True), "f32[N,4,H,W]"),
    "interpolate": (lambda x: nn.interpolate(x, 2, 7, "cubic"), "f32[N,4,7,W]"),
    "grid_sample": (lambda x: nn.grid_sample(x, nn.reshape(x, (x.type.shape[0], -1, 2, 2))), "f32[N,4,H*W,2]"),
    "roi_align": (
        lambda x: nn.roi_align(x, nn.mean(x, (2, 3), keepdims=False), nn.positions(x, 0), (3, 2)),
        "f32[N,4,3,2]",
    ),
    "mean_squared_error": (two(nn.mean_squared_error), "f32[]"),
    "binary_cross_entropy_with_logits": (two(nn.binary_cross_entropy_with_logits), "f32[]"),
    "softmax_cross_entropy": (lambda x: nn.softmax_cross_entropy(x, labels(x)), "f32[]"),
    "l2_penalty": (lambda x: nn.l2_penalty(x, 0.1), "f32[]"),
    "local_response_norm": (lambda x: nn.local_response_norm(x, 5, k=2.0), "f32[N,4,H,W]"),
    **{f.__name__: (two(f), "f32[N,4,H,W]") for f in (nn.add, nn.sub, nn.mul, nn.div, nn.pow, nn.maximum, nn.minimum)},
    **{f.__name__: (f, "f32[N,4,H,W]") for f in (
        nn.identity, nn.relu, nn.leaky_relu, nn.elu, nn.sigmoid, nn.tanh, nn.softplus, nn.hard_threshold, nn.clip,
        nn.exp, nn.log, nn.sqrt, nn.neg, nn.abs, nn.dropout, nn.softmax, nn.log_softmax,
    )},
}  # fmt: skip


@pytest.mark.parametrize("name", nn.__all__)
def test_every_layer_adds_its_op(name: str) -> None:
    layer, expected = LAYERS[name]
    graph = declare(layer)
    assert any(node.op.name == name for node in graph.nodes)
    assert graph.outputs[0].type == parse_type(expected)


def test_every_op_has_a_layer() -> None:
    """But for what only passes make, and what only gradients are made of."""
    gradients = {name for name in ops.OPS if name.endswith("_gradient")}
    gradients |= {"extent", "iota", "max_pool_route", "pick_cells"}
    assert set(nn.__all__) == ops.OPS.keys() - {"fused", "moments"} - gradients


def test_attributes_reach_the_op() -> None:
    expected = {
        "conv2d": ops.Conv2d((2, 2), (1, 1, 1, 1), groups=2),
        "max_pool": ops.MaxPool((3, 3), (2, 2), (1, 1, 1, 1), ceil_mode=True),
        "min_pool": ops.MinPool((1, 2), (1, 2)),
        "average_pool": ops.AveragePool((3, 3), (1, 1), (1, 1, 1, 1)),
        "slice": ops.Slice((2, 3), (1, 0), (-1, 2**63 - 1), (1, 1)),
        "pad": ops.Pad((0, 0, 1, 2, 0, 0, 3, 4), "reflect"),
        "mean": ops.Mean((2, -1), keepdims=False),
        "upsample_bilinear": ops.UpsampleBilinear((2, 3), align_corners=True),
        "local_response_norm": ops.LocalResponseNorm(5, k=2.0),
        "l2_penalty": ops.L2Penalty(0.1),
    }
    for name, op in expected.items():
        assert declare(LAYERS[name][0]).nodes[-1].op == op


@pytest.mark.parametrize(
    ("padding", "kernel", "dilation", "expected"),
    [
        (2, 3, 1, (2, 2, 2, 2)),
        ((1, 2), 3, 1, (1, 2, 1, 2)),
        ((1, 2, 3, 4), 3, 1, (1, 2, 3, 4)),
        ("same", (3, 5), 1, (1, 2, 1, 2)),
        ("same", (2, 4), 1, (0, 1, 1, 2)),
        ("same", (3, 2), (2, 3), (2, 1, 2, 2)),
    ],
)
def test_padding(padding: PaddingLike, kernel: PairLike, dilation: PairLike, expected: tuple[int, ...]) -> None:
    (node,) = declare(lambda x: nn.conv2d(x, 1, kernel, padding=padding, dilation=dilation, name="c")).nodes
    assert isinstance(node.op, ops.Conv2d)
    assert node.op.padding == expected
    if padding == "same":
        assert node.outputs[0].type == parse_type("f32[N,1,H,W]")


PARAMS = [
    (lambda x: nn.conv2d(x, 6, (3, 5), groups=2, name="l"), {"weight": (6, 2, 3, 5), "bias": (6,)}, 30),
    (lambda x: nn.conv2d(x, 6, 1, bias=False, name="l"), {"weight": (6, 4, 1, 1)}, 4),
    (lambda x: nn.conv_transpose2d(x, 6, 3, groups=2, name="l"), {"weight": (4, 3, 3, 3), "bias": (6,)}, 27),
    (lambda x: nn.locally_connected2d(x, 2, 3, name="l"), {"weight": (2, 4, 3, 3, 6, 5), "bias": (2, 6, 5)}, 36),
    (lambda x: nn.linear(x, 9, name="l"), {"weight": (9, 7), "bias": (9,)}, 7),
]


@pytest.mark.parametrize(("layer", "shapes", "fan_in"), PARAMS)
def test_parameters(layer: Callable[[Value], Value], shapes: dict[str, tuple[int, ...]], fan_in: int) -> None:
    """PyTorch's initial values: uniform in +-1/sqrt(fan_in), a weight of many elements close to the ends."""
    graph = declare(layer, "f32[N,4,8,7]")
    assert {name: p.array.shape for name, p in graph.params.items()} == {f"l.{k}": s for k, s in shapes.items()}
    assert graph.nodes[-1].name == "l"
    for p in graph.params.values():
        assert p.trainable
        assert np.abs(p.array).max() <= fan_in**-0.5
        assert p.array.size < 50 or np.abs(p.array).max() > 0.9 * fan_in**-0.5
        assert len(np.unique(p.array)) > p.array.size // 2


def test_parameters_depend_on_seed_and_name_alone() -> None:
    def weight(seed: int, *names: str) -> list[bytes]:
        net = Builder("net", seed)
        x = net.input("x", f32("N", 4))
        graph = net.build(*(nn.linear(x, 3, name=n) for n in names))
        return [graph.params[f"{n}.weight"].array.tobytes() for n in names]

    a, b = weight(0, "a", "b")
    assert a != b
    assert weight(0, "b") == [b]
    assert weight(1, "a") != [a]


def test_batch_norm_parameters() -> None:
    graph = declare(lambda x: nn.batch_norm(x, 1e-3, name="bn"))
    expected = {"weight": (1, True), "bias": (0, True), "running_mean": (0, False), "running_var": (1, False)}
    assert {k: (p.array.tolist(), p.trainable) for k, p in graph.params.items()} == {
        f"bn.{k}": ([value] * 4, trainable) for k, (value, trainable) in expected.items()
    }
    x = np.random.default_rng(0).standard_normal((2, 4, 3, 3)).astype(np.float32)
    np.testing.assert_allclose(run_reference(graph, [x])[0], x / np.sqrt(1.001), rtol=1e-6)


def test_two_layers_share_a_weight() -> None:
    net = Builder("net")
    x = net.input("x", f32("N", 3, "H", "W"))
    shared = net.param("shared", np.ones((3, 3, 3, 3), np.float32))
    first = nn.conv2d(x, 3, 3, padding="same", name="a", weight=shared)
    graph = net.build(nn.conv2d(first, 3, 3, padding="same", name="b", weight=shared))
    assert list(graph.params) == ["shared", "a.bias", "b.bias"]
    assert [node.inputs[1] for node in graph.nodes] == [shared, shared]


@pytest.mark.parametrize("dtype", ["f32", "f64", "i64"])
def test_a_number_becomes_a_constant(dtype: str) -> None:
    graph = declare(lambda x: nn.sub(10, nn.mul(x, 3)), f"{dtype}[N]")
    x = np.arange(4).astype(parse_type(f"{dtype}[N]").dtype.numpy)
    (y,) = run_reference(graph, [x])
    assert y.dtype == x.dtype
    assert y.tolist() == [10, 7, 4, 1]
    assert [p.trainable for p in graph.params.values()] == [False, False]


MISTAKES: list[tuple[Callable[[Value], object], str]] = [
    (lambda x: nn.conv2d(x, 6, 3, groups=3, name="c"), "conv2d 'c': 4 channels do not divide into 3 groups"),
    (lambda x: nn.conv2d(x, 6, 3, groups=0, name="c"), "conv2d 'c': 4 channels do not divide into 0 groups"),
    (lambda x: nn.conv2d(x, 5, 3, groups=2, name="c"), "conv2d 'c': 5 output channels do not divide into 2 groups"),
    (
        lambda x: nn.conv2d(x, 6, (3,), padding="same", name="c"),  # type: ignore[arg-type]
        r"conv2d 'c': weight must be .*\[K,C,R,S\], got f32\[6,4,3\]",
    ),
    (
        lambda x: nn.conv2d(x, 6, 3, (1, 2, 3), name="c"),  # type: ignore[arg-type]
        r"conv2d 'c': stride must be 2 integers of at least 1, got \(1, 2, 3\)",
    ),
    (
        lambda x: nn.conv2d(x, 6, 3, padding=(1, 2, 3), name="c"),  # type: ignore[arg-type]
        r"conv2d 'c': padding must be 4 integers of at least 0, got \(1, 2, 3\)",
    ),
    (
        lambda x: nn.conv2d(x, 6, 3, padding="valid", name="c"),  # type: ignore[arg-type]
        "conv2d 'c': padding must be 4 integers of at least 0, got valid",
    ),
    (lambda x: nn.conv2d(nn.flatten(x), 6, 3, name="c"), r"conv2d 'c': expected a float tensor \[N,C,H,W\] with"),
    (lambda x: nn.conv2d(x, 6, 3, name="c", weight=x), r"conv2d 'c': expected a shared weight f32\[6,4,3,3\], got %x"),
    (lambda x: nn.conv_transpose2d(x, 5, 3, groups=2, name="t"), "conv_transpose2d 't': 5 channels do not divide"),
    (lambda x: nn.locally_connected2d(x, 5, 3, name="l"), "locally_connected2d 'l': expected .* of constant size"),
    (lambda x: nn.linear(x, 5, name="fc"), "linear 'fc': expected a constant number of .* or use fully_convolutional"),
    (lambda x: nn.linear(nn.sum(x, keepdims=False), 5, name="fc"), r"linear 'fc': expected .*got %sum_1: f32\[\]"),
    (lambda x: nn.batch_norm(nn.transpose(x, (0, 2, 1, 3)), name="bn"), r"batch_norm 'bn': .* with constant C, got"),
    (lambda x: nn.max_pool(x, 0, name="p"), r"max_pool 'p': kernel must be 2 integers of at least 1, got \(0, 0\)"),
    (
        lambda x: nn.average_pool(x, 2, (1, 2, 3)),  # type: ignore[arg-type]
        r"average_pool 'average_pool_1': stride must be 2 integers",
    ),
    (lambda x: nn.concat([], name="joined"), "concat 'joined': expected at least one input, got none"),
    (lambda x: nn.concat([]), "concat: expected at least one input, got none"),
    (lambda x: nn.split(x, (1, 2), name="s"), "split 's': sizes must be positive and add up"),
    (lambda x: nn.add(1.0, 2.0), "add: expected at least one value of the network, got 1.0 and 2.0"),
    (lambda x: nn.relu(Value("loose", f32("N"))), "expected a value of a network that is being declared, got %loose"),
]


@pytest.mark.parametrize(("layer", "message"), MISTAKES)
def test_errors_name_the_layer(layer: Callable[[Value], object], message: str) -> None:
    net = Builder("net")
    with pytest.raises(GraphcError, match=message):
        layer(net.input("x", f32("N", 4, "H", "W")))


@pytest.mark.parametrize(
    ("expr", "dtypes", "message"),
    [
        ("(x0 / x1)", "bool bool", "div wants numbers, got bool"),
        ("sqrt(x0)", "i32", "sqrt wants floats, got i32"),
        ("(x0 * 0.5)", "i64", "mul wants integers beside an operand of i64, got 0.5"),
        ("max(x0, -inf)", "i64", "max wants integers beside an operand of i64, got -inf"),
        ("(x0 % x1)", "i64 i64", "mod of i64 wants a positive number to divide by, got x1"),
        ("(x0 // -3)", "i64", "floordiv of i64 wants a positive number to divide by, got -3"),
        ("(x0 + x1)", "bool bool", "add wants numbers, got bool"),
        ("logical_not(x0)", "f32", "logical_not wants booleans, got f32"),
    ],
)
def test_elements_that_a_primitive_does_not_take(expr: str, dtypes: str, message: str) -> None:
    net = Builder("net")
    inputs = [net.input(f"x{i}", parse_type(f"{t}[N]")) for i, t in enumerate(dtypes.split())]
    with pytest.raises(ShapeError, match=f"fused 'y': {re.escape(message)}"):
        net.apply(ops.Fused(expr), *inputs, name="y")


def test_values_of_two_networks_do_not_mix() -> None:
    a, b = (Builder(name).input("x", f32("N")) for name in "ab")
    with pytest.raises(GraphError, match="input %x belongs to another network"):
        nn.add(a, b)
