"""Verifying: right networks pass, and a planted error is found where it was planted."""

import numpy as np
import pytest

import graphc.verify
from graphc import driver, nn, ops
from graphc.errors import InputError, UnsupportedError
from graphc.ir import Array, Builder, Graph, f32
from graphc.models import lenet5
from graphc.passes import optimize
from graphc.runtime import onnxruntime
from graphc.verify import Comparison, relative_difference, verify


def small() -> Graph:
    net = Builder("small")
    x = net.input("image", f32("N", 2, "H", "W"))
    y = nn.tanh(nn.conv2d(x, 3, 3, name="a"))
    return net.build(y=nn.relu(nn.conv2d(y, 3, 3, name="b")))


SIZES = {"N": 2, "H": 9, "W": 8}


def test_right_networks_pass() -> None:
    for graph, sizes in ((small(), SIZES), (lenet5(), {"N": 1})):
        native, onnxruntime = verify(graph, sizes, threads=2)
        assert (native.executor, onnxruntime.executor) == ("native", "onnxruntime")
        for comparison in (native, onnxruntime):
            assert 0 < comparison.difference < 1e-6  # float32 differs from float64, and by no more than its rounding
            assert comparison.first_wrong is comparison.skipped is None


def test_seeds_and_given_inputs() -> None:
    differences = {seed: verify(small(), SIZES, seed)[0].difference for seed in (0, 1)}
    assert differences[0] != differences[1]
    zeros = np.zeros((1, 2, 7, 7), np.float32)
    assert verify(small(), {}, inputs=[zeros])[0].first_wrong is None


def test_sizes_that_the_network_refuses() -> None:
    with pytest.raises(InputError, match="image is too small"):
        verify(small(), {"N": 1, "H": 4, "W": 9})


def test_an_error_in_an_op_is_found_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference of tanh is made wrong, so everything else differs from there on."""
    right = ops.Tanh.eval
    monkeypatch.setattr(ops.Tanh, "eval", lambda self, *arrays: right(self, *arrays) * 1.01)
    for comparison in verify(small(), SIZES):
        assert comparison.first_wrong == "tanh 'tanh_1'"
        assert comparison.difference > 1e-3


def test_the_tolerance_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ops.Tanh.eval
    monkeypatch.setattr(ops.Tanh, "eval", lambda self, *arrays: right(self, *arrays) * 1.01)
    assert [c.first_wrong for c in verify(small(), SIZES, tolerance=0.5)] == [None, None]


def shift(graph: Graph) -> Graph:
    """A wrong pass: it drops every tanh."""
    return graph.rewrite(lambda net, node, inputs: inputs if isinstance(node.op, ops.Tanh) else None)


def test_an_error_in_a_pass_names_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = graphc.verify.PIPELINE
    pipeline = (first, shift, *others)
    monkeypatch.setattr(graphc.verify, "PIPELINE", pipeline)
    monkeypatch.setattr(driver, "optimize", lambda graph: optimize(graph, pipeline))
    native, onnxruntime = verify(small(), SIZES)
    assert native.first_wrong == "pass shift"
    assert onnxruntime.first_wrong is None


def test_an_error_in_optimised_code_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fused code that is wrong, where every layer alone is right."""
    right = driver.compile

    def compile(graph: Graph, threads: int | None, cpu: str, optimized: bool = True) -> object:
        net = right(graph, threads, cpu, optimized)
        return net if not optimized else lambda *inputs: net(*inputs) + 1

    monkeypatch.setattr(graphc.verify, "compile", compile)
    native, _ = verify(small(), SIZES)
    assert native.first_wrong == "the network as a whole, once optimised,"


def test_what_onnx_cannot_express_is_skipped() -> None:
    net = Builder("net")
    x = net.input("image", f32("N", 2, "H", "W"))
    native, onnxruntime = verify(net.build(image=nn.relu(x)), SIZES)
    assert native.first_wrong is None
    assert "output 'image' has the name of an input" in (onnxruntime.skipped or "")


def test_without_onnxruntime_it_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "find_spec", lambda name: None)
    assert verify(small(), SIZES)[1] == Comparison(
        "onnxruntime", skipped="ONNX Runtime is not installed (pip install graphc[onnxruntime])"
    )


def test_a_provider_that_is_asked_for_is_not_skipped() -> None:
    with pytest.raises(UnsupportedError, match="this ONNX Runtime has no TensorrtExecutionProvider"):
        verify(small(), SIZES, provider="tensorrt")


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1.0, 2.0], [1.0, 4.0], 0.5),
        ([np.nan, np.inf, -np.inf], [np.nan, np.inf, -np.inf], 0),
        ([np.nan, 1], [1, 1], np.inf),
        ([np.inf, 1], [-np.inf, 1], np.inf),
        ([1.0], [1.0, 1.0], np.inf),
        ([3, 5], [3, 4], 0.25),
        ([True], [True], 0),
    ],
)
def test_relative_difference(a: list[float], b: list[float], expected: float) -> None:
    found: Array = np.array(a)
    assert relative_difference(found, np.array(b)) == expected
