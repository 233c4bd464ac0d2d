"""The networks: published sizes, shapes, and what the small ones compute."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from graphc.driver import compile
from graphc.errors import InputError
from graphc.ir import Graph, Param
from graphc.models import (
    NETWORKS,
    convnet10,
    convnet10_average,
    digit_masks,
    digits,
    googlenet,
    inception_v3,
    lenet5,
    mlp,
    resnet18,
    vgg16,
    xor,
)  # fmt: skip
from graphc.models.pages import BACKGROUND, compose_page, digit_windows
from graphc.reference import run_reference
from graphc.state import read_metadata
from graphc.summary import summarize

SEGMENTATION = ("unet", "segnet", "fcn32s", "fcn16s", "fcn8s", "digit_masks")


def count_parameters(graph: Graph) -> dict[str, int]:
    """The trainable elements of each parameter, by name; nothing is initialised."""
    return {name: int(np.prod(p.value.type.static_shape())) for name, p in graph.params.items() if p.trainable}


@pytest.fixture
def no_large_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting must not draw half a gigabyte of random weights."""
    make = Param.array.fget
    assert make

    def checked(self: Param) -> object:
        assert np.prod(self.value.type.static_shape()) < 1e6, f"{self.value} was initialised"
        return make(self)

    monkeypatch.setattr(Param, "array", property(checked))


# Trainable parameters, and 10^6 multiply-adds for one image (segmentation: of 224x224). For the networks that
# torchvision has, both are what it publishes (`num_params`, `_ops`); the others by the sums of their layers, beside
# which stands what their papers say.
SIZES = {
    "xor": (9, 0),  # 2*2+2 and 2+1
    "mlp": (266_610, 0),  # LeCun et al. 1998, figure 9: 784-300-100-10
    "lenet5": (61_706, 0),
    "convnet10": (6_440, 2),
    "convnet10_average": (4_940, 2),
    "alexnet": (61_100_840, 714),
    "alexnet_lrn": (60_965_224, 724),  # "60 million parameters"
    "zfnet": (62_357_608, 1_168),
    "vgg11": (132_863_336, 7_609),
    "vgg13": (133_047_848, 11_308),
    "vgg16": (138_357_544, 15_470),
    "vgg19": (143_667_240, 19_632),
    "vgg11_bn": (132_868_840, 7_609),
    "vgg13_bn": (133_053_736, 11_308),
    "vgg16_bn": (138_365_992, 15_470),
    "vgg19_bn": (143_678_248, 19_632),
    "googlenet": (6_624_904, 1_498),
    "inception_v3": (23_834_568, 5_713),
    "resnet18": (11_689_512, 1_814),
    "resnet34": (21_797_672, 3_664),
    "resnet50": (25_557_032, 4_089),
    "resnet101": (44_549_160, 7_801),
    "resnet152": (60_192_808, 11_514),
    "densenet121": (7_978_856, 2_834),
    "densenet161": (28_681_000, 7_728),
    "densenet169": (14_149_480, 3_360),
    "densenet201": (20_013_928, 4_291),
    "squeezenet1_0": (1_248_424, 819),
    "squeezenet1_1": (1_235_496, 349),
    "shufflenet_v2_x0_5": (1_366_792, 40),
    "shufflenet_v2_x1_0": (2_278_604, 145),
    "mobilenet_v2": (3_504_872, 301),
    "unet": (7_760_130, 9_244),
    "segnet": (29_449_355, 30_924),  # "29.45" million
    "fcn32s": (134_346_581, 21_212),  # "134M" (table 1)
    "fcn16s": (134_357_690, 21_215),
    "fcn8s": (134_363_423, 21_219),
}
TRAINED = ("digits", "digit_masks")  # their weights are part of the package, and need no table


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in TRAINED])
@pytest.mark.usefixtures("no_large_weights")
def test_published_sizes(name: str) -> None:
    summary = summarize(NETWORKS[name]())
    parameters, millions = SIZES[name]
    assert summary.parameters == parameters
    assert summary.multiply_adds / 1e6 == pytest.approx(millions, abs=1)


@pytest.mark.parametrize(("make", "parameters"), [(googlenet, 13_004_888), (inception_v3, 27_161_264)])
@pytest.mark.usefixtures("no_large_weights")
def test_heads_for_training(make: Callable[..., Graph], parameters: int) -> None:
    graph = make(10, aux=True)
    assert [str(v.type) for v in graph.outputs] == ["f32[N,10]"] * len(graph.outputs)
    assert graph.output_names in (("logits", "aux1", "aux2"), ("logits", "aux"))
    assert sum(count_parameters(make(aux=True)).values()) == parameters


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


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_reads_a_batch(name: str) -> None:
    graph = NETWORKS[name]()
    assert graph.name == name or (graph.name, name) == ("convnet10", "convnet10_average")
    (x,), (y,) = graph.inputs, graph.outputs
    assert graph.symbols == (("N", "H", "W") if name in SEGMENTATION else ("N",))
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
    assert str(resnet18(10, size=64).inputs[0].type) == "f32[N,3,64,64]"
    assert str(lenet5(26).outputs[0].type) == "f32[N,26]"
    assert [str(v.type) for v in (mlp([4, 3, 2]).inputs[0], mlp([4, 3, 2]).outputs[0])] == ["f32[N,4]", "f32[N,2]"]


def test_weights_trained_by_pytorch_may_hold_its_counters() -> None:
    arrays = {name: p.array for name, p in resnet18(10, size=32).params.items()}
    graph = resnet18(10, size=32, seed=1).with_params({**arrays, "bn1.num_batches_tracked": np.array(7)})
    np.testing.assert_array_equal(graph.params["conv1.weight"].array, arrays["conv1.weight"])
    with pytest.raises(InputError, match=r"^parameters: unexpected bn1\.batches$"):
        resnet18(10, size=32).with_params({**arrays, "bn1.batches": np.array(7)})


def test_xor_is_exclusive_or() -> None:
    bits = np.array(list(product([0, 1], repeat=2)), np.float32)
    expected = np.logical_xor(*bits.T).astype(np.float32)[:, None]
    graph = xor()
    np.testing.assert_array_equal(run_reference(graph, [bits])[0], expected)
    np.testing.assert_array_equal(compile(graph, threads=1)(bits), expected)


def test_digits_are_read() -> None:
    """The 364 scans that training has not seen: at least 98 % of them."""
    windows, labels = digit_windows("test")
    scores = compile(digits(), threads=2)(windows)
    assert np.mean(scores.argmax(axis=1) == labels) >= 0.98
    assert digits().meta["training"].startswith("graphc train digits --data pages --epochs ")


@pytest.mark.parametrize("size", [(96, 160), (200, 320)])
def test_digits_are_segmented(size: tuple[int, int]) -> None:
    """On pages of sizes that training has not seen (it saw 64x64), with digits that it has not seen."""
    page = compose_page(*size, seed=0)
    classes = compile(digit_masks(), threads=2)(page.image[None, None])[0].argmax(axis=0)
    ink, found = page.mask != BACKGROUND, classes != BACKGROUND
    assert (ink & found).sum() > 0.95 * (ink | found).sum()
    assert (classes == page.mask)[ink].mean() > 0.8


def test_metadata_has_one_order(tmp_path: Path) -> None:
    """The reader's own order is random, and would make an artefact differ from one process to the next."""
    path, meta = tmp_path / "x.safetensors", {f"key{i}": "value" for i in range(9)}
    save_file({"x": np.zeros(1, np.float32)}, path, metadata=meta)
    assert list(read_metadata(path)) == list(meta)
