"""What `import graphc` offers."""

import subprocess
import sys

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.errors import GraphError


def tiny(seed: int = 0) -> graphc.Graph:
    net = graphc.Builder("tiny", seed)
    x = net.input("image", graphc.f32("N", 3, "H", "W"))
    x = nn.relu(nn.conv2d(x, 4, 3, padding="same", name="conv1"))
    return net.build(scores=nn.conv2d(x, 2, 1, name="conv2"))


@pytest.mark.parametrize("name", graphc.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(graphc, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'graphc' has no attribute 'train'"):
        _ = graphc.train  # type: ignore[attr-defined]


def test_import_loads_no_compiler() -> None:
    code = "import sys, graphc; assert not {'llvmlite', 'onnx', 'networkx', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_text_reads_back() -> None:
    graph = tiny()
    again = graphc.parse(str(graph), {name: p.array for name, p in graph.params.items()})
    assert str(again) == str(graph)
    image = np.random.default_rng(0).standard_normal((1, 3, 5, 6)).astype(np.float32)
    np.testing.assert_array_equal(graphc.compile(again)(image), graphc.compile(graph)(image))
    with pytest.raises(GraphError, match=r"graph text line 2: parameter 'conv1.weight': expected data"):
        graphc.parse(str(graph))


def test_the_networkx_view() -> None:
    graph = tiny()
    view = graphc.to_networkx(graph)
    assert [str(n) for n in view if n in graph.nodes] == ["conv2d 'conv1'", "relu 'relu_1'", "conv2d 'conv2'"]
    image, (conv1, relu, conv2) = graph.inputs[0], graph.nodes
    assert list(view.edges) == [(image, conv1), (conv1, relu), (relu, conv2)]
    assert view.edges[relu, conv2]["value"] is relu.outputs[0]


def test_equal_seeds_give_equal_weights() -> None:
    weights = [tiny(seed).params["conv1.weight"].array for seed in (0, 0, 1)]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])
