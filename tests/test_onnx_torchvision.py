"""torchvision's networks as PyTorch exports them, with open sizes: imported, compiled, and compared with PyTorch.

PyTorch is not among what the tests install; with it and torchvision in the environment, a few networks run. All of them
do with HYPOTHESIS_PROFILE=deep, for half an hour: the newer exporter takes 5 to 40 s for a network.
"""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from torchvision_networks import export, import_torchvision, set_statistics, torch

import graphc
from graphc.ir import Graph
from graphc.verify import relative_difference

TOLERANCE = 1e-4  # of the largest output
# A classifier with linear layers on the map pools it to a fixed size first. Where the map's size is open, that is a
# pool whose windows differ for each image, which neither exporter has as a pool: these have a fixed size.
VGG = tuple(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn"))
FIXED = dict.fromkeys(("alexnet", *VGG), 224)
SIZES = {"inception_v3": ((96, 96), (107, 128))}  # pixels, 75 at least; elsewhere ((64, 64), (80, 97))
OPTIONS = {"googlenet": {"init_weights": False, "aux_logits": False},
           "inception_v3": {"init_weights": False, "aux_logits": False}}  # fmt: skip
CLASSIFIERS = (
    "alexnet", *VGG, "googlenet", "inception_v3", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "densenet121", "densenet161", "densenet169", "densenet201", "squeezenet1_0", "squeezenet1_1",
    "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large",
    "efficientnet_b0", "mnasnet1_0", "regnet_y_400mf", "regnet_x_400mf", "convnext_tiny",
)  # fmt: skip
SEGMENTATION = ("fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")
QUICK = ("alexnet", "resnet18", "densenet121", "squeezenet1_1", "shufflenet_v2_x1_0", "mobilenet_v2", "fcn_resnet50")
QUICK_NEWER = ("shufflenet_v2_x1_0", "resnet18")
NEWER = (*(name for name in CLASSIFIERS if name not in (*VGG[1:], "convnext_tiny")), *SEGMENTATION)


def choose(all_names: tuple[str, ...], quick: tuple[str, ...]) -> list[str]:
    return [name for name in all_names if name in quick or os.environ.get("HYPOTHESIS_PROFILE") == "deep"]


@pytest.mark.parametrize(
    ("name", "dynamo"),
    [(name, False) for name in choose((*CLASSIFIERS, *SEGMENTATION), QUICK)]
    + [(name, True) for name in choose(NEWER, QUICK_NEWER)],
)
def test_exported_networks_agree(name: str, dynamo: bool, tmp_path: Path) -> None:
    first, second = SIZES.get(name, ((64, 64), (80, 97)))
    if name in FIXED:
        first = second = FIXED[name], FIXED[name]
    model, images = make_model(name, first)
    path = tmp_path / f"{name}.onnx"
    export(model, images, str(path), dynamo, open_sizes=name not in FIXED)
    graph = graphc.load(path)
    check_clean(graph, name)
    run = graphc.compile(graph)
    for batch, size in ((2, first), (1, second), (3, second)):
        x = torch.randn(batch, 3, *size)
        with torch.no_grad():
            expected = model.double()(x.double())
        expected = expected["out"] if isinstance(expected, dict) else expected
        assert relative_difference(run(x.numpy()), expected.numpy()) < TOLERANCE


def make_model(name: str, size: tuple[int, int]) -> tuple[Any, Any]:
    """The network with seeded weights, and two images of this size."""
    torch.manual_seed(0)
    models = import_torchvision().models
    if name in SEGMENTATION:
        model = getattr(models.segmentation, name)(weights=None, weights_backbone=None)
    else:
        model = getattr(models, name)(**OPTIONS.get(name, {}))
    images = torch.randn(2, 3, *size)
    return set_statistics(model, images), images


def check_clean(graph: Graph, name: str) -> None:
    """Sizes are symbols of the types, and no node computes one."""
    letters = ["N", 3, "H", "W"] if name not in FIXED else ["N", 3, FIXED[name], FIXED[name]]
    assert list(map(str, graph.inputs[0].type.shape)) == list(map(str, letters))
    assert all(v.type.dtype.is_float for node in graph.nodes for v in node.outputs)
    if name == "shufflenet_v2_x1_0":  # the sizes between its 16 shuffles are expressions
        found = Counter(node.op.name for node in graph.nodes)
        assert found["reshape"] == 2 * found["transpose"] == 32
        first = next(node for node in graph.nodes if node.op.name == "reshape")
        assert str(first.outputs[0].type) == "f32[N,2,58,(H+7)//8,(W+7)//8]"
