"""Cheap activations computed again: which ones, that it saves memory, and that the numbers stay."""

import numpy as np
import pytest

from graphc import nn, optim, passes
from graphc.codegen.plan import make_plan
from graphc.codegen.target import make_target
from graphc.driver import compile
from graphc.grad import gradient
from graphc.ir import Builder, Graph, f32
from graphc.models import resnet18
from graphc.passes import PIPELINE, TRAINING_PIPELINE, optimize, recompute_activations
from graphc.passes.enter_training import enter_training
from graphc.reference import random_inputs, run_reference
from graphc.training import add_cross_entropy, training_step


def make_network(residual: bool = False) -> Graph:
    net = Builder("net", 1)
    x = net.input("image", f32("N", 8, "H", "W"))
    for i in range(4):
        y = nn.batch_norm(nn.conv2d(x, 8, 3, padding=1, bias=False, name=f"conv{i}"), name=f"norm{i}")
        x = nn.relu(nn.add(x, y) if residual else y)
    x = nn.dropout(nn.flatten(nn.global_average_pool(x)), 0.5, name="drop")
    return enter_training(add_cross_entropy(net.build(logits=nn.linear(x, 3, name="fc"))))


def test_batch_norm_and_relu_are_computed_again() -> None:
    graph = recompute_activations(gradient(make_network()))
    again = {n.name for n in graph.nodes if n.name.endswith(".again")}
    assert {"norm2.again", "relu_3.again"} <= again
    assert not any(name.startswith(("conv", "fc")) for name in again)
    readers = {c.op.name for n in graph.nodes if n.name == "relu_3.again" for c in graph.consumers[n.outputs[0]]}
    assert "conv2d_weight_gradient" in readers
    inputs = random_inputs(graph, {"N": 2, "H": 5, "W": 6})
    inputs = [np.zeros(2, np.int64) if v.name == "labels" else a for v, a in zip(graph.inputs, inputs, strict=True)]
    for a, b in zip(run_reference(graph, inputs), run_reference(gradient(make_network()), inputs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_chains_do_not_grow() -> None:
    """Along the adds, what is kept and what is computed again take turns."""
    graph = recompute_activations(gradient(make_network(residual=True)))
    for node in graph.nodes:
        if node.name.startswith("add_") and node.name.endswith(".again"):
            assert not any(v.name.startswith("relu") and v.name.endswith(".again") for v in node.inputs)
    assert any(node.name.startswith("relu") and node.name.endswith(".again") for node in graph.nodes)


def test_inference_is_left_alone() -> None:
    graph = resnet18(size=64)
    assert str(recompute_activations(graph)) == str(graph)


@pytest.mark.parametrize("residual", [False, True])
def test_it_saves_memory_and_keeps_the_bits(residual: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    step = training_step(make_network(residual), optim.SGD())
    sizes = {"N": 4, "H": 32, "W": 32}
    target = make_target("native")
    before, after = (make_plan(optimize(step, p), target).peak_bytes(sizes) for p in (PIPELINE, TRAINING_PIPELINE))
    assert after < before
    inputs = random_inputs(step, {"N": 2, "H": 9, "W": 7})
    given = [np.full(2, 1) if v.name == "labels" else a for v, a in zip(step.inputs, inputs, strict=True)]
    again = compile(step, threads=1)(*given)
    monkeypatch.setattr(passes, "TRAINING_PIPELINE", PIPELINE)
    for name, a, b in zip(step.output_names, again, compile(step, threads=1)(*given), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
