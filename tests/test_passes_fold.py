"""Passes that compute at compile time: constants, batch norms."""

import numpy as np
import pytest
from rewriting import check_rewrite, read, show

from graphc import nn
from graphc.ir import Builder, Graph, f32
from graphc.ops import Add, BatchNorm
from graphc.passes import fold_batch_norm, fold_constants
from graphc.passes.fold_constants import FOLDED_BYTES
from graphc.reference import run_reference


def test_constants_are_folded_under_their_names() -> None:
    after = check_rewrite(
        fold_constants,
        """
        graph g(%x: f32[N,2]) {
          %v: f32[3,2] = param()
          %g: f32[3,1] = param()
          %half: f32[] = const(0.5)
          %scaled: f32[3,2] = mul(%v, %g)
          %w: f32[3,2] = mul(%scaled, %half)
          %y: f32[N,3] = linear(%x, %w, bias=False)
          return %y
        }""",
        """
        graph g(%x: f32[N,2]) {
        %y: f32[N,3] = linear(%x, %w, bias=False)
        return %y
        }""",
    )
    v, g = after.params["v"].array, after.params["g"].array
    assert np.array_equal(after.params["w"].array, v * g * np.float32(0.5))
    assert not after.params["w"].trainable
    assert after.params["v"].trainable


def test_several_results_and_outputs_are_folded() -> None:
    after = check_rewrite(
        fold_constants,
        """
        graph g(%x: f32[N,2]) {
          %c: f32[1,4] = param()
          %s.0: f32[1,1], %s.1: f32[1,3] = split(%c, axis=1, sizes=(1, 3))
          %y: f32[N,2] = add(%x, %s.0)
          return %y, %s.1
        }""",
    )
    assert [n.name for n in after.nodes] == ["y"]
    assert list(after.params) == ["c", "s.0", "s.1"]


def test_large_results_stay_nodes() -> None:
    """A constant that is broadcast to an image would swell the artefact; one that replaces its source does not."""
    side = int((FOLDED_BYTES / 4) ** 0.5) + 1

    def build(*shapes: tuple[int, ...]) -> Graph:
        net = Builder("g")
        a, b = (net.param(f"p{i}", np.ones(shape, np.float32)) for i, shape in enumerate(shapes))
        total = net.apply(Add(), a, b, name="total")
        return net.build(net.apply(Add(), net.input("x", f32("N", side, side)), total))

    grown, same = build((side, 1), (1, side)), build((side, side), (1, side))
    assert show(fold_constants(grown)) == show(grown)
    assert "total" in fold_constants(same).params


def test_what_depends_on_an_input_or_its_size_stays() -> None:
    graph = read("""
        graph g(%x: f32[N,2]) {
          %c: f32[1,2] = param()
          %y: f32[N,2] = relu(%x)
          %z: f32[N,2] = add(%y, %c)
          return %z
        }""")
    assert show(fold_constants(graph)) == show(graph)


NORM = "%bn.scale, %bn.bias, %bn.mean, %bn.var"
STATISTICS = "\n".join(f"%bn.{n}: f32[6] = param()" for n in ("scale", "bias", "mean", "var"))
LAYERS = {
    "conv2d": ("f32[N,4,H,W]", "f32[6,4,3,3]", "f32[N,6,H-2,W-2]", ""),
    "grouped": ("f32[N,4,H,W]", "f32[6,2,3,3]", "f32[N,6,H-2,W-2]", ", groups=2"),
    "transposed": ("f32[N,4,H,W]", "f32[4,6,3,3]", "f32[N,6,2*H+1,2*W+1]", ", stride=(2, 2)"),
    "transposed grouped": ("f32[N,4,H,W]", "f32[4,3,3,3]", "f32[N,6,H+2,W+2]", ", groups=2"),
    "linear": ("f32[N,4]", "f32[6,4]", "f32[N,6]", ""),
}


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("kind", LAYERS)
def test_batch_norm_folds_into_the_layer_before(kind: str, bias: bool) -> None:
    x, w, y, attributes = LAYERS[kind]
    op = "linear" if kind == "linear" else "conv_transpose2d" if "transposed" in kind else "conv2d"
    arguments = f", %conv.bias{attributes}" if bias else f"{attributes}, bias=False"
    before = f"""
        graph g(%x: {x}) {{
          %conv.weight: {w} = param()
          %conv.bias: f32[6] = param()
          {STATISTICS}
          %conv: {y} = {op}(%x, %conv.weight{arguments})
          %bn: {y} = batch_norm(%conv, {NORM}, epsilon=0.01)
          return %bn
        }}"""
    after = check_rewrite(
        fold_batch_norm,
        before,
        f"""
        graph g(%x: {x}) {{
        %bn: {y} = {op}(%x, %conv.weight_1, %conv.bias_1{attributes}) @ "conv"
        return %bn
        }}""",
    )
    assert not after.params["conv.weight_1"].trainable


def test_folded_weights_are_rounded_once() -> None:
    graph = read(f"""
        graph g(%x: f32[N,1,H,W]) {{
          %w: f32[6,1,3,3] = param()
          {STATISTICS}
          %conv: f32[N,6,H-2,W-2] = conv2d(%x, %w, bias=False)
          %bn: f32[N,6,H-2,W-2] = batch_norm(%conv, {NORM})
          return %bn
        }}""")
    exact = {n: p.array.astype(np.float64) for n, p in graph.params.items()}
    scale = exact["bn.scale"] / np.sqrt(exact["bn.var"] + 1e-5)
    after = fold_batch_norm(graph)
    assert np.array_equal(after.params["conv.weight_1"].array, np.float32(exact["w"] * scale[:, None, None, None]))
    assert np.array_equal(after.params["conv.bias_1"].array, np.float32(exact["bn.bias"] - scale * exact["bn.mean"]))


def test_products_and_sums_with_constants_are_composed() -> None:
    check_rewrite(
        fold_batch_norm,
        f"""
        graph g(%x: f32[N,4,H,W]) {{
          %w: f32[6,4,1,1] = param()
          %b: f32[6] = param()
          {STATISTICS}
          %c: f32[6,1,1] = param()
          %d: f32[1,6,1,1] = param()
          %e: f32[] = const(2.0)
          %f: f32[1] = const((0.5,))
          %conv: f32[N,6,H,W] = conv2d(%x, %w, %b)
          %s: f32[N,6,H,W] = sub(%c, %conv)
          %m: f32[N,6,H,W] = mul(%s, %d)
          %bn: f32[N,6,H,W] = batch_norm(%m, {NORM})
          %q: f32[N,6,H,W] = div(%bn, %e)
          %a: f32[N,6,H,W] = add(%f, %q)
          %t: f32[N,6,H,W] = sub(%a, %c)
          %y: f32[N,6,H,W] = relu(%t)
          return %y
        }}""",
        """
        graph g(%x: f32[N,4,H,W]) {
        %t: f32[N,6,H,W] = conv2d(%x, %conv.weight_1, %conv.bias_1) @ "conv"
        %y: f32[N,6,H,W] = relu(%t)
        return %y
        }""",
    )


def test_a_lone_batch_norm_is_one_multiplication_and_addition() -> None:
    check_rewrite(
        fold_batch_norm,
        f"""
        graph g(%x: f32[N,6,H,W], %v: f32[N,6]) {{
          {STATISTICS}
          %image: f32[N,6,H,W] = batch_norm(%x, {NORM})
          %vector: f32[N,6] = batch_norm(%v, {NORM})
          return %image, %vector
        }}""",
        """
        graph g(%x: f32[N,6,H,W], %v: f32[N,6]) {
        %image: f32[N,6,H,W] = fused(%x, %image.scale_1, %image.shift_1, expr='((x0 * x1) + x2)')
        %vector: f32[N,6] = fused(%v, %vector.scale_1, %vector.shift_1, expr='((x0 * x1) + x2)')
        return %image, %vector
        }""",
    )


KEPT = {
    "read twice": ("%y: f32[N,6,H,W] = add(%conv, %c)\n%z: f32[N,6,H,W] = relu(%conv)", "%y, %z"),
    "an output": ("%y: f32[N,6,H,W] = add(%conv, %c)", "%y, %conv"),
    "one for each column": ("%y: f32[N,6,H,4] = add(%narrow, %row)", "%y"),
    "not by a constant": ("%y: f32[N,6,H,W] = mul(%conv, %conv)", "%y"),
    "a divisor": ("%y: f32[N,6,H,W] = div(%c, %conv)", "%y"),
    "by zero": ("%y: f32[N,6,H,W] = div(%conv, %zero)", "%y"),
    "not affine": ("%y: f32[N,6,H,W] = maximum(%conv, %c)", "%y"),
    "behind an epilogue": ("%y: f32[N,6,H,W] = add(%rectified, %c)", "%y"),
    "a weight that is computed": ("%y: f32[N,6,H,W] = add(%dynamic, %c)", "%y"),
}


@pytest.mark.parametrize(("lines", "result"), KEPT.values(), ids=KEPT.keys())
def test_what_cannot_be_folded_stays(lines: str, result: str) -> None:
    graph = read(f"""
        graph g(%x: f32[N,1,H,W], %x4: f32[N,1,H,4], %v: f32[6,1,1,1]) {{
          %w: f32[6,1,1,1] = param()
          %c: f32[6,1,1] = param()
          %row: f32[4] = param()
          %zero: f32[] = const(0.0)
          %conv: f32[N,6,H,W] = conv2d(%x, %w, bias=False)
          %narrow: f32[N,6,H,4] = conv2d(%x4, %w, bias=False)
          %rectified: f32[N,6,H,W] = conv2d(%x, %w, bias=False, epilogue='max(x0, 0.0)')
          %dynamic: f32[N,6,H,W] = conv2d(%x, %v, bias=False)
          {lines}
          return {result}
        }}""")
    assert show(fold_batch_norm(graph)) == show(graph)


def test_a_linear_layer_over_more_than_vectors_stays() -> None:
    """Its channels are the last axis, those of a batch norm axis 1."""
    graph = read(f"""
        graph g(%x: f32[N,6,4]) {{
          %w: f32[6,4] = param()
          {STATISTICS}
          %y: f32[N,6,6] = linear(%x, %w, bias=False)
          %z: f32[N,6,6] = batch_norm(%y, {NORM})
          return %z
        }}""")
    after = check_rewrite(fold_batch_norm, graph)
    assert [n.op.name for n in after.nodes] == ["linear", "fused"]


def test_statistics_that_are_computed_stay() -> None:
    graph = read("""
        graph g(%x: f32[N,6,H,W], %mean: f32[6]) {
          %scale: f32[6] = param()
          %y: f32[N,6,H,W] = batch_norm(%x, %scale, %scale, %mean, %mean)
          return %y
        }""")
    assert show(fold_batch_norm(graph)) == show(graph)


@pytest.mark.parametrize("value", [3e38, np.inf, np.nan, -1.0])
@pytest.mark.parametrize("alone", [True, False])
def test_statistics_that_overflow_are_folded_without_warnings(value: float, alone: bool) -> None:
    net = Builder("net")
    x = net.input("x", f32("N", 4, "H", "W"))
    y = x if alone else nn.conv2d(x, 4, 1, name="conv")
    statistics = [net.param(f"p{i}", np.full(4, value, np.float32)) for i in range(4)]
    graph = net.build(net.apply(BatchNorm(), y, *statistics))
    folded = fold_batch_norm(graph)
    image = [np.ones((1, 4, 2, 2), np.float32)]
    np.testing.assert_array_equal(run_reference(folded, image)[0], run_reference(graph, image)[0])
