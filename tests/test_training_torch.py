"""Gradients and optimisers against PyTorch, where it is installed: whole networks, batch norm in training mode."""

import numpy as np
import pytest

from graphc import nn, ops, optim
from graphc.driver import compile
from graphc.grad import PREFIX, gradient
from graphc.ir import NEXT, Array, Builder, DType, Graph, Node, Value, f32
from graphc.models import NETWORKS
from graphc.passes.enter_training import enter_training
from graphc.reference import run_reference
from graphc.training import add_cross_entropy, training_step
from graphc.verify import relative_difference

torch = pytest.importorskip("torch", reason="compares with PyTorch (pip install torch)")
from torch_executor import run_torch  # noqa: E402  # it imports torch

SIDES = {"lenet5": 32, "alexnet": 63, "resnet18": 40, "mobilenet_v2": 40, "unet": 16, "densenet121": 40}
BATCH = 3
TOLERANCE = 1e-7  # in float64: 120 batch norms over a few numbers each multiply its 1e-16 by up to 1e8
NATIVE_TOLERANCE = 1e-4  # in float32
# Among the many elements of these, rounding in float32 takes some to the other side of a relu's kink, which changes
# the gradients by up to 1e-2, PyTorch's own as well; so they have smooth units here, and batch norms over 8 numbers.
DEEP = ("mobilenet_v2", "densenet121")


def make_network(name: str, batch: int = BATCH) -> tuple[Graph, list[Array]]:
    """The network with its loss, without dropout, which PyTorch draws from another generator; and a batch."""
    side = SIDES[name]
    attributes = {"lenet5": {}, "unet": {"channels": 8}}.get(name, {"size": side})
    graph = add_cross_entropy(NETWORKS[name](num_classes=5, **attributes)).rewrite(drop_nothing)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, graph.inputs[0].type.shape[1], side, side)).astype(np.float32)
    return graph, [images, rng.integers(0, 5, (batch, side, side) if name == "unet" else batch)]


def drop_nothing(b: Builder, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
    return inputs if isinstance(node.op, ops.Dropout) else None


def smooth(b: Builder, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
    return b.add(ops.Softplus(), inputs) if isinstance(node.op, ops.Relu | ops.Clip) else None


@pytest.mark.parametrize("name", SIDES)
def test_gradients_are_those_of_pytorch(name: str) -> None:
    graph, inputs = make_network(name)
    (loss, *_), params = run_torch(graph, inputs, train=True)
    loss.backward()
    trained = gradient(enter_training(graph), "loss")
    found = dict(zip(trained.output_names, run_reference(trained, inputs, DType.F64), strict=True))
    assert found["loss"] == pytest.approx(loss.item(), rel=1e-9)
    largest = max(p.grad.abs().max().item() for p in params.values() if p.requires_grad)
    for key, p in params.items():
        if p.requires_grad:  # what batch norm makes of a bias before it is 0 but for rounding
            difference = np.abs(found[f"{PREFIX}{key}"] - p.grad.numpy()).max()
            assert difference <= TOLERANCE * max(p.grad.abs().max().item(), 1e-3 * largest), key
        elif f"{key}{NEXT}" in found:
            np.testing.assert_allclose(found[f"{key}{NEXT}"], p.numpy(), rtol=1e-9, atol=1e-9, err_msg=key)


@pytest.mark.parametrize("name", SIDES)
def test_compiled_gradients_are_those_of_pytorch(name: str) -> None:
    graph, inputs = make_network(name, 8 if name in DEEP else BATCH)
    graph = graph.rewrite(smooth) if name in DEEP else graph
    (loss, *_), params = run_torch(graph, inputs, train=True)
    loss.backward()
    trained = gradient(enter_training(graph), "loss")
    found = dict(zip(trained.output_names, compile(trained, threads=2)(*inputs), strict=True))
    largest = max(p.grad.abs().max().item() for p in params.values() if p.requires_grad)
    for key, p in params.items():
        if p.requires_grad:
            difference = np.abs(found[f"{PREFIX}{key}"] - p.grad.numpy()).max()
            assert difference <= NATIVE_TOLERANCE * max(p.grad.abs().max().item(), 1e-3 * largest), key


def small_network() -> Graph:
    net = Builder("small", seed=3)
    x = net.input("image", f32("N", 2, 8, 8))
    x = nn.max_pool(nn.relu(nn.batch_norm(nn.conv2d(x, 5, 3, padding=1, bias=False, name="conv"), name="norm")), 2)
    return add_cross_entropy(net.build(logits=nn.linear(nn.flatten(x), 4, name="fc")))


OPTIMIZERS = {
    "sgd": (optim.SGD(), lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (optim.SGD(0.9, weight_decay=0.01), lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=0.01)),
    "nesterov": (optim.SGD(0.8, nesterov=True), lambda p: torch.optim.SGD(p, 0.1, 0.8, nesterov=True)),
    "adam": (optim.Adam(), lambda p: torch.optim.Adam(p, 0.1)),
    "adam_l2": (optim.Adam(0.8, 0.99, 1e-6, 0.02),
                lambda p: torch.optim.Adam(p, 0.1, (0.8, 0.99), 1e-6, weight_decay=0.02)),
    "adamw": (optim.AdamW(weight_decay=0.05), lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.05)),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_five_steps_are_those_of_torch_optim(name: str) -> None:
    optimizer, make = OPTIMIZERS[name]
    graph = small_network()
    step = training_step(enter_training(graph), optimizer)
    net = compile(step, threads=1)
    rng = np.random.default_rng(1)
    batches = [[rng.standard_normal((6, 2, 8, 8)).astype(np.float32), rng.integers(0, 4, 6)] for _ in range(5)]
    state = {v.name: np.zeros(v.type.static_shape(), np.float32) for v in step.inputs if v.type.symbols == frozenset()}
    state |= {n: p.array for n, p in graph.params.items()} | {"learning_rate": np.float32(0.1).reshape(())}
    reference = dict(state)
    _, params = run_torch(graph, batches[0], train=False)
    torch_optimizer = make([p for p in params.values() if p.requires_grad])
    for i, batch in enumerate(batches):
        torch_optimizer.zero_grad()
        (loss, *_), _ = run_torch(graph, batch, train=True, params=params)
        loss.backward()
        torch_optimizer.step()
        for where, dtype in ((state, None), (reference, DType.F64)):
            given = {**where, "image": batch[0], "labels": batch[1], "step": np.asarray(i)}
            inputs = [given[v.name] for v in step.inputs]
            results = net(*inputs) if dtype is None else run_reference(step, inputs, dtype)
            where |= {n.removesuffix(NEXT): a for n, a in zip(step.output_names, results, strict=True)}
    for key, p in params.items():
        expected = p.detach().numpy()
        assert relative_difference(reference[key], expected) <= 1e-6, key  # 0.1 is a float32 here
        assert relative_difference(state[key], expected) <= 1e-3, key  # Adam divides by the root of tiny squares
