"""VGG: stacks of 3x3 convolutions between poolings."""

from collections.abc import Sequence

from graphc import nn
from graphc.ir import Builder, Graph, f32

# output channels of the convolutions of each of the five stages (configurations A, B, D and E of the paper)
VGG11 = ((64,), (128,), (256,) * 2, (512,) * 2, (512,) * 2)
VGG13 = ((64,) * 2, (128,) * 2, (256,) * 2, (512,) * 2, (512,) * 2)
VGG16 = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
VGG19 = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)


def vgg(name: str, stages: Sequence[Sequence[int]], batch_norm: bool, num_classes: int, size: int, seed: int) -> Graph:
    """A VGG network (Simonyan & Zisserman 2014, "Very deep convolutional networks for large-scale image recognition").

    [N,3,size,size] -> [N,num_classes]; parameters are named as in torchvision. With `batch_norm`, each convolution is
    followed by one (Ioffe & Szegedy 2015), which the paper does not have.
    """
    net = Builder(name, seed)
    x = net.input("image", f32("N", 3, size, size))
    index = 0  # torchvision numbers convolutions, normalisations, activations and poolings alike
    for stage in stages:
        for channels in stage:
            x = nn.conv2d(x, channels, 3, padding=1, name=f"features.{index}")
            if batch_norm:
                x = nn.batch_norm(x, name=f"features.{index + 1}")
            x = nn.relu(x)
            index += 2 + batch_norm
        x = nn.max_pool(x, 2)
        index += 1
    x = nn.relu(nn.linear(nn.flatten(x), 4096, name="classifier.0"))
    x = nn.relu(nn.linear(nn.dropout(x, 0.5), 4096, name="classifier.3"))
    return net.build(logits=nn.linear(nn.dropout(x, 0.5), num_classes, name="classifier.6"))


def vgg11(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """VGG-11: 8 convolutions and 3 linear layers, 132,863,336 parameters."""
    return vgg("vgg11", VGG11, False, num_classes, size, seed)


def vgg11_bn(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """VGG-11 with batch norm, 132,868,840 parameters."""
    return vgg("vgg11_bn", VGG11, True, num_classes, size, seed)


def vgg13(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """VGG-13: 10 convolutions and 3 linear layers, 133,047,848 parameters."""
    return vgg("vgg13", VGG13, False, num_classes, size, seed)


def vgg13_bn(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """VGG-13 with batch norm, 133,053,736 parameters."""
    return vgg("vgg13_bn", VGG13, True, num_classes, size, seed)


def vgg16(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """VGG-16: 13 convolutions and 3 linear layers, 138,357,544 parameters."""
    return vgg("vgg16", VGG16, False, num_classes, size, seed)


def vgg16_bn(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """VGG-16 with batch norm, 138,365,992 parameters."""
    return vgg("vgg16_bn", VGG16, True, num_classes, size, seed)


def vgg19(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """VGG-19: 16 convolutions and 3 linear layers, 143,667,240 parameters."""
    return vgg("vgg19", VGG19, False, num_classes, size, seed)


def vgg19_bn(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """VGG-19 with batch norm, 143,678,248 parameters."""
    return vgg("vgg19_bn", VGG19, True, num_classes, size, seed)
