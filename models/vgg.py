"""VGG: stacks of 3x3 convolutions between poolings."""

from collections.abc import Sequence

from graphc import nn
from graphc.ir import Builder, Graph, f32

# output channels of the convolutions of each of the five stages (configurations D and E of the paper)
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
VGG19 = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)


def vgg(name: str, stages: Sequence[Sequence[int]], num_classes: int = 1000, seed: int = 0) -> Graph:
    """A VGG network (Simonyan & Zisserman 2014, "Very deep convolutional networks for large-scale image recognition").

    [N,3,224,224] -> [N,1000]; parameters are named as in torchvision.
    """
    net = Builder(name, seed)
    x = net.input("image", f32("N", 3, 224, 224))
    index = 0  # torchvision numbers convolutions, activations and poolings alike
    for stage in stages:
        for channels in stage:
            x = nn.relu(nn.conv2d(x, channels, 3, padding=1, name=f"features.{index}"))
            index += 2
        x = nn.max_pool(x, 2)
        index += 1
    x = nn.relu(nn.linear(nn.flatten(x), 4096, name="classifier.0"))
    x = nn.relu(nn.linear(nn.dropout(x, 0.5), 4096, name="classifier.3"))
    return net.build(logits=nn.linear(nn.dropout(x, 0.5), num_classes, name="classifier.6"))


def vgg16(num_classes: int = 1000, seed: int = 0) -> Graph:
    """VGG-16: 13 convolutions and 3 linear layers, 138,357,544 parameters."""
    return vgg("vgg16", VGG16, num_classes, seed)


def vgg19(num_classes: int = 1000, seed: int = 0) -> Graph:
    """VGG-19: 16 convolutions and 3 linear layers, 143,667,240 parameters."""
    return vgg("vgg19", VGG19, num_classes, seed)
