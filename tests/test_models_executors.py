"""The networks computed: reference, native code and ONNX Runtime agree, and any size that they promise works.

By default each kind of block in a small network; every network of models/ with HYPOTHESIS_PROFILE=deep.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from onnx import defs, shape_inference

from graphc import fully_convolutional, models, ops
from graphc.driver import compile
from graphc.ir import Array, Builder, Graph, Param, Value, dims, f32
from graphc.models import densenet, fcn, resnet
from graphc.onnx import to_model
from graphc.onnx.exporting import OLDEST_OPSET
from graphc.reference import random_inputs, run_reference
from graphc.runtime.onnxruntime import OnnxRuntimeNetwork
from graphc.verify import relative_difference

CLASSES = 10
DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
# Each kind of block at the smallest image that gets through. A deeper or wider variant is the same function with other
# numbers, which the table of published sizes holds.
SMALL: dict[str, Callable[[], Graph]] = {
    "alexnet": lambda: models.alexnet(CLASSES, 63),
    "alexnet_lrn": lambda: models.alexnet_lrn(CLASSES, 63),
    "zfnet": lambda: models.zfnet(CLASSES, 64),
    "vgg11_bn": lambda: models.vgg11_bn(CLASSES, 32),
    "googlenet": lambda: models.googlenet(CLASSES, 80, aux=True),
    "inception_v3": lambda: models.inception_v3(CLASSES, 75),
    "resnet of basic blocks": lambda: resnet.resnet("resnet", (1, 2, 1, 1), False, CLASSES, 48, 0),
    "resnet of bottlenecks": lambda: resnet.resnet("resnet", (1, 2, 1, 1), True, CLASSES, 48, 0),
    "densenet": lambda: densenet.densenet("densenet", 8, 16, (2, 2, 2, 2), CLASSES, 48, 0),
    "squeezenet1_1": lambda: models.squeezenet1_1(CLASSES, 48),
    "shufflenet_v2_x0_5": lambda: models.shufflenet_v2_x0_5(CLASSES, 48),
    "mobilenet_v2": lambda: models.mobilenet_v2(CLASSES, 48),
    "unet": lambda: models.unet(channels=4),
    "segnet": lambda: models.segnet(),
    "fcn8s": lambda: fcn.fcn("fcn8s", 8, CLASSES, 0, features=64),
}
IMAGE = {
    "unet": (32, 48),
    "digit_masks": (32, 48),
    "segnet": (37, 50),
    **dict.fromkeys(("fcn32s", "fcn16s", "fcn8s"), (33, 50)),
}
LEAST = {"alexnet": 63, "alexnet_lrn": 63, "zfnet": 64, "googlenet": 80, "inception_v3": 75}  # pixels


def make_network(name: str) -> Graph:
    """The network of models/ for the smallest image that gets through."""
    make = models.NETWORKS[name]
    if name in ("mlp", "lenet5", "digits", "convnet10", "convnet10_average", "unet", "segnet", "digit_masks"):
        return make()
    if name.startswith("fcn"):
        return fcn.fcn(name, int(name[3:-1]), CLASSES, 0, features=64)
    return make(CLASSES, LEAST.get(name, 32 if name.startswith("vgg") else 48))


# xor answers with 0 or 1: its truth table is another test
CASES = SMALL | (
    {f"{name} whole": partial(make_network, name) for name in models.NETWORKS if name != "xor"} if DEEP else {}
)


def standardize(graph: Graph, images: Array) -> Graph:
    """`graph` with weights whose results are about standard normal for these images, as in a trained network.

    With the initial ones each layer would give a fraction of what it gets, and the last one's bias would be all that
    there is to compare. Weights are drawn with variance 2/fan-in (He et al. 2015), running statistics are those of the
    images, and scales and shifts of batch norms differ from 1 and 0. Variances are of one order: of two images that
    have shrunk to a pixel, a channel's own may be tiny, and dividing by it would magnify rounding errors. What a
    residual block adds is small beside what it passes on: otherwise errors would grow from block to block.
    """
    rng = np.random.default_rng(1)
    env: dict[Value, Array] = {graph.inputs[0]: images}
    summands = {v for node in graph.nodes if isinstance(node.op, ops.Add) for v in node.inputs}
    arrays = {p.value: p.array for p in graph.params.values()}
    sizes = dict(zip(graph.symbols, (images.shape[0], *images.shape[2:]), strict=False))
    for node in graph.nodes:
        if isinstance(node.op, ops.Conv2d | ops.Linear):
            shape = arrays[node.inputs[1]].shape
            spread = np.sqrt(2 / np.prod(shape[1:]))
            arrays[node.inputs[1]] = (rng.standard_normal(shape, np.float32) * spread).astype(np.float32)
        if isinstance(node.op, ops.BatchNorm):
            x, scale, shift, mean, variance = node.inputs
            arrays[mean] = env[x].mean((0, 2, 3))
            arrays[variance] = (env[x].var() * rng.uniform(0.5, 1.5, len(arrays[mean]))).astype(np.float32)
            added = node.outputs[0] in summands and "downsample" not in node.name
            factors = rng.uniform(*((0.2, 0.4) if added else (0.5, 1.5)), len(arrays[scale]))
            arrays[scale] = factors.astype(np.float32)
            arrays[shift] = (rng.standard_normal(len(arrays[shift])) / 2).astype(np.float32)
        results = node.op.bind(sizes).eval(*(arrays[v] if v in arrays else env[v] for v in node.inputs))
        env |= zip(node.outputs, results if isinstance(results, tuple) else (results,), strict=True)
    return replace(graph, params={n: Param(p.value, arrays[p.value], p.trainable) for n, p in graph.params.items()})


@pytest.mark.parametrize("name", CASES)
def test_reference_native_and_onnxruntime_agree(name: str) -> None:
    """For three batch sizes, and three image sizes where the network takes any."""
    graph = CASES[name]()
    height, width = IMAGE.get(name.removesuffix(" whole"), (0, 0))
    images = random_inputs(graph, {"N": 2, "H": height, "W": width})
    graph = standardize(graph, images[0])
    expected = run_reference(graph, images)
    native, onnxruntime = compile(graph, threads=1, precise=True), OnnxRuntimeNetwork(graph, threads=1)
    fast = compile(graph, threads=1)  # each convolution within 5e-6; the deepest network makes 1.6e-4 of that
    for found, most in ((native(*images), 1e-4), (onnxruntime(*images), 1e-4), (fast(*images), 5e-4)):
        for a, b in zip(listed(found), expected, strict=True):
            assert b.std() > 0.05  # there is something to compare
            assert relative_difference(a, b) < most
    for batch, taller in ((1, 16), (3, 32)):  # native code has been compared: it stands for the slow reference
        images = random_inputs(graph, {"N": batch, "H": height + taller, "W": width + 16})
        for a, b in zip(listed(onnxruntime(*images)), listed(native(*images)), strict=True):
            assert a.shape[0] == batch
            assert relative_difference(a, b) < 1e-4


# Half precision rounds each of a network's layers to 11 bits, 5e-4 of a number, and random weights pass errors on.
HALF_TOLERANCE = {
    "inception_v3": 0.3,  # the deepest: 94 convolutions, each followed by a normalisation
    "segnet": 0.5,  # where rounding moves a maximum, the decoder puts it into another pixel
}


@pytest.mark.parametrize("name", SMALL)
def test_half_precision_agrees(name: str) -> None:
    graph = SMALL[name]()
    height, width = IMAGE.get(name, (0, 0))
    images = random_inputs(graph, {"N": 2, "H": height, "W": width})
    graph = standardize(graph, images[0])
    full, half = (OnnxRuntimeNetwork(graph, threads=1, fp16=fp16)(*images) for fp16 in (False, True))
    for a, b in zip(listed(half), listed(full), strict=True):
        assert 0 < relative_difference(a, b) < HALF_TOLERANCE.get(name, 0.03)


def listed(result: Array | tuple[Array, ...]) -> tuple[Array, ...]:
    return result if isinstance(result, tuple) else (result,)


OPSETS = range(OLDEST_OPSET, defs.onnx_opset_version() + 1)
LARGE = {  # networks whose weights depend on the image's size, or are half a gigabyte, in a smaller form
    **{name: partial(make, size=32) for name, make in models.NETWORKS.items() if name.startswith("vgg")},
    **{name: partial(models.NETWORKS[name], size=64) for name in ("alexnet", "alexnet_lrn", "zfnet")},
    **{f"fcn{stride}s": partial(fcn.fcn, f"fcn{stride}s", stride, 21, 0, features=64) for stride in (32, 16, 8)},
}


@pytest.mark.parametrize(("number", "name"), list(enumerate(models.NETWORKS)))
def test_every_network_exports(number: int, name: str) -> None:
    """Each in another opset, through the checker (in `to_model`) and strict inference.

    The weights are zeros: to draw random ones would take minutes.
    """
    graph = LARGE.get(name, models.NETWORKS[name])()
    zeros = {
        n: Param(p.value, np.zeros(p.value.type.static_shape(), p.value.type.dtype.numpy))
        for n, p in graph.params.items()
    }
    model = to_model(replace(graph, params=zeros), OPSETS[number % len(OPSETS)])
    shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


SEGMENTATION = {
    "unet": 16,
    "segnet": 1,
    "fcn32s": 1,
    "fcn16s": 1,
    "fcn8s": 1,
    "digit_masks": 8,
}  # multiples that H and W must be
CLASSIFIERS = [name for name in models.NETWORKS if name not in ("xor", "mlp", *SEGMENTATION)]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_becomes_fully_convolutional(name: str) -> None:
    """At the size that it was made for, it gives one pixel for each class."""
    graph = models.NETWORKS[name]()
    dense = fully_convolutional(graph)
    height, width = graph.inputs[0].type.shape[2:]
    sizes = {"N": 1, "H": dims.evaluate(height, {}), "W": dims.evaluate(width, {})}
    assert [str(d) for d in dense.inputs[0].type.shape] == ["N", str(graph.inputs[0].type.shape[1]), "H", "W"]
    assert [dims.evaluate(d, sizes) for d in dense.outputs[0].type.shape] == [1, graph.outputs[0].type.shape[1], 1, 1]


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5"])
def test_dense_classifiers(name: str) -> None:
    """At the size that it was made for, the dense network gives what the classifier gives; a larger image, a map."""
    graph = models.NETWORKS[name](CLASSES, 64)
    (images,) = random_inputs(graph, {"N": 2})
    graph = standardize(graph, images)
    dense = fully_convolutional(graph)
    (scores,) = run_reference(dense, [images])
    np.testing.assert_allclose(scores[:, :, 0, 0], run_reference(graph, [images])[0], rtol=1e-4, atol=1e-4)
    large = random_inputs(dense, {"N": 1, "H": 128, "W": 96})
    assert run_reference(dense, large)[0].shape == (1, CLASSES, 3, 2)  # 2x2 of 4x3 cells


@pytest.mark.parametrize(("name", "multiple"), SEGMENTATION.items())
def test_segmentation_keeps_every_size(name: str, multiple: int) -> None:
    shape = models.NETWORKS[name]().outputs[0].type.shape
    for size in range(multiple, 130, multiple):
        sizes: Mapping[str, int] = {"N": 1, "H": size, "W": size + multiple}
        assert [dims.evaluate(d, sizes) for d in shape[2:]] == [size, size + multiple]


@pytest.mark.parametrize("scale", [2, 8, 16, 32])
def test_scores_are_upsampled_bilinearly(scale: int) -> None:
    """The means of a ramp's blocks give the ramp back, but for a border of half a block."""
    ramp = np.add.outer(np.arange(4.0 * scale), 2 * np.arange(5.0 * scale)).astype(np.float32)
    blocks = ramp.reshape(4, scale, 5, scale).mean((1, 3))
    net = Builder("net")
    x, like = net.input("x", f32(1, 2, 4, 5)), net.input("like", f32(1, 3, "H", "W"))
    graph = net.build(y=fcn.upsample_scores(x, scale, like, "up"))
    inputs = [np.stack([blocks, -blocks])[None], np.zeros((1, 3, 4 * scale - 1, 5 * scale), np.float32)]
    (y,) = run_reference(graph, inputs)
    assert y.shape == (1, 2, 4 * scale - 1, 5 * scale)
    inside = slice(scale // 2, -scale // 2)
    np.testing.assert_allclose(y[0, 0, inside, inside], ramp[:-1][inside, inside], rtol=1e-4)
    np.testing.assert_array_equal(y[0, 1], -y[0, 0])
