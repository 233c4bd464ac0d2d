"""Passes that merge nodes: epilogues of convolutions, chains of elementwise ops."""

import pytest
from hypothesis import given
from rewriting import check_rewrite, random_graphs, read, show

from graphc.ir import Builder, Graph, f32
from graphc.ops import Add, LeakyRelu, Mul, Tanh, scalar
from graphc.passes import fuse_elementwise, fuse_epilogues
from graphc.passes.regions import MAX_PRIMITIVES


def test_activation_behind_a_convolution() -> None:
    check_rewrite(
        fuse_epilogues,
        """
        graph g(%x: f32[N,2,H,W]) {
          %w: f32[3,2,3,3] = param()
          %b: f32[3] = param()
          %conv: f32[N,3,H-2,W-2] = conv2d(%x, %w, %b)
          %act: f32[N,3,H-2,W-2] = relu(%conv)
          return %act
        }""",
        """
        graph g(%x: f32[N,2,H,W]) {
        %act: f32[N,3,H-2,W-2] = conv2d(%x, %w, %b, epilogue='max(x0, 0.0)') @ "conv"
        return %act
        }""",
    )


@pytest.mark.parametrize(
    ("x", "w", "y", "layer"),
    [
        ("f32[N,2,H,W]", "f32[3,2,1,1]", "f32[N,3,H,W]", "conv2d(%x, %w, bias=False{})"),
        ("f32[N,2,H,W]", "f32[2,3,2,2]", "f32[N,3,2*H,2*W]", "conv_transpose2d(%x, %w, stride=(2, 2), bias=False{})"),
        ("f32[N,2]", "f32[3,2]", "f32[N,3]", "linear(%x, %w, bias=False{})"),
        ("f32[N,5,2]", "f32[3,2]", "f32[N,5,3]", "linear(%x, %w, bias=False{})"),
    ],
)
def test_every_layer_with_an_epilogue(x: str, w: str, y: str, layer: str) -> None:
    check_rewrite(
        fuse_epilogues,
        f"""
        graph g(%x: {x}) {{
          %w: {w} = param()
          %two: f32[] = const(2.0)
          %layer: {y} = {layer.format("")}
          %twice: {y} = mul(%layer, %two)
          %act: {y} = sigmoid(%twice)
          return %act
        }}""",
        f"""
        graph g(%x: {x}) {{
        %act: {y} = {layer.format(", epilogue='sigmoid((x0 * 2.0))'")} @ "layer"
        return %act
        }}""",
    )


def test_expressions_that_use_the_result_twice() -> None:
    """SiLU and h-swish are no chains: two nodes read the convolution."""
    check_rewrite(
        fuse_epilogues,
        """
        graph g(%x: f32[N,2,H,W]) {
          %w: f32[2,2,1,1] = param()
          %three: f32[] = const(3.0)
          %six: f32[1,1,1] = const((((6.0,),),))
          %conv1: f32[N,2,H,W] = conv2d(%x, %w, bias=False)
          %gate1: f32[N,2,H,W] = sigmoid(%conv1)
          %silu: f32[N,2,H,W] = mul(%conv1, %gate1)
          %conv2: f32[N,2,H,W] = conv2d(%silu, %w, bias=False)
          %a: f32[N,2,H,W] = add(%conv2, %three)
          %b: f32[N,2,H,W] = clip(%a, minimum=0.0, maximum=6.0)
          %c: f32[N,2,H,W] = mul(%b, %conv2)
          %swish: f32[N,2,H,W] = div(%c, %six)
          return %swish
        }""",
        """
        graph g(%x: f32[N,2,H,W]) {
        %silu: f32[N,2,H,W] = conv2d(%x, %w, bias=False, epilogue='(x0 * sigmoid(x0))') @ "conv1"
        %swish: f32[N,2,H,W] = conv2d(%silu, %w, bias=False, epilogue='((min(max((x0 + 3.0), 0.0), 6.0) * x0) / 6.0)') @ "conv2"
        return %swish
        }""",  # noqa: E501
    )


def test_residual_add() -> None:
    check_rewrite(
        fuse_epilogues,
        """
        graph g(%x: f32[N,2,H,W]) {
          %w: f32[2,2,1,1] = param()
          %conv: f32[N,2,H,W] = conv2d(%x, %w, bias=False)
          %sum: f32[N,2,H,W] = add(%x, %conv)
          %act: f32[N,2,H,W] = relu(%sum)
          %pool: f32[N,2,H-1,W-1] = max_pool(%act, kernel=(2, 2), stride=(1, 1))
          return %pool, %act
        }""",
        """
        graph g(%x: f32[N,2,H,W]) {
        %act: f32[N,2,H,W] = conv2d(%x, %w, %x, bias=False, epilogue='max((x1 + x0), 0.0)') @ "conv"
        %pool: f32[N,2,H-1,W-1] = max_pool(%act, kernel=(2, 2), stride=(1, 1))
        return %pool, %act
        }""",
    )


@pytest.mark.parametrize("operands", ["%first, %second", "%second, %first"])
def test_where_two_convolutions_meet_the_later_one_adds(operands: str) -> None:
    after = check_rewrite(
        fuse_epilogues,
        f"""
        graph g(%x: f32[N,2,H,W]) {{
          %w: f32[2,2,1,1] = param()
          %v: f32[2,2,1,1] = param()
          %first: f32[N,2,H,W] = conv2d(%x, %w, bias=False)
          %second: f32[N,2,H,W] = conv2d(%x, %v, bias=False)
          %sum: f32[N,2,H,W] = sub({operands})
          return %sum
        }}""",
    )
    assert [n.name for n in after.nodes] == ["first", "second"]
    assert [v.name for v in after.nodes[1].inputs] == ["x", "v", "first"]


def test_a_residual_that_depends_on_the_convolution_makes_no_cycle() -> None:
    graph = read("""
        graph g(%x: f32[N,2,H,W]) {
          %w: f32[2,2,1,1] = param()
          %conv: f32[N,2,H,W] = conv2d(%x, %w, bias=False)
          %pool: f32[N,2,H,W] = max_pool(%conv, kernel=(3, 3), stride=(1, 1), padding=(1, 1, 1, 1))
          %sum: f32[N,2,H,W] = add(%conv, %pool)
          return %sum
        }""")
    assert show(fuse_epilogues(graph)) == show(graph)


def test_an_operand_that_comes_after_the_convolution() -> None:
    check_rewrite(
        fuse_epilogues,
        """
        graph g(%x: f32[N,2,H,W]) {
          %w: f32[2,2,1,1] = param()
          %conv: f32[N,2,H,W] = conv2d(%x, %w, bias=False)
          %late: f32[N,2,H,W] = max_pool(%x, kernel=(3, 3), stride=(1, 1), padding=(1, 1, 1, 1))
          %sum: f32[N,2,H,W] = add(%conv, %late)
          return %sum
        }""",
        """
        graph g(%x: f32[N,2,H,W]) {
        %late: f32[N,2,H,W] = max_pool(%x, kernel=(3, 3), stride=(1, 1), padding=(1, 1, 1, 1))
        %sum: f32[N,2,H,W] = conv2d(%x, %w, %late, bias=False, epilogue='(x0 + x1)') @ "conv"
        return %sum
        }""",
    )


NOT_FUSED = {
    "read by others": (
        "%y: f32[N,2,2*(H//2),W] = relu(%conv)\n"
        "%z: f32[N,2,2*(H//2),W] = max_pool(%conv, kernel=(1, 1), stride=(1, 1))",
        "%y, %z",
    ),
    "an output": ("%y: f32[N,2,2*(H//2),W] = relu(%conv)", "%y, %conv"),
    "sizes only assumed equal": ("%y: f32[N,2,2*(H//2),W] = add(%conv, %x)", "%y"),
    "an operand that broadcasts": ("%y: f32[N,2,2*(H//2),W] = mul(%conv, %gate)", "%y"),
    "an epilogue already": ("%y: f32[N,2,2*(H//2),W] = relu(%done)", "%y"),
}


@pytest.mark.parametrize(("lines", "result"), NOT_FUSED.values(), ids=NOT_FUSED.keys())
def test_what_is_no_epilogue_stays(lines: str, result: str) -> None:
    graph = read(f"""
        graph g(%x: f32[N,2,H,W], %gate: f32[N,2,1,1], %even: f32[N,2,2*(H//2),W]) {{
          %w: f32[2,2,1,1] = param()
          %conv: f32[N,2,2*(H//2),W] = conv2d(%even, %w, bias=False)
          %done: f32[N,2,2*(H//2),W] = conv2d(%even, %w, bias=False, epilogue='tanh(x0)')
          {lines}
          return {result}
        }}""")
    assert show(fuse_epilogues(graph)) == show(graph)


def test_the_part_before_a_broadcast_is_an_epilogue() -> None:
    check_rewrite(
        fuse_epilogues,
        """
        graph g(%x: f32[N,2,H,W], %gate: f32[N,2,1,1]) {
          %w: f32[2,2,1,1] = param()
          %conv: f32[N,2,H,W] = conv2d(%x, %w, bias=False)
          %act: f32[N,2,H,W] = relu(%conv)
          %gated: f32[N,2,H,W] = mul(%act, %gate)
          return %gated
        }""",
        """
        graph g(%x: f32[N,2,H,W], %gate: f32[N,2,1,1]) {
        %act: f32[N,2,H,W] = conv2d(%x, %w, bias=False, epilogue='max(x0, 0.0)') @ "conv"
        %gated: f32[N,2,H,W] = mul(%act, %gate)
        return %gated
        }""",
    )


def test_elementwise_region() -> None:
    """A diamond, an operand that is read three times, and one that broadcasts."""
    check_rewrite(
        fuse_elementwise,
        """
        graph g(%x: f32[N,2,H,W], %g: f32[N,1,1,W]) {
          %c: f32[2,1,1] = param()
          %a: f32[N,2,H,W] = add(%x, %c)
          %b: f32[N,2,H,W] = mul(%a, %a)
          %d: f32[N,2,H,W] = tanh(%a)
          %e: f32[N,2,H,W] = maximum(%b, %d)
          %f: f32[N,2,H,W] = mul(%e, %g)
          %h: f32[N,2,H,W] = sub(%f, %x)
          return %h
        }""",
        """
        graph g(%x: f32[N,2,H,W], %g: f32[N,1,1,W]) {
        %h: f32[N,2,H,W] = fused(%x, %c, %g, expr='((max(((x0 + x1) * (x0 + x1)), tanh((x0 + x1))) * x2) - x0)')
        return %h
        }""",
    )


def test_fused_nodes_fuse_again() -> None:
    check_rewrite(
        fuse_elementwise,
        """
        graph g(%x: f32[N,2,H,W]) {
          %s: f32[2,1,1] = param()
          %t: f32[2,1,1] = param()
          %bn: f32[N,2,H,W] = fused(%x, %s, %t, expr='((x0 * x1) + x2)')
          %act: f32[N,2,H,W] = leaky_relu(%bn, alpha=0.1)
          return %act
        }""",
        """
        graph g(%x: f32[N,2,H,W]) {
        %act: f32[N,2,H,W] = fused(%x, %s, %t, expr='select(ge(((x0 * x1) + x2), 0.0), ((x0 * x1) + x2), (((x0 * x1) + x2) * 0.1))')
        return %act
        }""",  # noqa: E501
    )


def test_values_that_others_read_end_a_region() -> None:
    check_rewrite(
        fuse_elementwise,
        """
        graph g(%x: f32[N,2,H,W]) {
          %a: f32[N,2,H,W] = relu(%x)
          %b: f32[N,2,H,W] = tanh(%a)
          %c: f32[N,2,H,W] = neg(%b)
          %p: f32[N,2,H-1,W-1] = max_pool(%b, kernel=(2, 2), stride=(1, 1))
          %d: f32[N,2,H,W] = exp(%c)
          %e: f32[N,2,H,W] = abs(%d)
          return %p, %d, %e
        }""",
        """
        graph g(%x: f32[N,2,H,W]) {
        %b: f32[N,2,H,W] = fused(%x, expr='tanh(max(x0, 0.0))')
        %p: f32[N,2,H-1,W-1] = max_pool(%b, kernel=(2, 2), stride=(1, 1))
        %d: f32[N,2,H,W] = fused(%b, expr='exp(-x0)')
        %e: f32[N,2,H,W] = abs(%d)
        return %p, %d, %e
        }""",
    )


def test_results_of_other_shapes_end_a_region() -> None:
    """A row of 2 numbers is not computed again for each pixel."""
    graph = read("""
        graph g(%x: f32[N,2,H,W], %g: f32[N,2,1,1]) {
          %gate: f32[N,2,1,1] = sigmoid(%g)
          %y: f32[N,2,H,W] = mul(%x, %gate)
          return %y
        }""")
    assert show(fuse_elementwise(graph)) == show(graph)


def test_sizes_that_are_only_assumed_equal_end_a_region() -> None:
    """Else H or 2*(H//2) would be the size of the result, as the order of the operands has it."""
    after = check_rewrite(
        fuse_elementwise,
        """
        graph g(%x: f32[N,2,H,W], %y: f32[N,2,2*(H//2),W]) {
          %a: f32[N,2,2*(H//2),W] = neg(%y)
          %b: f32[N,2,H,W] = add(%x, %a)
          %c: f32[N,2,H,W] = relu(%b)
          %d: f32[N,2,H,W] = tanh(%c)
          return %d
        }""",
        sizes={"N": 1, "H": 8, "W": 3},
    )
    assert [n.name for n in after.nodes] == ["a", "b", "d"]


def test_a_number_is_written_into_the_expression_only_beside_a_whole_operand() -> None:
    """Else the rank of the result would be lost."""
    check_rewrite(
        fuse_elementwise,
        """
        graph g(%x: f32[4]) {
          %two: f32[1,1] = const(((2.0,),))
          %a: f32[1,4] = add(%x, %two)
          %b: f32[1,4] = mul(%a, %two)
          return %b
        }""",
        """
        graph g(%x: f32[4]) {
        %b: f32[1,4] = fused(%x, %two, expr='((x0 + x1) * 2.0)')
        return %b
        }""",
    )


def chain(length: int) -> Graph:
    net = Builder("chain")
    x = y = net.input("x", f32("N", 2))
    for i in range(length):
        y = net.apply(Tanh() if i % 2 else Add(), *([y] if i % 2 else [y, x]))
    return net.build(y=y)


def primitives(graph: Graph) -> list[int]:
    return [scalar.size(n.op.expression(tuple(v.type.dtype for v in n.inputs))) for n in graph.nodes]  # type: ignore[attr-defined]


def test_expressions_have_a_limit() -> None:
    after = check_rewrite(fuse_elementwise, chain(100), sizes={"N": 2})
    assert primitives(after) == [4, MAX_PRIMITIVES, MAX_PRIMITIVES, MAX_PRIMITIVES]


@pytest.mark.parametrize("op", [LeakyRelu(), Mul()])
def test_operands_that_are_read_twice_do_not_explode(op: LeakyRelu | Mul) -> None:
    """A chain of n leaky ReLUs has 3**n leaves as one expression."""
    net = Builder("chain")
    x = y = net.input("x", f32("N", 2))
    for _ in range(40):
        y = net.apply(op, *[y] * op.arity)
    after = check_rewrite(fuse_elementwise, net.build(y=y), sizes={"N": 2})
    assert max(primitives(after)) <= MAX_PRIMITIVES
    assert len(after.nodes) < 40
    assert x.type == after.outputs[0].type


@given(random_graphs())
def test_random_graphs_compute_the_same(graph: Graph) -> None:
    check_rewrite(fuse_epilogues, graph)
    check_rewrite(fuse_elementwise, graph)
    check_rewrite(lambda g: fuse_elementwise(fuse_epilogues(g)), graph)
