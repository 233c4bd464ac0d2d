"""Weights that are in memory only while they are packed."""

import ctypes
import threading

import numpy as np
import pytest

import graphc
from graphc import Builder, f32, nn
from graphc.codegen.plan import make_plan
from graphc.codegen.target import make_target
from graphc.ir import Graph
from graphc.passes import optimize
from graphc.reference import random_inputs, run_reference
from graphc.runtime.lending import LentWeights
from graphc.verify import relative_difference


def make_graph() -> Graph:
    net = Builder("net")
    x = net.input("x", f32("N", 64, "H", "W"))
    y = nn.global_average_pool(nn.relu(nn.conv2d(x, 96, 3, padding=1, name="conv")))
    return net.build(y=nn.linear(nn.flatten(y), 10, name="fc"))


def test_what_packing_read_takes_no_memory_afterwards() -> None:
    plan = make_plan(optimize(make_graph()), make_target("native"))
    lent = LentWeights(plan)
    whole = plan.weight_block()
    packed = {plan.places[b.memory] for step in plan.setup for b in step.kernel.buffers}
    starts = {p.index for p in packed if p.kind == "weights"}
    (start,) = [s for s, value in plan.weights if s in starts and value.type.elements == 96 * 64 * 9]
    size = 96 * 64 * 9 * 4
    with lent.lend() as (address, count, visit):
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * count).from_address(address))
        assert count == whole.size
        assert not memory[start : start + size].any()
        visit(address, start, size, 0)
        assert np.array_equal(memory[start : start + size], whole[start : start + size])
        visit(address, start, size, 1)
        assert np.count_nonzero(memory[start : start + size]) < 2 * 4096  # what shares a page with others stays
    kept = [s for s, _ in plan.weights if s not in starts]
    assert kept, "the fully connected layer reads its weights in every run"
    assert all(memory[s] == whole[s] for s in kept)


def test_every_handle_is_given_all_weights() -> None:
    graph = make_graph()
    network, inputs = graphc.compile(graph, threads=1), random_inputs(graph, {"N": 1, "H": 9, "W": 12})
    (expected,), results = run_reference(graph, inputs), []
    start = threading.Barrier(4)

    def run() -> None:
        start.wait()
        results.append([network(*inputs) for _ in range(20)])  # calls at one time create handles

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(relative_difference(y, expected) < 1e-5 for found in results for y in found)
    assert all(np.array_equal(y, results[0][0]) for found in results for y in found)


def test_weights_that_cannot_be_made_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(LentWeights, "_fill", fail)
    net = Builder("net")
    x = net.input("x", f32("N", 64, "H", "W"))
    with pytest.raises(MemoryError, match="no room"):
        graphc.compile(net.build(y=nn.conv2d(x, 96, 3, bias=False, name="conv")), threads=1)
