"""`graphc run`: pictures and arrays in, words, files and overlays out, from graphs and from compiled libraries."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import commands
import numpy as np
import pytest
from PIL import Image

from graphc import nn
from graphc.artefact import build
from graphc.cli.results import describe_result, draw_overlay, to_probabilities
from graphc.cli.running import place_files
from graphc.driver import compile
from graphc.errors import InputError
from graphc.geometry import Axis, Geometry, describe_geometry
from graphc.ir import Builder, Graph, f32
from graphc.models import NETWORKS, digits
from graphc.models.pages import digit_windows
from graphc.passes import fully_convolutional
from graphc.pictures import class_colour
from graphc.runtime.network import Network

invoke_run, succeed = partial(commands.invoke, "run"), partial(commands.succeed, "run")
fail = partial(commands.fail, "run", silent=False)  # what went right before is told


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The digit network, for one digit and for pages, as `graphc compile` writes it."""
    folder = tmp_path_factory.mktemp("build")
    graphs = {"digits": digits(), "pages": fully_convolutional(digits())}
    return {name: build(describe_geometry(g), folder, ["so"], name=name)["so"] for name, g in graphs.items()}


def save_picture(path: Path, ink: np.ndarray) -> None:
    Image.fromarray(np.rint(255 * (1 - ink)).astype(np.uint8)).save(path)


def tiny(**meta: str) -> Graph:
    """The first three pixels of an f32[N,3,4,4] picture's red channel are its scores."""
    net = Builder("tiny", meta=meta)
    x = net.input("image", f32("N", 3, 4, 4))
    return net.build(scores=nn.slice(nn.flatten(x), (1,), (0,), (3,)))


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[[Graph], str]:
    """Make a graph known to the command line, by the name that is returned."""

    def add(graph: Graph) -> str:
        monkeypatch.setitem(NETWORKS, graph.name, lambda: graph)
        return graph.name

    return add


def test_digits_from_pictures(libraries: dict[str, Path], folder: Path) -> None:
    """The network's own metadata turn grey into ink, so scans are read right, and as `compile` reads them."""
    windows, labels = digit_windows("test")
    for i in (0, 40, 80):
        save_picture(folder / f"scan{i}.png", windows[i, 0])
    lines = succeed(libraries["digits"], "scan0.png", "scan40.png", "scan80.png", "-o", "scores", "--top", 2)
    assert lines[::4] == ["scan0.png", "scan40.png", "scan80.png"]
    assert [line.split()[1] for line in lines[1::4]] == [str(labels[i]) for i in (0, 40, 80)]
    assert all(float(line.split()[0]) > 0.9 for line in lines[1::4])
    assert lines[3::4] == [f"  scores/scan{i}.npy" for i in (0, 40, 80)]
    net = compile(digits(), threads=1)
    for i in (0, 40, 80):
        read = np.rint(255 * windows[i : i + 1]) / 255
        np.testing.assert_allclose(np.load(folder / f"scores/scan{i}.npy"), net(read.astype(np.float32)), atol=1e-3)


def test_graph_and_library_tell_the_same(libraries: dict[str, Path], folder: Path) -> None:
    save_picture(folder / "scan.png", digit_windows("test")[0][7, 0])
    assert succeed("digits", "scan.png", "--threads", 2) == succeed(libraries["digits"], "scan.png", "--threads", 1)


def test_overlay_of_a_page(libraries: dict[str, Path], folder: Path) -> None:
    """Two digits on a white page are two peaks; from the graph and from the library."""
    page = np.zeros((60, 120), np.float32)
    page[10:42, 5:37], page[20:52, 80:112] = digit_windows("test")[0][[3, 5], 0]
    save_picture(folder / "page.png", page)
    lines = succeed(libraries["pages"], "page.png", "--overlay", "map.png", "-o", "map.npy")
    assert lines[0] == "page.png"
    assert lines[1].startswith("  logits f32[1,11,8,23]: ")
    assert lines[2:] == ["  map.npy", "  map.png: peaks above 0.5: 2"]
    assert np.load(folder / "map.npy").shape == (1, 11, 8, 23)
    with Image.open(folder / "map.png") as picture:
        assert picture.size == (120 * 11, 60 * 11)  # near 1,280 pixels
    assert succeed("digits", "--dense", "page.png", "--overlay", "again.png", "-o", "map.npy")[3:] == [
        "  again.png: peaks above 0.5: 2"
    ]
    assert (folder / "again.png").read_bytes() == (folder / "map.png").read_bytes()


def test_sizes(libraries: dict[str, Path], folder: Path) -> None:
    save_picture(folder / "large.png", np.kron(digit_windows("test")[0][3, 0], np.ones((3, 2))))
    assert fail(libraries["digits"], "large.png") == (
        "large.png: expected a picture of 32x32 pixels, got 96x64; --resize scales it, --dense makes a map of it"
    )
    assert succeed(libraries["digits"], "large.png", "--resize")[1].split()[1] == "3"
    message = fail(libraries["pages"], "large.png", "--resize")
    assert message == "--resize: input 'image' is f32[N,1,H,W], which takes pictures of any size"


def test_onnxruntime_tells_the_same(folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    save_picture(folder / "scan.png", digit_windows("test")[0][7, 0])
    native = succeed("digits", "scan.png", "-o", "native.npy")
    for options in ([], ["--provider", "cpu", "--threads", 1]):
        told = succeed("digits", "scan.png", "--backend", "onnxruntime", *options, "-o", "native.npy")
        assert [line[:8] for line in told] == [line[:8] for line in native]  # digits beyond the third may differ
    message = fail("digits", "scan.png", "--backend", "onnxruntime", "--provider", "tensorrt")
    assert message.startswith("provider tensorrt: this ONNX Runtime has no TensorrtExecutionProvider, it has ")
    assert "CPUExecutionProvider" in message


def test_options_of_onnxruntime(libraries: dict[str, Path]) -> None:
    assert (
        fail("digits", "x.png", "--provider", "cpu") == "--provider: expected together with --backend onnxruntime only"
    )
    assert fail("digits", "x.png", "--backend", "onnxruntime", "--cpu", "x86-64").startswith(
        "--cpu: expected for graphc"
    )
    message = fail(libraries["digits"], "x.png", "--backend", "onnxruntime")
    assert message.startswith("--backend: expected when a library is compiled, and ")


def test_options_of_the_compiler_do_not_fit_a_library(libraries: dict[str, Path]) -> None:
    for options in (["--dense"], ["--cpu", "x86-64"], ["--params", "x.npz"]):
        message = fail(libraries["digits"], "x.png", *options)
        assert message.startswith(f"{options[0]}: expected when a library is compiled, and ")
    assert "absent.so: cannot be read" in fail("absent.so", "x.png")


def test_mean_and_std(serve: Callable[[Graph], str], folder: Path) -> None:
    """From the options, else from the metadata, else none."""
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[0, :3, 0] = 0, 51, 102
    Image.fromarray(pixels).save(folder / "x.png")

    def scores(graph: Graph, *options: str) -> list[float]:
        succeed(serve(graph), "x.png", "-o", "y.npy", *options)
        return [round(float(y), 5) for y in np.load(folder / "y.npy")[0]]

    assert scores(tiny()) == [0, 0.2, 0.4]
    assert scores(tiny(mean="[0.2, 0, 0]", std="[0.1, 1, 1]")) == [-2, 0, 2]
    assert scores(tiny(mean="[0.2]", std="[0.1]"), "--mean", "0.4,0,0", "--std", "2,1,1") == [-0.2, -0.1, 0]
    for meta in ("{}", "[", '["a"]', "[]"):
        assert "metadata mean: expected a JSON list" in fail(serve(tiny(mean=meta)), "x.png")
    assert fail("tiny", "x.png", "--mean", "1,2") == "mean: expected 1 or 3 finite numbers, got 1, 2"


def test_arrays_are_taken_as_they_are(serve: Callable[[Graph], str], folder: Path) -> None:
    array = np.arange(2 * 48, dtype=np.float32).reshape(2, 3, 4, 4)
    np.save(folder / "x.npy", array)
    name = serve(tiny(labels='["a", "b", "c"]', mean="[7]"))
    assert succeed(name, "x.npy", "-o", "y.npy", "--top", "1") == ["x.npy", "  0.6652  c", "  0.6652  c", "  y.npy"]
    np.testing.assert_array_equal(np.load(folder / "y.npy"), array.reshape(2, 48)[:, :3])
    np.save(folder / "x.npy", array[0])
    assert fail(name, "x.npy") == "input 'image': expected f32[N,3,4,4], got an array of shape [3, 4, 4]"
    np.save(folder / "x.npy", array.astype(np.float64))
    assert fail(name, "x.npy") == "input 'image': expected float32, got float64"
    assert fail(name, "x.npy", "--overlay", "y.png") == "input 'image': expected float32, got float64"


def test_what_is_no_input(serve: Callable[[Graph], str], folder: Path) -> None:
    name = serve(tiny())
    (folder / "empty.npy").touch()
    (folder / "text.npy").write_text("text")
    np.save(folder / "objects.npy", np.array([{}]), allow_pickle=True)
    np.savez(folder / "archive.npz", a=np.ones(3))
    (folder / "archive.npz").rename(folder / "archive.npy")
    for file in ("empty.npy", "text.npy", "objects.npy", "archive.npy", "absent.npy", "absent.png", "text.npy"):
        assert file in fail(name, file)
    Image.new("L", (4, 4)).save(folder / "x.png")
    assert fail("xor", "x.png") == "x.png: input 'bits' is f32[N,2], which no picture can be; give it as .npy"
    net = Builder("two")
    a, b = net.input("a", f32("N")), net.input("b", f32("N"))
    assert "expected one input to fill from files, it has a, b" in fail(serve(net.build(nn.add(a, b))), "x.npy")


def test_several_outputs(serve: Callable[[Graph], str], folder: Path) -> None:
    net = Builder("forked")
    x = net.input("x", f32("N", 2))
    name = serve(net.build(twice=nn.add(x, x), same=nn.relu(x)))
    np.save(folder / "x.npy", np.array([[1, 2]], np.float32))
    succeed(name, "x.npy", "-o", "y.npz")
    with np.load(folder / "y.npz") as results:
        assert {key: results[key].tolist() for key in results} == {"twice": [[2, 4]], "same": [[1, 2]]}
    assert fail(name, "x.npy", "-o", "y.npy") == "y.npy: expected a .npz file or a folder"


def test_output_that_cannot_be_written(serve: Callable[[Graph], str], folder: Path) -> None:
    np.save(folder / "x.npy", np.zeros((1, 3, 4, 4), np.float32))
    (folder / "file").touch()
    assert fail(serve(tiny()), "x.npy", "-o", "no/y.npy") == "no/y.npy: cannot be written: No such file or directory"
    assert fail("tiny", "x.npy", "-o", "file") == "file: cannot be a folder: File exists"
    assert sorted(p.name for p in folder.iterdir()) == ["file", "x.npy"]


def test_overlays_that_cannot_be(serve: Callable[[Graph], str], libraries: dict[str, Path], folder: Path) -> None:
    Image.new("L", (32, 32)).save(folder / "x.png")
    np.save(folder / "x.npy", np.zeros((1, 1, 32, 32), np.float32))
    assert fail(libraries["digits"], "x.png", "--overlay", "y.png") == (
        "overlay: expected a map [1,K,P,Q] each pixel of which sees a part of the image, output 'logits' is [1, 11]; "
        "--dense makes a map of a classifier's scores"
    )
    assert fail(libraries["pages"], "x.npy", "--overlay", "y.png") == (
        "x.npy: an overlay is drawn over a picture, and this is none"
    )
    net = Builder("fine")
    x = net.input("image", f32("N", 1, "H", "W"))
    assert "output 'y' is finer" in fail(serve(net.build(y=nn.upsample_nearest(x))), "x.png", "--overlay", "y.png")
    assert not (folder / "y.png").exists()


# Results


def test_place_files(folder: Path) -> None:
    a, b, c = Path("a.png"), Path("b/a.jpg"), Path("c.d.png")
    assert place_files([a, b], None, ".npy") == {}
    assert place_files([b], Path("x.npy"), ".npy") == {b: Path("x.npy")}
    assert place_files([a], Path("out/new"), ".png") == {a: Path("out/new/a.png")}
    assert (folder / "out/new").is_dir()
    assert place_files([a, c], Path("out"), ".npy") == {a: Path("out/a.npy"), c: Path("out/c.d.npy")}
    for inputs, target, message in (
        ([a, c], "x.npy", "x.npy: expected a folder for 2 inputs, got a file"),
        ([a, b], "out", "out/a.npy: expected inputs of different names, got 'a' twice"),
        ([a], "x.png", "x.png: expected a .npy file or a folder"),
    ):
        with pytest.raises(InputError) as caught:
            place_files(inputs, Path(target), ".npy")
        assert str(caught.value) == message


def test_describe_result() -> None:
    scores = np.log(np.array([[0.1, 0.2, 0.7]]))
    assert describe_result("y", scores + 5, ["a", "b", "c"], 2) == ["0.7000  c", "0.2000  b"]
    assert describe_result("y", scores, None, 9) == ["0.7000  2", "0.2000  1", "0.1000  0"]
    assert describe_result("y", scores, ["of", "another", "network", "!"], 1) == ["0.7000  2"]
    assert describe_result("y", np.float32([[3]]), ["a"], 5) == ["y f32[1,1]: 3"]
    assert describe_result("y", np.int64([[3, 4]]), None, 5) == ["y i64[1,2]: 3, 4"]
    assert describe_result("y", np.arange(10.0), None, 5) == ["y f64[10]: 0 to 9, mean 4.5"]


def test_probabilities_stay_as_they_are() -> None:
    chances = np.array([[0.25, 0.75], [1, 0]])
    np.testing.assert_array_equal(to_probabilities(chances), chances)
    np.testing.assert_allclose(to_probabilities(np.array([[1e4, 0], [0, np.log(3)]])), [[1, 0], [0.25, 0.75]])


def test_overlay_lies_where_the_geometry_says() -> None:
    """A hot cell (2, 3) of stride 8 that sees 16 pixels from (-4, 4) on is a box from (12, 28) to (28, 44)."""
    geometry = Geometry(*(Axis(8, low, low + 16) for low in (-4, 4)))  # type: ignore[arg-type]  # whole numbers
    scores = np.zeros((1, 3, 6, 5), np.float32)
    scores[0, 0] = 9
    scores[0, 2, 2, 3] = 20
    picture, found = draw_overlay(np.ones((64, 64, 3), np.float32), scores, geometry, ["background", "b", "c"], "y")
    assert found == "peaks above 0.5: 1"
    assert picture.shape == (1280, 1280, 3)  # zoomed 20 times
    boxed = (picture == class_colour(2)).all(axis=2)
    rows, columns = np.flatnonzero(boxed[:, 800]), np.flatnonzero(boxed[400])
    assert (rows.min(), rows.max() + 1) == (20 * 12, 20 * 28)
    assert (columns.min(), columns.max() + 1) == (20 * 28, 20 * 44)
    heat = np.abs(picture.astype(int) - 255).sum(axis=2)[250:550, 570:870]  # inside the box
    row, column = (index.mean() for index in np.nonzero(heat == heat.max()))
    assert abs(row + 250 - 20 * 20) <= 20  # the centre, pixel (19.5, 35.5)
    assert abs(column + 570 - 20 * 36) <= 20


def test_overlay_of_one_channel_spans_its_range() -> None:
    geometry = Geometry(*[Axis(2, 0, 2)] * 2)  # type: ignore[list-item]
    scores = np.array([[[[-3, 5], [1, 1]]]], np.float32)
    picture, found = draw_overlay(np.zeros((4, 4, 3), np.float32), scores, geometry, None, "y")
    assert (picture.shape, found) == ((4, 4, 3), "-3 to 5")


def test_networks_that_run_keep_their_metadata(libraries: dict[str, Path]) -> None:
    from graphc.runtime import load

    net: Network = load(libraries["pages"])
    assert json.loads(net.meta["labels"])[-1] == "background"
    assert json.loads(net.meta["geometry"]) == {
        "logits": {"stride": [4, 4], "receptive_field": [32, 32], "offset": [15.5, 15.5]}
    }
