"""Networks of linear layers: the two-unit network that computes exclusive or, and a multilayer perceptron."""

from collections.abc import Sequence

import numpy as np

from graphc import nn
from graphc.ir import Builder, Graph, f32


def xor(seed: int = 0) -> Graph:
    """y = a xor b for a, b in {0, 1}, by hand-set weights: "at least one" minus "both" (Minsky & Papert 1969).

    The input is [N,2], the output [N,1]; `seed` changes nothing, since no weight is random.
    """
    net = Builder("xor", seed)
    x = net.input("bits", f32("N", 2))
    x = nn.hard_threshold(nn.linear(x, 2, name="hidden"), 0.0)
    x = nn.hard_threshold(nn.linear(x, 1, name="output"), 0.0)
    weights = {
        "hidden.weight": [[1, 1], [1, 1]],  # the sum of the bits ...
        "hidden.bias": [-0.5, -1.5],  # ... exceeds 0.5 where at least one is set, 1.5 where both are
        "output.weight": [[1, -1]],
        "output.bias": [-0.5],
    }
    return net.build(bit=x).with_params({name: np.array(w, np.float32) for name, w in weights.items()})


def mlp(sizes: Sequence[int] = (784, 300, 100, 10), seed: int = 0) -> Graph:
    """A multilayer perceptron with ReLU between its layers (LeCun et al. 1998, section III: 784-300-100-10).

    The input is [N,sizes[0]], the output [N,sizes[-1]].
    """
    net = Builder("mlp", seed)
    x = net.input("features", f32("N", sizes[0]))
    for i, size in enumerate(sizes[1:]):
        if i:
            x = nn.relu(x)
        x = nn.linear(x, size, name=f"layers.{i}")
    return net.build(logits=x)
