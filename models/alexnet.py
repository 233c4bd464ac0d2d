"""AlexNet: in two groups, as it won ImageNet 2012, and in one tower."""

from graphc import nn
from graphc.ir import Builder, Graph, Value, f32


def alexnet(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """AlexNet in one tower (Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks").

    [N,3,size,size] -> [N,num_classes]; names and 61,100,840 parameters as in torchvision.
    """
    net = Builder("alexnet", seed)
    x = net.input("image", f32("N", 3, size, size))
    x = nn.relu(nn.conv2d(x, 64, 11, stride=4, padding=2, name="features.0"))
    x = nn.max_pool(x, 3, stride=2)
    x = nn.relu(nn.conv2d(x, 192, 5, padding=2, name="features.3"))
    x = nn.max_pool(x, 3, stride=2)
    x = nn.relu(nn.conv2d(x, 384, 3, padding=1, name="features.6"))
    x = nn.relu(nn.conv2d(x, 256, 3, padding=1, name="features.8"))
    x = nn.relu(nn.conv2d(x, 256, 3, padding=1, name="features.10"))
    x = nn.flatten(nn.max_pool(x, 3, stride=2))
    x = nn.relu(nn.linear(nn.dropout(x, 0.5), 4096, name="classifier.1"))
    x = nn.relu(nn.linear(nn.dropout(x, 0.5), 4096, name="classifier.4"))
    return net.build(logits=nn.linear(x, num_classes, name="classifier.6"))


def alexnet_lrn(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """AlexNet (Krizhevsky et al. 2012, "ImageNet classification with deep convolutional neural networks").

    [N,3,size,size] -> [N,num_classes]; 60,965,224 parameters, named as the paper counts its layers. conv2, conv4 and
    conv5 have two groups, which lay on two GPUs. A padding of 2 makes the paper's 55x55 of its 224x224.
    """
    net = Builder("alexnet_lrn", seed)
    x = net.input("image", f32("N", 3, size, size))
    x = nn.relu(nn.conv2d(x, 96, 11, stride=4, padding=2, name="conv1"))
    x = nn.max_pool(normalize_responses(x), 3, stride=2)
    x = nn.relu(nn.conv2d(x, 256, 5, padding=2, groups=2, name="conv2"))
    x = nn.max_pool(normalize_responses(x), 3, stride=2)
    x = nn.relu(nn.conv2d(x, 384, 3, padding=1, name="conv3"))
    x = nn.relu(nn.conv2d(x, 384, 3, padding=1, groups=2, name="conv4"))
    x = nn.relu(nn.conv2d(x, 256, 3, padding=1, groups=2, name="conv5"))
    x = nn.flatten(nn.max_pool(x, 3, stride=2))
    x = nn.dropout(nn.relu(nn.linear(x, 4096, name="fc6")), 0.5)
    x = nn.dropout(nn.relu(nn.linear(x, 4096, name="fc7")), 0.5)
    return net.build(logits=nn.linear(x, num_classes, name="fc8"))


def normalize_responses(x: Value) -> Value:
    """x / (2 + 1e-4 * sum of squares over 5 neighbouring channels)^0.75: section 3.3 of the paper of 2012."""
    return nn.local_response_norm(x, 5, alpha=5 * 1e-4, beta=0.75, k=2.0)
