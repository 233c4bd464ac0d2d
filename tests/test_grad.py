"""The walk backwards: what `gradient` returns and refuses, ties, second derivatives, gradient graphs as code."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from onnx_models import run_onnxruntime

from graphc import nn, ops
from graphc.driver import compile
from graphc.errors import GradientError, GraphError, NoGradientError
from graphc.grad import gradient
from graphc.gradcheck import gradcheck, keep_gradients
from graphc.ir import Array, Builder, DType, Graph, Op, TensorType, f32
from graphc.ir.verify import verify
from graphc.onnx import to_model
from graphc.ops.derive import fused
from graphc.passes import optimize
from graphc.reference import random_inputs, run_reference
from graphc.text import parse
from graphc.verify import relative_difference


def test_a_gradient_graph_in_text() -> None:
    net = Builder("net")
    x = net.input("x", f32("N", 3))
    graph = net.build(loss=nn.sum(nn.tanh(x, name="y"), keepdims=False, name="total"))
    assert str(gradient(graph, "loss", ["x"])) == (
        "graph net(%x: f32[N,3]) {\n"
        "  %const_1: f32[] = const(1.0)\n"
        "  %y: f32[N,3] = tanh(%x)\n"
        "  %total: f32[] = sum(%y, keepdims=False)\n"
        "  %reshape_1: f32[1,1] = reshape(%const_1, shape=(1, 1))\n"
        "  %expand_1: f32[N,3] = expand(%reshape_1, shape=(N, 3))\n"
        "  %fused_1: f32[N,3] = fused(%y, %expand_1, expr='(x1 * (1.0 - (x0 * x0)))')\n"
        "  return loss=%total, grad.x=%fused_1\n"
        "}"
    )


def test_all_trainable_parameters_by_default() -> None:
    net = Builder("net")
    x = net.input("x", f32("N", 2, 5, 5))
    x = nn.batch_norm(nn.conv2d(x, 3, 3, name="conv"), name="norm")
    graph = gradient(net.build(loss=nn.mean(x, keepdims=False)))
    names = ["conv.weight", "conv.bias", "norm.weight", "norm.bias"]
    assert graph.output_names == ("loss", *(f"grad.{name}" for name in names))
    assert [v.type for v in graph.outputs[1:]] == [graph.params[name].value.type for name in names]


def test_a_shared_weight_has_the_sum_over_its_uses() -> None:
    net = Builder("net")
    x = net.input("x", f32(1, 2, 6, 6))
    y = nn.conv2d(x, 2, 3, padding=1, bias=False, name="first")
    weight = net.build(y=y).nodes[0].inputs[1]
    y = nn.conv2d(nn.tanh(y), 2, 3, padding=1, bias=False, weight=weight, name="second")
    graph = net.build(y=nn.add(y, nn.l2_penalty(weight)))
    gradcheck(graph, random_inputs(graph, {}))


def test_a_transposed_convolution_with_more_output_padding_than_stride() -> None:
    """A dilation of 3 allows an output_padding of 2 with stride 1: the image has two windows more than x has pixels."""
    net = Builder("net")
    x = net.input("x", f32("N", 2, "H", 5))
    weight = net.param("weight", np.random.default_rng(0).standard_normal((2, 3, 2, 2)).astype(np.float32))
    op = ops.ConvTranspose2d(stride=(1, 2), output_padding=(2, 2), dilation=(3, 3), bias=False)
    graph = net.build(y=net.apply(op, x, weight))
    gradcheck(graph, random_inputs(graph, {"N": 2, "H": 4}))


def test_what_the_loss_does_not_depend_on_has_zeros() -> None:
    net = Builder("net")
    x, y = net.input("x", f32("N")), net.input("y", f32("N", 2))
    steps = nn.arg_max(y, 1, keepdims=False)
    picked = fused(net, "(x0 * to_f32(x1))", x, steps)  # an index has no slope
    graph = gradient(net.build(loss=nn.sum(picked, keepdims=False)), "loss", ["x", "y"])
    data = np.array([[1, 2], [4, 3]], np.float32)
    _, of_x, of_y = run_reference(graph, [np.ones(2, np.float32), data])
    np.testing.assert_array_equal(of_x, [1, 0])
    np.testing.assert_array_equal(of_y, np.zeros((2, 2)))


def test_halves_have_no_gradient() -> None:
    net = Builder("net")
    x = net.input("x", f32(2))
    half = fused(net, "to_f16(x0)", x)
    graph = net.build(loss=nn.sum(fused(net, "to_f32(x0)", half), keepdims=False))
    with pytest.raises(NoGradientError, match=r"expected f32 or f64, got f16\[2\]"):
        gradient(graph, "loss", ["x"])


def test_ties_and_kinks() -> None:
    """relu has slope 0 at 0; of equal cells the first of a window has all, of a whole axis each has its share."""
    net = Builder("net")
    x = net.input("x", f32(1, 1, 2, 2))
    terms = {"relu": nn.relu(x), "pool": nn.max_pool(x, 2), "reduce": nn.reduce_max(x), "max": nn.maximum(x, x)}
    graph = net.build(**{name: nn.sum(y, keepdims=False) for name, y in terms.items()})
    zeros = np.zeros((1, 1, 2, 2), np.float32)
    found = {n: run_reference(gradient(graph, n, ["x"]), [zeros])[-1].reshape(-1).tolist() for n in terms}
    assert found == {"relu": [0] * 4, "pool": [1, 0, 0, 0], "reduce": [0.25] * 4, "max": [1] * 4}


def test_an_infinite_branch_that_is_not_taken_stays_out() -> None:
    net = Builder("net")
    x = net.input("x", f32(2))
    graph = gradient(net.build(loss=nn.sum(nn.elu(x), keepdims=False)), "loss", ["x"])
    np.testing.assert_allclose(run_reference(graph, [np.array([1000, -1], np.float32)])[1], [1, np.exp(-1)], rtol=1e-6)


@pytest.mark.parametrize("factors", [[2, 3, 4], [2, 0, 4], [0, 0, 4]])
def test_products_with_zeros(factors: list[float]) -> None:
    net = Builder("net")
    x = net.input("x", f32(3))
    gradcheck(net.build(y=nn.prod(x)), [np.array(factors, np.float32)])


@dataclass(frozen=True)
class Opaque(Op):
    """An op without a rule."""

    name: ClassVar[str] = "opaque"

    def infer(self, *types: TensorType) -> TensorType:
        return types[0]

    def eval(self, *arrays: Array) -> Array:
        return arrays[0]


def test_an_op_without_a_rule_is_named_with_its_path() -> None:
    net = Builder("net")
    x = net.input("x", f32("N"))
    y = net.apply(Opaque(), nn.tanh(x), name="middle")
    graph = net.build(loss=nn.sum(nn.exp(y, name="last"), keepdims=False, name="total"), other=y)
    message = r"opaque 'middle': this op has no gradient rule; the gradient comes by " \
              r"opaque 'middle' -> exp 'last' -> sum 'total'"  # fmt: skip
    with pytest.raises(NoGradientError, match=message):
        gradient(graph, "loss", ["x"])
    gradient(graph, "loss", [y.name])  # nothing lies between


@pytest.mark.parametrize(
    ("of", "wrt", "message"),
    [
        ("nothing", ["x"], "gradient of 'nothing': expected one of loss, map, grad.y"),
        ("map", ["x"], r"gradient of 'map': expected one float element, got f32\[N,3\]"),
        ("loss", ["z"], "gradient by 'z': expected a float value, got nothing of that name"),
        ("loss", ["k"], r"gradient by 'k': expected a float value, got i64\[N\]"),
        ("loss", ["y"], r"gradient by 'y': it has an output 'grad.y' already"),
    ],
)
def test_refusals(of: str, wrt: list[str], message: str) -> None:
    net = Builder("net")
    x = net.input("x", f32("N", 3))
    net.input("k", TensorType(DType.I64, f32("N").shape))
    y = nn.neg(x, name="y")
    graph = net.build(**{"loss": nn.sum(y, keepdims=False), "map": x, "grad.y": x})
    with pytest.raises(GraphError, match=message):
        gradient(graph, of, wrt)


def test_gradcheck_finds_a_wrong_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Builder("net")
    x = net.input("x", f32("N", 3))
    graph = net.build(y=nn.softmax(x))
    inputs = random_inputs(graph, {"N": 2})
    gradcheck(graph, inputs)
    monkeypatch.setattr(ops.Softmax, "vjp", lambda self, b, inputs, outputs, grads: list(grads))
    with pytest.raises(GradientError, match=r"gradient by 'x' at \[\d, \d\]: central difference .*, got "):
        gradcheck(graph, inputs)


def small_network() -> Graph:
    """Strides that leave a remainder, groups, overlapping pools, a branch, symbolic N, H and W."""
    net = Builder("net", seed=1)
    x = net.input("image", f32("N", 3, "H", "W"))
    labels = net.input("labels", TensorType(DType.I64, f32("N").shape))
    x = nn.tanh(nn.conv2d(x, 8, 3, stride=2, padding=1, name="conv1"))
    x = nn.batch_norm(nn.max_pool(x, 3, stride=2, padding=1), name="norm")
    y = nn.leaky_relu(nn.conv2d(x, 8, (3, 1), padding=(1, 0), groups=4, dilation=1, name="conv2"))
    x = nn.concat([nn.add(x, y), nn.average_pool(y, 3, stride=1, padding=1)])
    x = nn.upsample_bilinear(nn.elu(x), size=(7, 9))
    x = nn.local_response_norm(nn.conv_transpose2d(x, 6, 3, stride=2, name="up"), 3, alpha=0.1)
    x = nn.flatten(nn.global_average_pool(nn.pad(x, (0, 0, 1, 2, 0, 0, 0, 1), "reflect")))
    return net.build(loss=nn.softmax_cross_entropy(nn.linear(x, 5, name="fc"), labels))


def network_inputs(n: int, h: int, w: int) -> list[Array]:
    rng = np.random.default_rng(h)
    return [rng.standard_normal((n, 3, h, w)).astype(np.float32), rng.integers(0, 5, n)]


def test_every_executor_runs_a_gradient_graph() -> None:
    graph = gradient(small_network())
    assert str(parse(str(graph), {name: p.array for name, p in graph.params.items()})) == str(graph)
    verify(optimize(graph))
    model = to_model(graph)
    one, three = compile(graph, threads=1), compile(graph, threads=3)
    for shape in ((2, 17, 22), (1, 30, 13)):
        inputs = network_inputs(*shape)
        expected = run_reference(graph, inputs, DType.F64)
        named = dict(zip(("image", "labels"), inputs, strict=True))
        found = {"code": one(*inputs), "ONNX Runtime": run_onnxruntime(model, named)}
        for a, b in zip(found["code"], three(*inputs), strict=True):
            np.testing.assert_array_equal(a, b, "one thread and three")
        for where, results in found.items():
            for name, a, e in zip(graph.output_names, results, expected, strict=True):
                assert relative_difference(a, e) <= 1e-5, f"{name} by {where} at {shape}"


SECOND = {
    "conv2d": lambda x: nn.conv2d(x, 3, 3, stride=2, padding=1, name="conv"),
    "conv_transpose2d": lambda x: nn.conv_transpose2d(x, 3, 3, stride=2, groups=1, name="conv"),
    "max_pool": lambda x: nn.max_pool(x, 3, stride=2),
    "average_pool": lambda x: nn.average_pool(x, 3, stride=2, padding=1),
    "l2_pool": lambda x: nn.l2_pool(x, 2),
    "linear": lambda x: nn.linear(x, 3, name="fc"),
    "softmax": nn.softmax,
    "log_softmax": nn.log_softmax,
    "batch_norm": lambda x: nn.batch_norm(x, name="norm"),
    "local_response_norm": lambda x: nn.local_response_norm(x, 3, alpha=0.5),
    "slice": lambda x: nn.slice(x, (2, 3), (1, -1), (5, -6), (2, -2)),
    "pad": lambda x: nn.pad(x, (0, 0, 1, 2, 0, 0, 2, 1), "symmetric"),
    "upsample_bilinear": lambda x: nn.upsample_bilinear(x, 2),
    "sigmoid": nn.sigmoid,
    "pow": lambda x: nn.pow(nn.exp(x), 1.7),
    "prod": lambda x: nn.prod(x, (2,)),
}


@pytest.mark.parametrize("name", SECOND)
def test_second_derivatives(name: str) -> None:
    """Of the sum of squares, whose gradient depends on the input, by input and parameters."""
    net = Builder("net")
    x = net.input("x", f32("N", 2, 6, 6))
    y = SECOND[name](x)
    graph = net.build(loss=nn.mean(nn.mul(y, y), keepdims=False))
    names = ["x", *(n for n, p in graph.params.items() if p.trainable)]
    gradients = keep_gradients(gradient(graph, "loss", names), names)
    gradcheck(gradients, random_inputs(graph, {"N": 2}), names)
