"""Passes that remove what is not needed: identities, common subexpressions, dead code."""

import numpy as np
import pytest
from rewriting import check_rewrite, read, show

from graphc.ir import Builder, f32
from graphc.ir.text import parse_graph
from graphc.ops import OPS, Add
from graphc.passes import eliminate_common_subexpressions, eliminate_dead_code, remove_identities


def test_identities_are_removed() -> None:
    check_rewrite(
        remove_identities,
        """
        graph g(%x: f32[N,2,H,W]) {
          %a: f32[N,2,H,W] = identity(%x)
          %b: f32[N,2,H,W] = dropout(%a, p=0.3)
          %c: f32[N,2,H,W] = relu(%b)
          %d: f32[N,2,H,W] = dropout(%c)
          return y=%d, again=%a
        }""",
        """
        graph g(%x: f32[N,2,H,W]) {
        %c: f32[N,2,H,W] = relu(%x)
        return y=%c, again=%x
        }""",
    )


UNCHANGED = {
    "reshape": "%b: f32[N,4,H,W] = reshape(%a, shape=(-1, 4, H, W))",
    "transpose": "%b: f32[N,4,H,W] = transpose(%a, perm=(0, 1, 2, 3))",
    "concat": "%b: f32[N,4,H,W] = concat(%a)",
    "split": "%b: f32[N,4,H,W] = split(%a, axis=1, sizes=(4,))",
    "pad": "%b: f32[N,4,H,W] = pad(%a, padding=(0, 0, 0, 0, 0, 0, 0, 0))",
    "slice": "%b: f32[N,4,H,W] = slice(%a, axes=(1,), starts=(0,), ends=(4,), steps=(1,))",
    "nearest": "%b: f32[N,4,H,W] = upsample_nearest(%a, scale=(1, 1))",
    "bilinear": "%b: f32[N,4,H,W] = upsample_bilinear(%a, scale=(1, 1))",
    "nails": "%b: f32[N,4,H,W] = bed_of_nails(%a, scale=(1, 1))",
    "max_pool": "%b: f32[N,4,H,W] = max_pool(%a, kernel=(1, 1), stride=(1, 1))",
    "average_pool": "%b: f32[N,4,H,W] = average_pool(%a, kernel=(1, 1), stride=(1, 1))",
}


@pytest.mark.parametrize("line", UNCHANGED.values(), ids=UNCHANGED.keys())
def test_ops_that_return_their_input_are_removed(line: str) -> None:
    check_rewrite(
        remove_identities,
        f"""
        graph g(%x: f32[N,4,H,W]) {{
          %a: f32[N,4,H,W] = relu(%x)
          {line}
          %c: f32[N,4,H,W] = tanh(%b)
          return %c
        }}""",
        """
        graph g(%x: f32[N,4,H,W]) {
        %a: f32[N,4,H,W] = relu(%x)
        %c: f32[N,4,H,W] = tanh(%a)
        return %c
        }""",
    )


CHANGING = {
    "relu": "%b: f32[4,4,3,3] = relu(%a)",
    "transpose": "%b: f32[4,4,3,3] = transpose(%a, perm=(1, 0, 2, 3))",
    "flip": "%b: f32[4,4,3,3] = slice(%a, axes=(2,), starts=(-1,), ends=(-9,), steps=(-1,))",
    "pool 3x3": "%b: f32[4,4,3,3] = max_pool(%a, kernel=(3, 3), stride=(1, 1), padding=(1, 1, 1, 1))",
}


@pytest.mark.parametrize("line", CHANGING.values(), ids=CHANGING.keys())
def test_ops_that_only_keep_the_type_stay(line: str) -> None:
    graph = read(f"graph g(%a: f32[4,4,3,3]) {{\n  {line}\n  return %b\n}}")
    assert show(remove_identities(graph)) == show(graph)


def test_reductions_of_one_element_are_removed() -> None:
    check_rewrite(
        remove_identities,
        """
        graph g(%x: f32[N,2,1,1]) {
          %a: f32[N,2,1,1] = global_average_pool(%x)
          %b: f32[N,2,1,1] = global_max_pool(%a)
          %c: f32[N,2,1,1] = mean(%b, axes=(2, 3))
          %d: f32[N,2] = flatten(%c)
          %e: f32[N,2] = flatten(%d)
          return %e
        }""",
        """
        graph g(%x: f32[N,2,1,1]) {
        %d: f32[N,2] = flatten(%x)
        return e=%d
        }""",
    )


def test_common_subexpressions() -> None:
    check_rewrite(
        eliminate_common_subexpressions,
        """
        graph g(%x: f32[N,4], %y: f32[N,4]) {
          %a: f32[N,4] = clip(%x, minimum=0.0)
          %b: f32[N,4] = clip(%x, minimum=0.0)
          %c: f32[N,4] = clip(%x, minimum=1.0)
          %d: f32[N,4] = clip(%y, minimum=0.0)
          %e: f32[N,4] = sub(%a, %d)
          %f: f32[N,4] = sub(%b, %d)
          %g: f32[N,4] = sub(%d, %b)
          %h: f32[N,4] = mul(%e, %f)
          %i: f32[N,4] = mul(%c, %g)
          return %h, %i, twice=%f
        }""",
        """
        graph g(%x: f32[N,4], %y: f32[N,4]) {
        %a: f32[N,4] = clip(%x, minimum=0.0)
        %c: f32[N,4] = clip(%x, minimum=1.0)
        %d: f32[N,4] = clip(%y, minimum=0.0)
        %e: f32[N,4] = sub(%a, %d)
        %g: f32[N,4] = sub(%d, %a)
        %h: f32[N,4] = mul(%e, %e)
        %i: f32[N,4] = mul(%c, %g)
        return %h, %i, twice=%e
        }""",
    )


def test_small_equal_constants_are_one() -> None:
    after = check_rewrite(
        eliminate_common_subexpressions,
        """
        graph g(%x: f32[N,2]) {
          %three: f32[] = const(3.0)
          %drei: f32[] = const(3.0)
          %four: f32[] = const(4.0)
          %one: f32[1] = const((3.0,))
          %a: f32[N,2] = add(%x, %three)
          %b: f32[N,2] = add(%x, %drei)
          %c: f32[N,2] = add(%x, %four)
          %d: f32[N,2] = add(%x, %one)
          %e: f32[N,2] = mul(%a, %b)
          return %e, %c, %d
        }""",
    )
    assert [n.name for n in after.nodes] == ["a", "c", "d", "e"]
    assert after.nodes[3].inputs == (after.nodes[0].outputs[0],) * 2


def test_large_constants_are_not_compared() -> None:
    """Their bytes are not even made: an initialiser of a large weight does not run."""
    net = Builder("g")
    x = net.input("x", f32("N", 100))
    w = net.param("w", lambda _: pytest.fail("initialised"), f32(100))
    eliminate_common_subexpressions(net.build(net.apply(Add(), x, w)))


def test_dead_code() -> None:
    check_rewrite(
        eliminate_dead_code,
        """
        graph g(%x: f32[N,4], %unused: f32[N]) {
          %w: f32[4] = param()
          %v: f32[4] = param()
          %a: f32[N,4] = add(%x, %w)
          %b: f32[N,4] = add(%a, %v)
          %c: f32[N,4] = relu(%b)
          return %a
        }""",
        """
        graph g(%x: f32[N,4], %unused: f32[N]) {
        %a: f32[N,4] = add(%x, %w)
        return %a
        }""",
    )


def test_dead_parameters() -> None:
    graph = read("""
        graph g(%x: f32[N,4]) {
          %w: f32[4] = param()
          %v: f32[4] = param()
          %u: f32[4] = param()
          %a: f32[N,4] = add(%x, %w)
          return %a, %u
        }""")
    assert list(eliminate_dead_code(graph).params) == ["w", "u"]


def test_one_live_result_keeps_a_node() -> None:
    graph = read("""
        graph g(%x: f32[N,4,H,W]) {
          %s.0: f32[N,1,H,W], %s.1: f32[N,3,H,W] = split(%x, axis=1, sizes=(1, 3))
          return %s.1
        }""")
    assert show(eliminate_dead_code(graph)) == show(graph)


def test_the_text_of_a_cleaned_graph_is_readable_again() -> None:
    graph = read("""
        graph g(%x: f32[N,4]) {
          %w: f32[4] = param()
          %a: f32[N,4] = identity(%x) @ "first"
          %b: f32[N,4] = add(%a, %w)
          return %b
        }""")
    cleaned = eliminate_dead_code(eliminate_common_subexpressions(remove_identities(graph)))
    arrays = {name: p.array for name, p in cleaned.params.items()}
    assert str(parse_graph(str(cleaned), OPS, arrays)) == str(cleaned)
    assert np.array_equal(cleaned.params["w"].array, graph.params["w"].array)
