"""The networks, as plain functions that return a Graph; `NETWORKS` lists them by name."""

from collections.abc import Callable

from graphc.ir import Graph
from graphc.models.alexnet import alexnet, alexnet_lrn
from graphc.models.convnet10 import convnet10, convnet10_average
from graphc.models.densenet import densenet121, densenet161, densenet169, densenet201
from graphc.models.fcn import fcn8s, fcn16s, fcn32s
from graphc.models.inception import googlenet, inception_v3
from graphc.models.lenet import digits, lenet5
from graphc.models.mobilenet import mobilenet_v2
from graphc.models.perceptron import mlp, xor
from graphc.models.resnet import resnet18, resnet34, resnet50, resnet101, resnet152
from graphc.models.segnet import segnet
from graphc.models.shufflenet import shufflenet_v2_x0_5, shufflenet_v2_x1_0
from graphc.models.squeezenet import squeezenet1_0, squeezenet1_1
from graphc.models.unet import digit_masks, unet
from graphc.models.vgg import vgg11, vgg11_bn, vgg13, vgg13_bn, vgg16, vgg16_bn, vgg19, vgg19_bn
from graphc.models.zfnet import zfnet

NETWORKS: dict[str, Callable[..., Graph]] = {
    f.__name__: f
    for f in (
        xor, mlp, lenet5, digits, convnet10, convnet10_average,
        alexnet, alexnet_lrn, zfnet, vgg11, vgg13, vgg16, vgg19, vgg11_bn, vgg13_bn, vgg16_bn, vgg19_bn,
        googlenet, inception_v3, resnet18, resnet34, resnet50, resnet101, resnet152,
        densenet121, densenet161, densenet169, densenet201,
        squeezenet1_0, squeezenet1_1, shufflenet_v2_x0_5, shufflenet_v2_x1_0, mobilenet_v2,
        unet, segnet, fcn32s, fcn16s, fcn8s, digit_masks,
    )
}  # fmt: skip

__all__ = [
    "NETWORKS", "alexnet", "alexnet_lrn", "convnet10", "convnet10_average", "densenet121", "densenet161", "densenet169",
    "densenet201", "digit_masks", "digits", "fcn8s", "fcn16s", "fcn32s", "googlenet", "inception_v3", "lenet5", "mlp",
    "mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "segnet", "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0", "squeezenet1_0", "squeezenet1_1", "unet", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16",
    "vgg16_bn", "vgg19", "vgg19_bn", "xor", "zfnet",
]  # fmt: skip

assert __name__ == "graphc.models", "import graphc.models, not models"
