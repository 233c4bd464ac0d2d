"""The networks, as plain functions that return a Graph; `NETWORKS` lists them by name."""

from collections.abc import Callable

from graphc.ir import Graph
from graphc.models.alexnet import alexnet
from graphc.models.convnet10 import convnet10, convnet10_average
from graphc.models.lenet import digits, lenet5
from graphc.models.perceptron import mlp, xor
from graphc.models.vgg import vgg16, vgg19

NETWORKS: dict[str, Callable[..., Graph]] = {
    f.__name__: f for f in (xor, mlp, lenet5, digits, convnet10, convnet10_average, alexnet, vgg16, vgg19)
}

__all__ = [
    "NETWORKS", "alexnet", "convnet10", "convnet10_average", "digits", "lenet5", "mlp", "vgg16", "vgg19", "xor",
]  # fmt: skip

assert __name__ == "graphc.models", "import graphc.models, not models"
