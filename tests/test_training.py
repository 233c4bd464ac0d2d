"""Training without PyTorch: batch statistics, dropout's random bits, and steps that lower a loss."""

from math import sqrt

import numpy as np
import pytest

from graphc import nn, optim
from graphc.driver import compile
from graphc.errors import GraphError, InputError
from graphc.grad import gradient
from graphc.gradcheck import gradcheck
from graphc.ir import Array, Builder, DType, Graph, TensorType, f32
from graphc.ops.random_bits import make_key, random_bits
from graphc.passes.enter_training import enter_training
from graphc.reference import random_inputs, run_reference
from graphc.training import add_cross_entropy, training_step

M64 = 2**64 - 1


def squares(counter: int, key: int) -> int:
    """The published form of the generator, in unsigned arithmetic (Widynski 2020)."""
    x = y = counter * key & M64
    z = y + key & M64
    for added in (y, z, y):
        x = x * x + added & M64
        x = (x >> 32 | x << 32) & M64
    return (x * x + z & M64) >> 32


def draw_bits(name: str, shape: TensorType, step: int, data: Array, threads: int = 1) -> tuple[Array, Array]:
    """By the reference and by the code."""
    net = Builder("bits")
    net.input("x", shape)
    steps = net.input("step", TensorType(DType.I64, ()))
    graph = net.build(bits=random_bits(net, shape, make_key(0, name), steps))
    inputs = [data, np.asarray(step)]
    return run_reference(graph, inputs)[0], compile(graph, threads=threads)(*inputs)


def test_random_bits_are_those_of_squares() -> None:
    shape, data = f32("N", 3, "W"), np.zeros((2, 3, 1200), np.float32)
    reference, code = draw_bits("a", shape, 5, data, threads=3)
    np.testing.assert_array_equal(code, reference)
    places = [0, 1, 77, reference.size - 1]
    key = make_key(0, "a")
    assert [int(reference.flat[i]) for i in places] == [squares((5 << 32) + i, key) for i in places]


def test_random_bits_are_even_and_not_related() -> None:
    shape, data = f32(4, 50000), np.zeros((4, 50000), np.float32)
    streams = [draw_bits(name, shape, step, data)[0] / 2**32 for name, step in (("a", 0), ("a", 1), ("b", 0))]
    error = 1 / sqrt(data.size)  # of a mean of as many numbers of deviation 1
    for i, u in enumerate(streams):
        assert abs(u.mean() - 0.5) < 5 * error * sqrt(1 / 12)
        for other in (*streams[i + 1 :], np.roll(u, 1)):
            assert abs(np.corrcoef(u.reshape(-1), other.reshape(-1))[0, 1]) < 5 * error


def test_dropout_drops_and_scales() -> None:
    net = Builder("net")
    x = net.input("x", f32("N", "W"))
    graph = enter_training(net.build(y=nn.dropout(x, 0.3, name="drop"), same=nn.dropout(x, 0.0)), seed=4)
    assert [v.name for v in graph.inputs] == ["x", "step"]
    ones = np.ones((20, 5000), np.float32)
    y, same = run_reference(graph, [ones, np.asarray(0)])
    assert same is not None and (same == 1).all()
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs((y == 0).mean() - 0.3) < 5 * sqrt(0.21 / ones.size)
    assert not np.array_equal(y, run_reference(graph, [ones, np.asarray(1)])[0])
    np.testing.assert_array_equal(compile(graph, threads=2)(ones, np.asarray(0))[0], y)


def norm_network() -> Graph:
    net = Builder("net")
    x = net.input("x", f32("N", 3, "H", "W"))
    return net.build(y=nn.dropout(nn.tanh(nn.batch_norm(x, name="norm"))))


def test_batch_norm_normalises_its_batch() -> None:
    graph = enter_training(norm_network(), momentum=0.25)
    assert graph.output_names == ("y", "norm.running_mean.next", "norm.running_var.next")
    images = random_inputs(graph, {"N": 2, "H": 5, "W": 7})[0] * 3 + 1
    _, mean, variance = run_reference(graph, [images, np.asarray(0)], DType.F64)
    np.testing.assert_allclose(mean, images.mean((0, 2, 3), dtype=np.float64) * 0.25)
    np.testing.assert_allclose(variance, 0.75 + images.astype(np.float64).var((0, 2, 3), ddof=1) * 0.25)
    gradcheck(graph, [images, np.asarray(2)], ["x", "norm.weight", "norm.bias"])


def test_training_form_is_entered_once() -> None:
    net = Builder("net")
    graph = net.build(y=nn.batch_norm(net.input("x", f32("N", 3)), name="norm"))
    once = enter_training(graph)
    assert str(enter_training(once)) == str(once)


def test_steps_lower_the_loss() -> None:
    """Images of low and high contrast; the code's state stays that of the reference in float64."""
    net = Builder("net", seed=2)
    x = net.input("image", f32("N", 1, "H", "W"))
    x = nn.relu(nn.batch_norm(nn.conv2d(x, 4, 3, stride=2, bias=False, name="conv"), name="norm"))
    x = nn.dropout(nn.flatten(nn.global_average_pool(x)), 0.25, name="drop")
    graph = enter_training(add_cross_entropy(net.build(logits=nn.linear(x, 2, name="fc"))))
    step = training_step(graph, optim.SGD(momentum=0.9))
    assert [v.name for v in step.inputs[:3]] == ["image", "labels", "step"]
    assert {n for n in step.output_names if not n.endswith(".next")} == {"loss", "logits"}
    run, rng = compile(step, threads=2), np.random.default_rng(0)
    state = {v.name: np.zeros(v.type.static_shape(), np.float32) for v in step.inputs if v.name.endswith("velocity")}
    state |= {name: p.array for name, p in graph.params.items()} | {"learning_rate": np.asarray(0.1, np.float32)}
    losses = []
    for i in range(25):
        labels = rng.integers(0, 2, 16)
        images = rng.standard_normal((16, 1, 9, 11)).astype(np.float32) * (1 + 4 * labels[:, None, None, None])
        given = {**state, "image": images.astype(np.float32), "labels": labels, "step": np.asarray(i)}
        inputs = [given[v.name] for v in step.inputs]
        results = dict(zip(step.output_names, run(*inputs), strict=True))
        expected = dict(zip(step.output_names, run_reference(step, inputs, DType.F64), strict=True))
        for name, array in results.items():
            np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)
        losses.append(float(results["loss"]))
        state |= {n.removesuffix(".next"): a for n, a in results.items() if n.endswith(".next")}
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def test_refusals() -> None:
    net = Builder("net")
    graph = net.build(loss=nn.sum(net.input("x", f32("N")), keepdims=False))
    with pytest.raises(GraphError, match="network 'net': expected trainable parameters, got none"):
        training_step(graph, optim.Adam())
    with pytest.raises(InputError, match="SGD: nesterov needs a momentum above 0"):
        optim.SGD(nesterov=True)
    for make, message in (
        (lambda: optim.SGD(-0.1), "SGD: expected 0 <= momentum < 1, got -0.1"),
        (lambda: optim.SGD(weight_decay=-1), "SGD: expected a finite weight_decay of at least 0, got -1"),
        (lambda: optim.Adam(beta1=1.0), "Adam: expected 0 < beta1 < 1, got 1.0"),
        (lambda: optim.AdamW(beta2=0.0), "AdamW: expected 0 < beta2 < 1, got 0.0"),
        (lambda: optim.AdamW(epsilon=0.0), "AdamW: expected a finite epsilon above 0, got 0.0"),
    ):
        with pytest.raises(InputError, match=message):
            make()
    assert gradient(graph, wrt=["x"]).output_names == ("loss", "grad.x")
