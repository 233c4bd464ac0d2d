"""ZFNet: AlexNet with smaller filters at a smaller stride in its first layers."""

from graphc import nn
from graphc.ir import Builder, Graph, f32
from graphc.models.alexnet import normalize_responses


def zfnet(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """ZFNet (Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks", figure 3).

    [N,3,size,size] -> [N,num_classes]; 62,357,608 parameters. The poolings round up and the first convolution pads by
    1, which makes the paper's maps of 110, 55, 26, 13 and 6 pixels. Its contrast normalisation is AlexNet's.
    """
    net = Builder("zfnet", seed)
    x = net.input("image", f32("N", 3, size, size))
    x = nn.relu(nn.conv2d(x, 96, 7, stride=2, padding=1, name="conv1"))
    x = normalize_responses(nn.max_pool(x, 3, stride=2, ceil_mode=True))
    x = nn.relu(nn.conv2d(x, 256, 5, stride=2, name="conv2"))
    x = normalize_responses(nn.max_pool(x, 3, stride=2, ceil_mode=True))
    x = nn.relu(nn.conv2d(x, 384, 3, padding=1, name="conv3"))
    x = nn.relu(nn.conv2d(x, 384, 3, padding=1, name="conv4"))
    x = nn.relu(nn.conv2d(x, 256, 3, padding=1, name="conv5"))
    x = nn.flatten(nn.max_pool(x, 3, stride=2, ceil_mode=True))
    x = nn.dropout(nn.relu(nn.linear(x, 4096, name="fc6")), 0.5)
    x = nn.dropout(nn.relu(nn.linear(x, 4096, name="fc7")), 0.5)
    return net.build(logits=nn.linear(x, num_classes, name="fc8"))
