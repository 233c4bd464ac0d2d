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
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return pytest.importorskip("torchvision", reason="compares with torchvision (pip install torchvision)")


def set_statistics(model: Any, images: Any) -> Any:
    """The model in evaluation, with drawn factors and the images' own statistics in its batch norms."""
    model.eval()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.normal_(layer.bias, 0, 0.5)
            layer.momentum = None  # the next batch's statistics alone
            layer.train()
    with torch.no_grad():
        model(images)
    return model.eval()


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
