"""LeNet-5, and the digit network that descends from it and comes with weights."""

from dataclasses import replace
from importlib import resources

from graphc import nn
from graphc.ir import Builder, Graph, f32
from graphc.state import read_metadata

INK = {"mean": "[1]", "std": "[-1]"}  # how the digit networks read a picture: (grey - 1) / -1, the ink on white paper


def lenet5(num_classes: int = 10, seed: int = 0) -> Graph:
    """LeNet-5 (LeCun et al. 1998, "Gradient-based learning applied to document recognition").

    [N,1,32,32] -> [N,10]; tanh and average pooling. As is usual now, every map of C3 sees all six maps of S2, pooling
    has no weights, and the last layer is linear: 61,706 parameters.
    """
    net = Builder("lenet5", seed)
    x = net.input("image", f32("N", 1, 32, 32))
    x = nn.average_pool(nn.tanh(nn.conv2d(x, 6, 5, name="conv1")), 2)
    x = nn.average_pool(nn.tanh(nn.conv2d(x, 16, 5, name="conv3")), 2)
    x = nn.tanh(nn.conv2d(x, 120, 5, name="conv5"))
    x = nn.tanh(nn.linear(nn.flatten(x), 84, name="fc6"))
    return net.build(logits=nn.linear(x, num_classes, name="output"))


def digits(seed: int = 0, trained: bool = True) -> Graph:
    """A small LeNet trained on scanned digits: ten digits and the background between them.

    [N,1,32,32], ink from 0 (paper) to 1 -> [N,11]. No layer pads, and the strides multiply to 4, so its dense map over
    a page equals sliding its window over it by 4 pixels. The weights' file tells how they were trained; `seed` draws
    random ones if not `trained`.
    """
    net = Builder("digits", seed, meta=INK)
    x = net.input("image", f32("N", 1, 32, 32))
    x = nn.max_pool(nn.relu(nn.conv2d(x, 8, 5, name="conv1")), 2)
    x = nn.max_pool(nn.relu(nn.conv2d(x, 24, 5, name="conv2")), 2)
    x = nn.relu(nn.linear(nn.dropout(nn.flatten(x), 0.2, name="dropout1"), 64, name="fc1"))
    graph = net.build(logits=nn.linear(nn.dropout(x, 0.2, name="dropout2"), 11, name="fc2"))
    if not trained:
        return graph
    with resources.as_file(resources.files("graphc.models").joinpath("digits.safetensors")) as path:
        return replace(graph.load_state(path), meta={**read_metadata(path), **INK})
