"""The networks: published parameter counts, names as in torchvision, shapes, and what the small ones compute."""

from itertools import product

import numpy as np
import pytest

from graphc.driver import compile
from graphc.errors import InputError
from graphc.ir import Graph, Param
from graphc.models import NETWORKS, convnet10, convnet10_average, digits, lenet5, mlp, vgg16, vgg19, xor
from graphc.models.pages import digit_windows
from graphc.reference import run_reference


def count_parameters(graph: Graph) -> dict[str, int]:
    """The trainable elements of each parameter, by name; nothing is initialised."""
    return {name: int(np.prod(p.value.type.static_shape())) for name, p in graph.params.items() if p.trainable}


@pytest.fixture(autouse=True)
def _no_large_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting must not draw half a gigabyte of random weights."""
    make = Param.array.fget
    assert make

    def checked(self: Param) -> object:
        assert np.prod(self.value.type.static_shape()) < 1e6, f"{self.value} was initialised"
        return make(self)

    monkeypatch.setattr(Param, "array", property(checked))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("xor", 9),  # 2*2+2 and 2+1
        ("mlp", 266_610),  # LeCun et al. 1998, figure 9: 784-300-100-10
        ("lenet5", 61_706),
        ("convnet10", 6_440),
        ("convnet10_average", 4_940),
        ("alexnet", 61_100_840),
        ("vgg16", 138_357_544),
        ("vgg19", 143_667_240),
    ],
)
def test_parameter_counts(name: str, count: int) -> None:
    assert sum(count_parameters(NETWORKS[name]()).values()) == count


def test_lenet5_layers() -> None:
    assert count_parameters(lenet5()) == {
        "conv1.weight": 150, "conv1.bias": 6,
        "conv3.weight": 2400, "conv3.bias": 16,
        "conv5.weight": 48000, "conv5.bias": 120,
        "fc6.weight": 10080, "fc6.bias": 84,
        "output.weight": 840, "output.bias": 10,
    }  # fmt: skip


@pytest.mark.parametrize(("ending", "last"), [("fc", 1610), ("average", 110)])
def test_convnet10_layers(ending: str, last: int) -> None:
    counts = count_parameters(convnet10(ending))
    layers = [
        counts[f"{layer}.weight"] + counts[f"{layer}.bias"] for layer in (*(f"conv{i}" for i in range(1, 7)), "fc")
    ]
    assert layers == [280, 910, 910, 910, 910, 910, last]


def test_convnet10_endings() -> None:
    assert [n.op.name for n in convnet10("average").nodes] == [n.op.name for n in convnet10_average().nodes]
    with pytest.raises(InputError, match=r"expected ending 'fc' or 'average', got 'max'"):
        convnet10("max")


@pytest.mark.parametrize(
    ("graph", "features", "classifier"),
    [
        (NETWORKS["alexnet"](), (0, 3, 6, 8, 10), (1, 4, 6)),
        (vgg16(), (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), (0, 3, 6)),
        (vgg19(), (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34), (0, 3, 6)),
    ],
    ids=lambda x: x.name if isinstance(x, Graph) else "",
)
def test_names_are_those_of_torchvision(graph: Graph, features: tuple[int, ...], classifier: tuple[int, ...]) -> None:
    layers = [*(f"features.{i}" for i in features), *(f"classifier.{i}" for i in classifier)]
    assert list(graph.params) == [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_reads_a_batch(name: str) -> None:
    graph = NETWORKS[name]()
    assert graph.name == name or (graph.name, name) == ("convnet10", "convnet10_average")
    (x,), (y,) = graph.inputs, graph.outputs
    assert graph.symbols == ("N",)
    assert [str(v.type.shape[0]) for v in (x, y)] == ["N", "N"]


@pytest.mark.parametrize("name", ["mlp", "lenet5", "convnet10"])
def test_seeds(name: str) -> None:
    """One seed gives one network, and another seed another."""
    a, b, c = (NETWORKS[name](seed=seed) for seed in (1, 1, 2))
    first = next(iter(a.params))
    np.testing.assert_array_equal(a.params[first].array, b.params[first].array)
    assert (a.params[first].array != c.params[first].array).any()


def test_class_counts_and_sizes_are_free() -> None:
    assert str(vgg16(10).outputs[0].type) == "f32[N,10]"
    assert str(lenet5(26).outputs[0].type) == "f32[N,26]"
    assert [str(v.type) for v in (mlp([4, 3, 2]).inputs[0], mlp([4, 3, 2]).outputs[0])] == ["f32[N,4]", "f32[N,2]"]


def test_xor_is_exclusive_or() -> None:
    bits = np.array(list(product([0, 1], repeat=2)), np.float32)
    expected = np.logical_xor(*bits.T).astype(np.float32)[:, None]
    graph = xor()
    np.testing.assert_array_equal(run_reference(graph, [bits])[0], expected)
    np.testing.assert_array_equal(compile(graph, threads=1)(bits), expected)


def test_digits_are_read() -> None:
    """The 364 scans that training has not seen; its log, in the weights' file, counts 362 right."""
    windows, labels = digit_windows("test")
    scores = compile(digits(), threads=2)(windows)
    assert np.sum(scores.argmax(axis=1) == labels) == 362
