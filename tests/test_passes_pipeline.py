"""The pipeline: order, verification after each pass, settings; long and random graphs."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from rewriting import check_rewrite, check_same_values, random_graphs, read

from graphc import settings
from graphc.errors import GraphError, InputError
from graphc.ir import Builder, Graph, Value, f32, parse_type
from graphc.ir.verify import requirements, verify
from graphc.ops import Add, BatchNorm, Conv2d, Dropout, Identity, Relu
from graphc.passes import PIPELINE, optimize, remove_identities

BLOCK = """
    graph block(%image: f32[N,4,H,W]) {
      %conv1.weight: f32[4,4,3,3] = param()
      %bn1.weight: f32[4] = param()
      %bn1.bias: f32[4] = param()
      %bn1.mean: f32[4] = param()
      %bn1.var: f32[4] = param()
      %raw: f32[4,4,3,3] = param()
      %gain: f32[4,1,1,1] = param()
      %half: f32[] = const(0.5)
      %shift: f32[1,4,1,1] = param()
      %conv1: f32[N,4,H,W] = conv2d(%image, %conv1.weight, padding=(1, 1, 1, 1), bias=False)
      %bn1: f32[N,4,H,W] = batch_norm(%conv1, %bn1.weight, %bn1.bias, %bn1.mean, %bn1.var)
      %relu1: f32[N,4,H,W] = relu(%bn1)
      %drop: f32[N,4,H,W] = dropout(%relu1)
      %weight2: f32[4,4,3,3] = mul(%raw, %gain)
      %conv2: f32[N,4,H,W] = conv2d(%drop, %weight2, padding=(1, 1, 1, 1), bias=False)
      %halved: f32[N,4,H,W] = mul(%conv2, %half)
      %shifted: f32[N,4,H,W] = add(%halved, %shift)
      %sum: f32[N,4,H,W] = add(%image, %shifted)
      %relu2: f32[N,4,H,W] = relu(%sum)
      %pool: f32[N,4,H//2,W//2] = max_pool(%relu2, kernel=(2, 2), stride=(2, 2))
      %bn2: f32[N,4,H//2,W//2] = batch_norm(%pool, %bn1.weight, %bn1.bias, %bn1.mean, %bn1.var)
      %gate1: f32[N,4,H//2,W//2] = sigmoid(%bn2)
      %gate2: f32[N,4,H//2,W//2] = sigmoid(%bn2)
      %silu: f32[N,4,H//2,W//2] = mul(%bn2, %gate1)
      %both: f32[N,4,H//2,W//2] = add(%silu, %gate2)
      return features=%both
    }
"""


def test_the_whole_pipeline() -> None:
    after = check_rewrite(
        optimize,
        BLOCK,
        """
        graph block(%image: f32[N,4,H,W]) {
        %relu1: f32[N,4,H,W] = conv2d(%image, %conv1.weight_1, %conv1.bias_1, padding=(1, 1, 1, 1), epilogue='max(x0, 0.0)') @ "conv1"
        %relu2: f32[N,4,H,W] = conv2d(%relu1, %conv2.weight_1, %conv2.bias_1, %image, padding=(1, 1, 1, 1), epilogue='max((x1 + x0), 0.0)') @ "conv2"
        %pool: f32[N,4,H//2,W//2] = max_pool(%relu2, kernel=(2, 2), stride=(2, 2))
        %both: f32[N,4,H//2,W//2] = fused(%pool, %bn2.scale_1, %bn2.shift_1, expr='((((x0 * x1) + x2) * sigmoid(((x0 * x1) + x2))) + sigmoid(((x0 * x1) + x2)))')
        return features=%both
        }""",  # noqa: E501
    )
    assert set(after.params) == {"conv1.weight_1", "conv1.bias_1", "conv2.weight_1", "conv2.bias_1", "bn2.scale_1",
                                 "bn2.shift_1"}  # fmt: skip


def test_optimizing_twice_changes_nothing() -> None:
    once = optimize(read(BLOCK))
    assert str(optimize(once)) == str(once)


@given(random_graphs())
def test_random_graphs_compute_the_same(graph: Graph) -> None:
    after = check_rewrite(optimize, graph)
    assert len(after.nodes) <= len(graph.nodes)
    assert str(optimize(after)) == str(after)


@given(random_graphs())
def test_each_pass_alone_keeps_random_graphs(graph: Graph) -> None:
    for rewrite in PIPELINE:
        check_rewrite(rewrite, graph)


def test_sizes_that_a_network_refuses_stay_refused() -> None:
    graph = read("""
        graph unet(%image: f32[N,1,H,W]) {
          %down: f32[1,1,2,2] = param()
          %up: f32[1,1,2,2] = param()
          %small: f32[N,1,H//2,W//2] = conv2d(%image, %down, stride=(2, 2), bias=False)
          %large: f32[N,1,2*(H//2),2*(W//2)] = conv_transpose2d(%small, %up, stride=(2, 2), bias=False)
          %act: f32[N,1,2*(H//2),2*(W//2)] = relu(%large)
          %sum: f32[N,1,H,W] = add(%image, %act)
          %result: f32[N,1,H,W] = tanh(%sum)
          return %result
        }""")
    after = check_rewrite(optimize, graph, sizes={"N": 1, "H": 4, "W": 6})
    pairs = [{(r.a, r.b) for r in requirements(g)} for g in (graph, after)]
    assert pairs[0] == pairs[1]


def break_type(graph: Graph) -> Graph:
    """A pass with a mistake: it stores another type than the op infers."""
    node = graph.nodes[-1]
    wrong = replace(node, outputs=(Value(node.outputs[0].name, parse_type("f32[N,7]")),))
    return replace(graph, nodes=(*graph.nodes[:-1], wrong), outputs=wrong.outputs)


def break_shapes(graph: Graph) -> Graph:
    """A pass with a mistake: it applies an op to what does not fit, which the builder refuses."""
    net = Builder("broken")
    x, y = net.input("x", f32("N", 2)), net.input("y", f32("N", 3))
    return net.build(net.apply(Add(), x, y, name="sum"))


SMALL = """
    graph small(%x: f32[N,2]) {
      %act: f32[N,2] = relu(%x)
      return %act
    }
"""


def test_the_pass_that_made_a_mistake_is_named() -> None:
    message = r"pass break_type of network 'small': relu 'act': expected the inferred type f32\[N,2\], got f32\[N,7\]"
    with pytest.raises(GraphError, match=message) as caught:
        optimize(read(SMALL), (remove_identities, break_type))
    (note,) = caught.value.__notes__
    assert "%act: f32[N,7] = relu(%x)" in note
    message = r"pass break_shapes of network 'small': add 'sum': shapes \[N,2\] and \[N,3\] do not broadcast"
    with pytest.raises(GraphError, match=message) as caught:
        optimize(read(SMALL), (break_shapes,))
    assert caught.value.__notes__ == [str(read(SMALL))]


def test_graphs_are_dumped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "new" / "dump"
    monkeypatch.setenv("GRAPHC_DUMP", str(folder))
    before = read(BLOCK)
    after = optimize(before)
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["00_input.txt", *(f"{i:02}_{p.__name__}.txt" for i, p in enumerate(PIPELINE, 1))]
    assert len(files) == len(PIPELINE) + 1
    assert (folder / files[0]).read_text() == f"{before}\n"
    assert (folder / files[-1]).read_text() == f"{after}\n"


@pytest.mark.parametrize("count", range(len(PIPELINE) + 2))
def test_the_pipeline_stops(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def note(graph: Graph) -> Graph:
        ran.append(graph)
        return graph

    monkeypatch.setenv("GRAPHC_STOP_AFTER", str(count))
    optimize(read(SMALL), [note] * len(PIPELINE))
    assert len(ran) == min(count, len(PIPELINE))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("GRAPHC_STOP_AFTER", "-1", "GRAPHC_STOP_AFTER: expected an integer of at least 0, got '-1'"),
        ("GRAPHC_STOP_AFTER", "all", "GRAPHC_STOP_AFTER: expected an integer of at least 0, got 'all'"),
        ("GRAPHC_NUM_THREADS", "0", "GRAPHC_NUM_THREADS: expected an integer from 1 to 1024, got '0'"),
        ("GRAPHC_NUM_THREADS", "²", "GRAPHC_NUM_THREADS: expected an integer from 1 to 1024, got '²'"),
        ("GRAPHC_DUMP", __file__, "GRAPHC_DUMP: expected a folder, got '.*test_passes_pipeline.py'"),
    ],
)
def test_settings_that_cannot_be_are_named(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        settings.stop_after(), settings.num_threads(), settings.dump_folder()


def test_settings_that_are_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in settings.SETTINGS:
        monkeypatch.setenv(setting.name, "")
    assert settings.dump_folder() is None
    assert settings.stop_after() is None
    assert settings.num_threads() == len(os.sched_getaffinity(0))
    monkeypatch.setenv("GRAPHC_NUM_THREADS", " 3 ")
    assert settings.num_threads() == 3


def long_chain(length: int) -> Graph:
    """`length` nodes: convolutions with what the passes fold, fuse and remove, all in one chain with residuals."""
    net = Builder("long")
    x = net.input("x", f32("N", 1, "H", "W"))
    w = net.param("w", np.full((1, 1, 1, 1), 0.5, np.float32))
    ones = [net.param(n, np.ones(1, np.float32)) for n in ("scale", "bias", "mean", "var")]
    for _ in range(length // 6):
        y = net.apply(Conv2d(bias=False), x, w)
        y = net.apply(BatchNorm(), y, *ones)
        y = net.apply(Relu(), net.apply(Identity(), y))
        x = net.apply(Dropout(), net.apply(Add(), x, y))
    return net.build(y=x)


def test_long_graphs_go_through() -> None:
    """3,000 nodes one behind the other: no pass recurses along the graph, and none is quadratic."""
    after = optimize(long_chain(3000))
    assert len(after.nodes) == 500
    assert {n.op.name for n in after.nodes} == {"conv2d"}


@pytest.mark.parametrize("op", [Relu(), Identity(), Add()])
def test_long_chains_of_one_op_go_through_each_pass(op: Relu | Identity | Add) -> None:
    net = Builder("chain")
    y = net.input("x", f32("N", 2))
    for _ in range(3000):
        y = net.apply(op, *[y] * op.arity)
    for rewrite in PIPELINE:
        verify(rewrite(net.build(y=y)))


def test_wide_graphs_go_through() -> None:
    """One value that 300 nodes read, all of which meet in one sum."""
    net = Builder("wide")
    x = net.input("x", f32("N", 2))
    total = x
    for i in range(300):
        bias = net.param(f"b{i}", np.full(2, i, np.float32))
        total = net.apply(Add(), total, net.apply(Relu(), net.apply(Add(), x, bias)))
    graph = net.build(y=total)
    check_same_values(graph, optimize(graph))
