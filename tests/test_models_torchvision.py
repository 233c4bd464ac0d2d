"""The networks against torchvision's: the same names and shapes of parameters, and the same results from them.

PyTorch is not among what the tests install; with it and torchvision in the environment, these run.
"""

from typing import Any

import numpy as np
import pytest
from torchvision_networks import import_torchvision, set_statistics, torch

from graphc.ir import DType
from graphc.models import NETWORKS
from graphc.reference import run_reference
from graphc.verify import relative_difference

torchvision = import_torchvision()
# pixels of the smallest square that gets through; 64 elsewhere
SIZES = {"alexnet": 63, "inception_v3": 75} | {name: 32 for name in NETWORKS if name.startswith("vgg")}
HEADS = {"googlenet": {"init_weights": False}, "inception_v3": {"init_weights": False}}


@pytest.mark.parametrize("name", [name for name in NETWORKS if hasattr(torchvision.models, name)])
def test_results_are_those_of_torchvision(name: str) -> None:
    """In float64: float32 would blur a difference, by 4e-4 in the deepest networks."""
    torch.manual_seed(0)
    size = SIZES.get(name, 64)
    images = torch.randn(4, 3, size, size)
    model = make_torch_model(name, size, images)
    graph = NETWORKS[name](size=size).with_params(state_of(model))
    with torch.no_grad():
        expected = model.double()(images.double()).numpy()
    (found,) = run_reference(graph, [images.numpy()], DType.F64)
    assert expected.std() > 1e-3
    assert relative_difference(found, expected) < 1e-9


@pytest.mark.parametrize("name", HEADS)
def test_heads_have_the_names_of_torchvision(name: str) -> None:
    model = getattr(torchvision.models, name)(aux_logits=True, **HEADS[name])
    NETWORKS[name](aux=True).with_params(state_of(model))


def state_of(model: Any) -> dict[str, "np.ndarray[Any, Any]"]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def make_torch_model(name: str, size: int, images: Any) -> Any:
    """torchvision's network for images of this size, in evaluation, with the images' own statistics in its batch norms.

    A classifier with linear layers on the map gets as many inputs as the map has; torchvision would pool to a fixed
    number, which does nothing at the size that it was made for.
    """
    model = getattr(torchvision.models, name)(**({"aux_logits": False, **HEADS[name]} if name in HEADS else {}))
    if name == "alexnet" or name.startswith("vgg"):
        model.avgpool = torch.nn.Identity()
        first = next(i for i, layer in enumerate(model.classifier) if isinstance(layer, torch.nn.Linear))
        with torch.no_grad():
            model.classifier[first] = torch.nn.Linear(model.features(images).flatten(1).shape[1], 4096)
    return set_statistics(model, images)
