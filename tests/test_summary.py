"""The summary: counts as in the literature, totals, sharing, sizes, and the table on terminals of any width."""

import io
import json
from fractions import Fraction

import numpy as np
import pytest
from rich.console import Console

from graphc import nn
from graphc.driver import compile
from graphc.errors import InputError, ShapeError
from graphc.geometry import Axis
from graphc.ir import Builder, Graph, f32
from graphc.models import digits, lenet5, resnet18, vgg16
from graphc.passes import fully_convolutional
from graphc.summary import Row, default_sizes, print_summary, summarize


def rows_of(graph: Graph, **sizes: int) -> dict[str, Row]:
    return {row.name: row for row in summarize(graph, sizes).rows}


def test_lenet5_is_counted_as_in_its_paper() -> None:
    """LeCun et al. 1998, section II.B: units and connections of C1, S2, C5 and F6. (C3 sees all maps here.)"""
    rows = rows_of(lenet5())
    c1, s2, c5, f6 = rows["conv1"], rows["average_pool_1"], rows["conv5"], rows["fc6"]
    assert (c1.shape, c1.parameters, c1.units, c1.connections) == ((1, 6, 28, 28), 156, 4_704, 122_304)
    assert (s2.shape, s2.units, s2.connections) == ((1, 6, 14, 14), 1_176, 4_704)  # 5,880 there, with its biases
    assert (c5.parameters, c5.units, c5.connections) == (48_120, 120, 48_120)
    assert (f6.parameters, f6.units, f6.connections) == (10_164, 84, 10_164)
    assert (rows["tanh_1"].units, rows["tanh_1"].connections) == (0, 0)  # it is part of C1


def test_totals() -> None:
    summary = summarize(lenet5(), {"N": 3})
    assert summary.parameters == sum(row.parameters for row in summary.rows) == 61_706
    assert summary.parameter_bytes == 4 * 61_706
    assert summary.multiply_adds == 3 * (28 * 28 * 150 + 100 * 2400 + 48000 + 10080 + 840)


def test_vgg16_multiply_adds() -> None:
    """15.47 billion at 224x224, as torchvision lists it."""
    assert summarize(vgg16()).multiply_adds == 15_470_264_320


def test_counts_of_other_layers() -> None:
    net = Builder("net")
    x = net.input("image", f32("N", 2, 6, 6))
    y = nn.batch_norm(nn.conv_transpose2d(x, 4, 3, stride=2, groups=2, name="up"), name="norm")
    y = nn.locally_connected2d(nn.max_pool(y, 3), 5, 2, name="local")
    y = nn.linear(nn.flatten(nn.global_average_pool(y)), 3, name="fc")
    rows = rows_of(net.build(nn.matmul(y, net.param("m", np.ones((3, 7), np.float32)))))
    assert rows["up"].multiply_adds == 2 * 6 * 6 * (4 // 2) * 9  # each input's every tap
    assert (rows["up"].units, rows["up"].connections) == (4 * 13 * 13, 2 * 6 * 6 * 2 * 9 + 4 * 13 * 13)
    assert (rows["norm"].parameters, rows["norm"].units) == (8, 0)  # not its statistics
    assert (rows["max_pool_1"].multiply_adds, rows["max_pool_1"].connections) == (0, 4 * 4 * 4 * 9)
    assert (rows["local"].parameters, rows["local"].multiply_adds) == (45 * (4 * 2 * 2 + 1), 45 * 4 * 2 * 2)
    assert rows["global_average_pool_1"].connections == 45
    assert (rows["fc"].multiply_adds, rows["matmul_1"].multiply_adds) == (15, 21)


def test_shared_and_fixed_parameters() -> None:
    """A shared weight counts once; statistics weigh, but are not trained."""
    net = Builder("net")
    x = net.input("image", f32("N", 3, "H", "W"))
    w = net.param("w", np.ones((3, 3, 3, 3), np.float32))
    y = nn.conv2d(nn.conv2d(x, 3, 3, bias=False, weight=w, name="a"), 3, 3, bias=False, weight=w, name="b")
    y = nn.batch_norm(y, name="norm")
    summary = summarize(net.build(y))
    assert [row.parameters for row in summary.rows] == [81, 0, 6]
    assert summary.parameters == 87
    assert summary.parameter_bytes == 4 * (81 + 12)


def test_workspace_is_that_of_the_compiled_network() -> None:
    graph = fully_convolutional(digits())
    sizes = {"N": 2, "H": 100, "W": 77}
    assert 0 <= compile(graph).workspace_bytes(**sizes) - summarize(graph, sizes).workspace_bytes <= 64


def test_default_sizes() -> None:
    net = Builder("net")
    outputs = [net.input("a", f32("batch", 3, "height", "W")), net.input("b", f32("batch", "length"))]
    assert default_sizes(net.build(*outputs)) == {"W": 224, "batch": 1, "height": 224, "length": 1}


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="network 'lenet5': expected sizes for N, got H, Q"):
        summarize(lenet5(), {"H": 3, "Q": 1})
    with pytest.raises((InputError, ShapeError), match=r"conv2d 'conv1': .* must be at least 1"):
        summarize(fully_convolutional(lenet5()), {"H": 4, "W": 40})


def test_json() -> None:
    told = json.loads(json.dumps(summarize(fully_convolutional(digits()), {"N": 1, "H": 40, "W": 36}).to_json()))
    assert told["sizes"] == {"N": 1, "H": 40, "W": 36}
    assert told["geometry"] == {"field": [32, 32], "stride": [4, 4], "first_centre": [15.5, 15.5]}
    assert told["multiply_adds"] == sum(row["multiply_adds"] for row in told["rows"])
    assert told["rows"][0]["shape"] == [1, 8, 36, 32]
    assert told["rows"][0]["geometry"]["field"] == [5, 5]


def test_what_is_exact_and_what_is_not() -> None:
    """Of ResNet's conv1, with a kernel of 7 at stride 2 and 3 pixels of padding, rows 0, 1 and 111 see padding."""

    def tell(graph: Graph) -> list[str]:
        stream = io.StringIO()
        print_summary(summarize(graph), Console(file=stream, width=1000))
        return [" ".join(line.split()) for line in stream.getvalue().splitlines()]

    lines = tell(fully_convolutional(lenet5()))
    assert lines[-2:] == [
        "output pixel (p, q) is about the window of 32x32 pixels from row 4p, column 4q on",
        "exact: no layer pads, so that is what the classifier gives for that window alone",
    ]
    lines = tell(fully_convolutional(resnet18(10), gap="drop"))
    assert next(line for line in lines if line.startswith("conv1 ")).endswith(" 7x7 2-110 of 112")
    assert next(line for line in lines if line.startswith("fc ")).endswith(" 435x435 none of 7")
    told = " ".join(lines)
    assert "the 7x7 output pixels from (p, q) on are about the window of 224x224 pixels from row 32p" in told
    assert "not exact in an image larger than a window: 18 layers pad, first 'conv1'" in told
    assert "the first 7 rows, 7 columns and the last 6 rows, 6 columns of output pixels see it" in told
    assert not any("window" in line for line in tell(resnet18(10)))
    windows = summarize(fully_convolutional(resnet18(10))).to_json()["windows"]
    assert (windows["size"], windows["stride"], windows["map"]) == ((224, 224), (32, 32), (1, 1))


@pytest.fixture
def awkward() -> Graph:
    """A name with what rich takes for markup, and a geometry of different axes."""
    net = Builder("net[/]")
    x = net.input("image", f32("N", 3, "H", "W"))
    return net.build(nn.conv2d(x, 8, (3, 5), (1, 2), name="stage[1].a_rather_long_name_of_a_layer[bold]"))


@pytest.mark.parametrize("markup", [True, False])
def test_table(awkward: Graph, markup: bool) -> None:
    stream = io.StringIO()
    print_summary(summarize(awkward), Console(file=stream, width=1000, markup=markup))
    lines = [line.split() for line in stream.getvalue().splitlines()]
    assert lines[0] == ["net[/]", "at", "N=1,", "H=224,", "W=224"]
    assert ["stage[1].a_rather_long_name_of_a_layer[bold]", "(conv2d)", "1x8x222x110", "368", "8,791,200", "195,360",
            "8,986,560", "3x5"] in lines  # fmt: skip
    assert (
        "each output pixel sees 3x5 pixels, the next one those 1x2 further; the first is centred on row 1, column 2"
        in (stream.getvalue())
    )


def test_narrow_terminal_folds_names_but_no_numbers(awkward: Graph) -> None:
    stream = io.StringIO()
    print_summary(summarize(awkward), Console(file=stream, width=70))
    table = stream.getvalue()
    assert max(map(len, table.splitlines())) <= 70
    assert "8,791,200" in table
    assert "connections" not in table
    assert "…" not in table


def test_geometry_of_rows() -> None:
    geometry = rows_of(lenet5())["conv3"].geometry
    assert geometry is not None
    assert geometry.rows == Axis(Fraction(2), Fraction(0), Fraction(14))
    assert rows_of(lenet5())["fc6"].geometry is None
