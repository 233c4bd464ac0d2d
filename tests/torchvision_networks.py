"""torchvision's networks as the tests compare them: seeded weights, and statistics that fit them."""

import warnings
from functools import cache
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="compares with PyTorch (pip install torch torchvision)")


@cache
def import_torchvision() -> Any:
    """torchvision; where its compiled part does not load beside this torch, the operators that it wants are declared.

    Networks use none of them. The test is skipped where torchvision is missing.
    """
    try:
        return pytest.importorskip("torchvision", reason="compares with torchvision (pip install torchvision)")
    except RuntimeError:  # operator torchvision::nms does not exist
        from torch import library

        for name in ("nms", "qnms"):
            library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return pytest.importorskip("torchvision", reason="compares with torchvision (pip install torchvision)")


def set_statistics(model: Any, images: Any) -> Any:
    """The model in evaluation, with drawn factors in its batch norms, and statistics that fit these images.

    As in a trained network, rounding errors must not grow from layer to layer. So means are the images' own, but
    variances are of one order: of two images that have shrunk to a few pixels, a channel's own may be tiny, and is
    divided by. And what a residual block adds is small beside what it passes on. (Without these two, any float32 misses
    resnet152's float64 by 1.2e-4 of the largest output, PyTorch's and ONNX Runtime's too; with them by 1e-6.)
    """
    resnet = import_torchvision().models.resnet
    last = {block.bn3 for block in model.modules() if isinstance(block, resnet.Bottleneck)}
    last |= {block.bn2 for block in model.modules() if isinstance(block, resnet.BasicBlock)}

    def take(layer: Any, inputs: tuple[Any, ...]) -> None:
        (x,) = inputs
        layer.running_mean.copy_(x.mean((0, 2, 3)))
        layer.running_var.uniform_(0.5, 1.5).mul_(x.var())
        torch.nn.init.uniform_(layer.weight, *((0.2, 0.4) if layer in last else (0.5, 1.5)))
        torch.nn.init.normal_(layer.bias, 0, 0.5)

    norms = [layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    hooks = [layer.register_forward_pre_hook(take) for layer in norms]
    model.eval()
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return model


def export(model: Any, images: Any, path: str, dynamo: bool, open_sizes: bool) -> None:
    """Write an ONNX file with an open batch, and with an open height and width; by either exporter of PyTorch."""
    axes = {0: "batch", 2: "height", 3: "width"} if open_sizes else {0: "batch"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters warn of themselves
        if dynamo:
            shapes = (dict.fromkeys(axes, torch.export.Dim.DYNAMIC),)
            torch.onnx.export(
                model, (images,), path, dynamo=True, dynamic_shapes=shapes, verbose=False, external_data=False
            )
        else:
            torch.onnx.export(
                model, (images,), path, dynamo=False, input_names=["x"], output_names=["y"], dynamic_axes={"x": axes}
            )
