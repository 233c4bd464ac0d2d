"""AlexNet."""

from graphc import nn
from graphc.ir import Builder, Graph, f32


def alexnet(num_classes: int = 1000, seed: int = 0) -> Graph:
    """AlexNet in one tower (Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks").

    [N,3,224,224] -> [N,1000]; names and 61,100,840 parameters as in torchvision.
    """
    net = Builder("alexnet", seed)
    x = net.input("image", f32("N", 3, 224, 224))
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
