"""The kernels over blocks of channels: that the intended ones are chosen, and how exact they are."""

import numpy as np
import pytest
from test_executors import LEVELS

from graphc import models, nn
from graphc.codegen import select
from graphc.codegen.kernels import winograd_shape
from graphc.codegen.kernels.transforms import Transform, make_transform, split_phases, split_taps, take_taps
from graphc.codegen.kernels.winograd import WinogradConv
from graphc.codegen.kernels.winograd_shape import FOUR, SEVEN, TWO
from graphc.codegen.nest import Buffer
from graphc.codegen.plan import make_plan
from graphc.codegen.target import Target, make_target
from graphc.driver import compile
from graphc.ir import Array, Builder, DType, Graph, dims, f32
from graphc.ops import Conv2d
from graphc.passes import optimize
from graphc.reference import run_reference
from graphc.verify import relative_difference


def convolution(
    channels: int,
    kernel: int | tuple[int, int],
    out: int | None = None,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
    size: tuple[int | str, int | str] = ("H", "W"),
) -> Graph:
    net = Builder("net")
    x = net.input("x", f32("N", channels, *size))
    r, s = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    padding = dilation * (r // 2), dilation * (s // 2)
    y = nn.conv2d(x, out or channels, kernel, stride, padding, dilation, groups, name="conv")
    return net.build(nn.relu(y))


def kernels_of(graph: Graph, precise: bool = False, cpu: str = "x86-64-v4") -> list[str]:
    """The names of the kernels that run, without what prepares weights and layouts."""
    steps = make_plan(optimize(graph), make_target(cpu), precise=precise).steps
    return [s.kernel.name for s in steps if s.kernel.name not in ("dense_to_blocks", "blocks_to_dense")]


@pytest.mark.parametrize(
    ("graph", "kernel"),
    [
        (convolution(3, 7, 64, stride=2), "winograd4x1_7x7_stride2_4x6"),
        (convolution(256, 1, 64), "conv_pointwise_4x6"),
        (convolution(64, 1, 48), "conv_pointwise_3x8"),
        (convolution(64, 1, 160), "conv_pointwise_2x10"),
        (convolution(64, 3), "winograd4x4_3x3_4x6"),
        (convolution(512, 3), "winograd4x4_3x3_2x10_late"),
        (convolution(256, 3, size=(56, 56)), "winograd4x4_3x3_4x6"),
        (convolution(256, 3, size=(14, 14)), "winograd4x4_3x3_2x10_late"),
        (convolution(512, 3, size=(7, 7)), "winograd2x2_3x3_2x10_late"),
        (convolution(448, 3, 384, size=(8, 8)), "winograd4x4_3x3_2x10_late"),
        (convolution(64, 3, 256, size=(13, 13)), "winograd4x4_3x3_2x10_late"),  # with smaller tiles at the end
        (convolution(64, 5), "winograd2x2_5x5_4x6"),
        (convolution(64, (1, 7)), "winograd1x4_1x7_4x6"),
        (convolution(64, (3, 1)), "winograd4x1_3x1_4x6"),
        (convolution(64, 3, stride=2), "winograd2x2_3x3_stride2_4x6"),
        (convolution(256, 3, stride=2, size=(28, 28)), "winograd2x2_3x3_stride2_2x10_late"),
        (convolution(256, 3, 512, stride=2, size=(28, 14)), "winograd2x2_3x3_stride2_2x10_late"),
        (convolution(64, 4, stride=2), "winograd2x2_4x4_stride2_4x6"),
        (convolution(64, 5, stride=2), "winograd2x2_5x5_stride2_4x6"),
        (convolution(64, 3, stride=3), "conv_blocked_4x6"),
        (convolution(64, 3, dilation=2), "conv_blocked_4x6"),
        (convolution(64, 9, 32), "winograd4x1_9x9_2x10_late"),
        (convolution(64, 3, groups=2), "conv_blocked_2x10"),
        (convolution(64, 3, groups=64), "window_conv_3_stride1"),
        (convolution(6, 3, groups=2), "nest_conv2d"),
    ],
)
def test_the_intended_kernel_is_chosen(graph: Graph, kernel: str) -> None:
    assert kernels_of(graph) == [kernel]


def test_short_rows_become_one_row() -> None:
    gathered = ["nest_taps", "conv_pointwise_4x6"]
    # Winograd's weights would come from memory
    assert kernels_of(convolution(256, 3, 512, stride=2, size=(14, 14))) == gathered
    assert kernels_of(convolution(512, 3, size=(7, 7)), precise=True) == gathered
    assert kernels_of(convolution(512, 3, size=(14, 14)), precise=True) == ["conv_blocked_4x6"]  # rows are long enough
    assert kernels_of(convolution(512, 3), precise=True) == ["conv_blocked_4x6"]  # of any length
    assert kernels_of(convolution(96, 3, size=(7, 7)), precise=True) == ["conv_blocked_2x10"]  # no whole passes


def test_strided_pixels_become_one_row() -> None:
    assert kernels_of(convolution(64, 1, stride=2)) == ["nest_pixels", "conv_pointwise_4x6"]


def test_wide_layers_take_passes() -> None:
    steps = make_plan(optimize(convolution(512, 3, stride=2)), make_target("x86-64-v4"), precise=True).steps
    assert steps[-2].kernel.reason == "4 vectors x 6 pixels; rows copied; passes of 64 input channels"


@pytest.mark.parametrize(
    ("cpu", "channels", "tile"),
    [("x86-64-v4", 64, "4x6"), ("x86-64-v3", 64, "2x6"), ("x86-64-v3", 8, "1x9"), ("x86-64-v2", 64, "4x2")],
)
def test_tiles_fit_the_registers(cpu: str, channels: int, tile: str) -> None:
    assert kernels_of(convolution(64, 1, channels), cpu=cpu) == [f"conv_pointwise_{tile}"]


def test_precise_convolutions_are_direct() -> None:
    assert kernels_of(convolution(64, 3), precise=True) == ["conv_blocked_4x6"]


def test_nothing_of_a_resnet_is_left_to_the_generic_kernel() -> None:
    left = {name for name in kernels_of(models.resnet50()) if name.startswith("nest")}
    assert left == {"nest_global_average_pool", "nest_pixels", "nest_taps"}


def run_both(graph: Graph, x: Array, precise: bool) -> float:
    (expected,) = run_reference(graph, [x], DType.F64)
    return relative_difference(compile(graph, threads=1, precise=precise)(x), expected)


@pytest.mark.parametrize("kernel", [3, 5, (1, 3), (7, 1)], ids=str)
@pytest.mark.parametrize("channels", [24, 200, 512])
@pytest.mark.parametrize(("precise", "bound"), [(False, 5e-6), (True, 1e-6)])
def test_accuracy_contract(channels: int, kernel: int | tuple[int, int], precise: bool, bound: float) -> None:
    x = np.random.default_rng(channels).standard_normal((1, channels, 13, 19)).astype(np.float32)
    assert run_both(convolution(channels, kernel), x, precise) < bound


@pytest.mark.parametrize("kernel", [3, 4, 5])
@pytest.mark.parametrize(("channels", "out"), [(24, 40), (200, 64)])
@pytest.mark.parametrize("cpu", LEVELS)
def test_phases_of_a_stride(kernel: int, channels: int, out: int, cpu: str) -> None:
    graph = convolution(channels, kernel, out, stride=2)
    assert kernels_of(graph, cpu=cpu)[0].startswith(f"winograd2x2_{kernel}x{kernel}_stride2")
    net = compile(graph, threads=1, cpu=cpu)
    for size in [(2, 3), (13, 19), (28, 28)]:
        x = np.random.default_rng(channels).standard_normal((2, channels, *size)).astype(np.float32)
        (expected,) = run_reference(graph, [x], DType.F64)
        assert relative_difference(net(x), expected) < 2e-6


@pytest.mark.parametrize(
    ("size", "stride", "kind"),
    [
        *(((7, 7), 1, "_late"), ((8, 9), 1, "_late"), ((12, 13), 1, "_late"), ((20, 20), 1, "_4x6")),
        *(((20, 20), 2, "_late"), ((28, 28), 2, "_late")),
    ],
)
def test_weights_from_afar_are_exact_enough(size: tuple[int, int], stride: int, kind: str) -> None:
    """For 12 to 25 tiles, or 49; 200 channels fill no whole number of vectors."""
    graph = convolution(200, 3, 512, stride, size=size)
    assert kernels_of(graph)[0].endswith(kind)
    x = np.random.default_rng(0).standard_normal((2, *graph.inputs[0].type.shape[1:2], *size)).astype(np.float32)
    assert run_both(graph, x, precise=False) < 5e-6


@pytest.mark.parametrize(
    "graph",
    [
        convolution(200, 3, 512, size=(7, 7)),  # the last chunk of input channels fills no vector
        convolution(100, 3, 104, size=(14, 15)),
        convolution(96, 3, 80, size=(35, 33)),  # an odd number of register tiles; two blocks of tiles
        convolution(24, 3, 32, size=(1, 3)),
        convolution(48, 5, 40, size=(9, 10)),
        convolution(32, (1, 7), 48, size=(6, 11)),
        convolution(40, (3, 1), 16, size=(12, 5)),
        convolution(72, 3, 144, stride=2, size=(28, 27)),
        convolution(24, 5, 24, stride=2, size=(13, 12)),
    ],
)
@pytest.mark.parametrize("cpu", LEVELS)
def test_weights_are_transformed_when_they_are_used(graph: Graph, cpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd_shape, "FAR", 0.01)  # bytes a cycle: as if they took that long to load
    monkeypatch.setattr(winograd_shape, "SECOND_CACHE", 0)
    monkeypatch.setattr(select, "winograd_pays", lambda *_: True)
    assert kernels_of(graph, cpu=cpu)[0].endswith("_late")
    x = np.random.default_rng(0).standard_normal((2, *map(int, graph.inputs[0].type.shape[1:]))).astype(np.float32)
    (expected,) = run_reference(graph, [x], DType.F64)
    results = [compile(graph, threads=threads, cpu=cpu)(x) for threads in (1, 2, 3)]
    assert all(r.tobytes() == results[0].tobytes() for r in results)
    assert relative_difference(results[0], expected) < 5e-6


@pytest.mark.parametrize(
    "graph",
    [
        convolution(200, 3, 72, size=(9, 10)),
        convolution(328, (1, 7), 24, size=(6, 11)),
        convolution(72, 5, 40, stride=2, size=(13, 12)),
        convolution(520, 3, 64),
    ],
)
@pytest.mark.parametrize("cpu", LEVELS)
def test_stored_weights_take_passes(graph: Graph, cpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some input channels at a time, the last time fewer, of which some lanes may be empty."""
    _choose_winograd(monkeypatch, late=False)
    (kernel,) = [s.kernel for s in make_plan(optimize(graph), make_target(cpu)).steps if "winograd" in s.kernel.name]
    assert isinstance(kernel, WinogradConv) and kernel.shape.pass_channels < kernel.shape.c
    _, c, *size = graph.inputs[0].type.shape
    x = np.random.default_rng(0).standard_normal((2, c, *(n if isinstance(n, int) else 14 for n in size)))
    x = x.astype(np.float32)
    (expected,) = run_reference(graph, [x], DType.F64)
    results = [compile(graph, threads=threads, cpu=cpu)(x) for threads in (1, 2, 3)]
    assert all(r.tobytes() == results[0].tobytes() for r in results)
    assert relative_difference(results[0], expected) < 5e-6


@pytest.mark.parametrize(
    "graph", [convolution(200, 1, 24), convolution(144, 1, 80), convolution(200, 3, 24), convolution(12, 3, 24)]
)
@pytest.mark.parametrize("cpu", LEVELS)
def test_channels_are_summed_in_chunks(graph: Graph, cpu: str) -> None:
    x = np.random.default_rng(0).standard_normal((2, *graph.inputs[0].type.shape[1:2], 5, 13)).astype(np.float32)
    (expected,) = run_reference(graph, [x], DType.F64)
    assert relative_difference(compile(graph, cpu=cpu, precise=True)(x), expected) < 1e-6


@pytest.mark.parametrize(
    "graph",
    [
        convolution(256, 3, stride=2),
        convolution(256, 3, 90, dilation=2),
        convolution(256, 1, stride=2),
        convolution(40, 1, 24, stride=3, groups=2),
        convolution(512, 1, 48),
        convolution(512, 3, 512, groups=2),
    ],
)
@pytest.mark.parametrize("size", [(1, 3), (7, 7), (19, 58)])
def test_layers_that_take_passes(graph: Graph, size: tuple[int, int]) -> None:
    x = np.random.default_rng(0).standard_normal((2, *graph.inputs[0].type.shape[1:2], *size)).astype(np.float32)
    assert run_both(graph, x, precise=True) < 1e-6


@pytest.mark.parametrize("graph", [convolution(64, 3), convolution(40, 1, 24), convolution(3, 5, 17, stride=2)])
def test_direct_kernels_are_exact_on_small_integers(graph: Graph) -> None:
    rng = np.random.default_rng(0)
    whole = {n: rng.integers(-8, 9, p.value.type.static_shape()).astype(np.float32) for n, p in graph.params.items()}
    graph = graph.with_params(whole)
    x = rng.integers(-8, 9, (2, *graph.inputs[0].type.shape[1:2], 9, 11)).astype(np.float32)
    (expected,) = run_reference(graph, [x])
    np.testing.assert_array_equal(compile(graph, threads=2, precise=True)(x), expected)


@pytest.mark.parametrize(
    "graph",
    [convolution(64, 3, 256), convolution(64, 1), convolution(64, 3, groups=64), convolution(64, 3, 256, stride=2)],
)
def test_threads_change_no_bit(graph: Graph) -> None:
    x = np.random.default_rng(0).standard_normal((2, 64, 37, 50)).astype(np.float32)
    results = [compile(graph, threads=threads)(x) for threads in (1, 2, 3)]
    assert all(r.tobytes() == results[0].tobytes() for r in results)


@pytest.mark.parametrize(
    ("graph", "tile"),
    [(convolution(128, 3, 64), "4x6"), (convolution(128, 3), "4x6"), (convolution(64, 3, 144), "3x8")],
)
def test_weights_are_there_both_ways_where_sizes_are_open(graph: Graph, tile: str) -> None:
    """Stored for many results, raw for few, packed when the network is loaded; each run takes one of them."""
    assert kernels_of(graph) == [f"winograd4x4_3x3_{tile}", "winograd4x4_3x3_2x10_late"]
    compiled = compile(graph, threads=2)
    for size in [(31, 40), (32, 40), (40, 31), (33, 32), (1, 1)]:
        tasks = [
            dims.evaluate(s.kernel.tasks, {"N": 1, "H": size[0], "W": size[1]})
            for s in make_plan(optimize(graph), make_target("x86-64-v4")).steps
            if s.kernel.name.startswith("winograd")
        ]
        assert [count > 0 for count in tasks] == [min(size) >= 32, min(size) < 32]
        x = np.random.default_rng(0).standard_normal((2, *graph.inputs[0].type.shape[1:2], *size)).astype(np.float32)
        (expected,) = run_reference(graph, [x], DType.F64)
        assert relative_difference(compiled(x), expected) < 5e-6


@pytest.mark.parametrize("size", [(33, 70), (31, 70), (70, 40), (64, 31)])
def test_no_tile_has_few_results_where_the_image_has_many(size: tuple[int, int]) -> None:
    """Its bits are those of the whole."""
    graph, x = convolution(96, 3), np.random.default_rng(0).standard_normal((1, 96, *size)).astype(np.float32)
    compiled = compile(graph, threads=1)
    for tile in (4, (20, 12)):
        assert compiled.tiled(x, tile=tile, max_memory=None).tobytes() == compiled(x).tobytes()


@pytest.mark.parametrize("size", [(1, 3), (28, 28), (37, 50)])
@pytest.mark.parametrize("out", [64, 128, 192, 512])
def test_tasks_share_the_last_block(out: int, size: tuple[int, int]) -> None:
    """Winograd's last block of tiles, by output channels or by tiles; half of one tile is none. The tasks are even."""
    graph = convolution(64, 3, out)
    steps = [s for s in make_plan(optimize(graph), make_target()).steps if s.kernel.name.startswith("winograd")]
    for images in (1, 2):
        tasks = [dims.evaluate(s.kernel.tasks, {"N": images, "H": size[0], "W": size[1]}) for s in steps]
        assert sum(tasks) > 0 and all(count % 2 == 0 for count in tasks)
    x = np.random.default_rng(0).standard_normal((1, 64, *size)).astype(np.float32)
    results = [compile(graph, threads=threads)(x) for threads in (1, 2, 3)]
    assert all(r.tobytes() == results[0].tobytes() for r in results)
    assert relative_difference(results[0], run_reference(graph, [x], DType.F64)[0]) < 5e-6


@pytest.mark.parametrize("channels", [20, 64, 116])
@pytest.mark.parametrize("size", [(1, 3), (4, 4), (7, 7), (5, 17)])
def test_layouts_are_converted(channels: int, size: tuple[int, int]) -> None:
    """A transpose of height and width lies dense between two convolutions; some images have fewer pixels than lanes."""
    net = Builder("net")
    x = nn.conv2d(net.input("x", f32("N", channels, "H", "W")), channels, 1, name="a")
    graph = net.build(nn.conv2d(nn.transpose(x, (0, 1, 3, 2)), 24, 1, name="b"))
    names = [s.kernel.name for s in make_plan(optimize(graph), make_target()).steps]
    assert names.count("dense_to_blocks") == 2 and names.count("blocks_to_dense") == 2
    image = np.random.default_rng(0).standard_normal((2, channels, *size)).astype(np.float32)
    assert run_both(graph, image, precise=True) < 1e-6


TRANSFORMS = [make_transform(4, 3), make_transform(2, 5), make_transform(1, 1), split_taps(4, 4, 3), take_taps(3)]
PHASES = [(4, 7, 2), (2, 3, 2), (2, 4, 2), (4, 11, 4), (4, 9, 4), (4, 3, 1)]


def check_filter(t: Transform, stride: int) -> None:
    """AT ((G g) * (BT d)), summed over phases, is the sum over k of g[k] * d[stride*i+k], exactly, in fractions."""
    m, r = t.m, t.r
    rng = np.random.default_rng(0)
    g, d = rng.integers(-9, 10, r), rng.integers(-9, 10, t.side)
    products = ((np.array(t.weights) @ g) * (np.array(t.data) @ d)).tolist()
    assert len(products) == t.products == (t.places - 1) * t.phases + t.last
    sums = [sum(products[i * t.phases : (i + 1) * t.phases]) for i in range(t.places)]
    expected = [int(g @ d[stride * i : stride * i + r]) for i in range(m)]
    assert (np.array(t.results) @ np.array(sums)).tolist() == expected


@pytest.mark.parametrize(("t", "stride"), [*((t, 1) for t in TRANSFORMS), *((split_phases(*p), p[2]) for p in PHASES)])
def test_transforms_filter(t: Transform, stride: int) -> None:
    check_filter(t, stride)


@pytest.mark.parametrize(
    ("t", "products"), [(FOUR, [3, 4, 5]), (TWO, [3]), (make_transform(2, 5), [5]), (SEVEN, [7, 9, 11])]
)
def test_smaller_tiles_take_some_of_the_products(t: Transform, products: list[int]) -> None:
    """With the weights of the whole tile."""
    assert [edge.m for edge in t.edges] == list(range(1, t.m)) and [edge.products for edge in t.edges] == products
    for edge in t.edges:
        assert edge.weights == tuple(t.weights[number] for number in edge.numbers)
        check_filter(edge, 1)


EDGES = [
    *((convolution(48, 3, size=(p, q)), (p % 4, q % 4)) for p, q in [(14, 14), (13, 15), (4, 9), (10, 12), (2, 3)]),
    (convolution(100, 3, 72, size=(7, 7)), (3, 3)),
    (convolution(40, 5, 24, size=(7, 5)), (1, 1)),
    (convolution(24, (1, 3), 40, size=(5, 11)), (0, 3)),
    (convolution(24, (3, 1), 40, size=(6, 5)), (2, 0)),
    (convolution(160, (1, 7), 192, size=(17, 17)), (0, 1)),
    (convolution(72, (7, 1), 40, size=(10, 3)), (2, 0)),
]


def _choose_winograd(monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    """The first form, with weights that are transformed late or stored."""

    def first_form(op: Conv2d, w: Buffer, y: Buffer, target: Target, fresh: bool) -> list[winograd_shape.Shape]:
        shapes = list_shapes(op, w, y, target, fresh)
        form = winograd_shape.list_forms(op, w.type.static_shape()[2:])[0]
        return [s for s in shapes if isinstance(s, winograd_shape.Shape) and s.axes == form and s.late == late]

    list_shapes = winograd_shape.list_shapes
    monkeypatch.setattr(select, "list_shapes", first_form)
    monkeypatch.setattr(select, "winograd_pays", lambda *_: True)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("graph", "left"), EDGES)
@pytest.mark.parametrize("cpu", LEVELS)
def test_the_last_tiles_are_smaller(
    graph: Graph, left: tuple[int, int], late: bool, cpu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they are known to be, and are all in one block."""
    _choose_winograd(monkeypatch, late)
    (kernel,) = [s.kernel for s in make_plan(optimize(graph), make_target(cpu)).steps if "winograd" in s.kernel.name]
    assert isinstance(kernel, WinogradConv)
    assert tuple(edge.m if edge else 0 for edge in kernel.shape.edges) == left
    x = np.random.default_rng(0).standard_normal((2, *map(int, graph.inputs[0].type.shape[1:]))).astype(np.float32)
    (expected,) = run_reference(graph, [x], DType.F64)
    results = [compile(graph, threads=threads, cpu=cpu)(x) for threads in (1, 2, 3)]
    assert all(r.tobytes() == results[0].tobytes() for r in results)
    assert relative_difference(results[0], expected) < 5e-6


def test_tiles_are_whole_where_they_fit_or_where_the_size_is_open() -> None:
    for graph in (convolution(48, 3), convolution(48, 3, size=(8, 12)), convolution(48, 3, size=(57, 57))):
        (step,) = [s for s in make_plan(optimize(graph), make_target()).steps if "winograd" in s.kernel.name]
        assert isinstance(step.kernel, WinogradConv) and not any(step.kernel.shape.edges)
