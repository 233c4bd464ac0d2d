"""`graphc show`: what is drawn by default, what by name, and what cannot be drawn."""

from functools import partial
from pathlib import Path

import commands
import numpy as np
import pytest
from PIL import Image

from graphc import nn
from graphc.cli import showing
from graphc.grids import class_hue, draw_masks
from graphc.ir import Builder, f32
from graphc.models import NETWORKS, digits
from graphc.models.pages import digit_windows
from graphc.reference import run_reference

succeed, fail = partial(commands.succeed, "show"), partial(commands.fail, "show")


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Twelve scanned digits in the current folder: 0 to 9, 0, 1."""
    monkeypatch.chdir(tmp_path)
    windows, labels = digit_windows("test")
    chosen = [*range(10), 12, 16]
    assert labels[chosen].tolist() == [*range(10), 0, 1]
    for i, window in enumerate(windows[chosen, 0]):
        Image.fromarray(np.rint(255 * (1 - window)).astype(np.uint8)).save(f"scan{i}.png")
    return [f"scan{i}.png" for i in range(12)]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What is drawn, in place of drawing it."""
    found: list[tuple[object, ...]] = []

    def draw(*given: object) -> np.ndarray:
        found.append(given)
        return np.zeros((3, 4, 3), np.uint8)

    for name in ("draw_filters", "draw_channels", "draw_rows"):
        monkeypatch.setattr(showing, name, draw)
    return found


def test_files(scans: list[str], tmp_path: Path) -> None:
    for command in (["filters", "digits"], ["activations", "digits", "scan0.png"], ["neighbours", "digits", *scans]):
        (line,) = succeed(*command, "-o", "x.png")
        with Image.open(tmp_path / "x.png") as picture:
            assert line == f"x.png  {picture.width}x{picture.height} pixels"
    assert fail("filters", "digits", "-o", "x.jpg") == "x.jpg: expected a file that ends in .png"


def test_filters(drawn: list[tuple[object, ...]], tmp_path: Path) -> None:
    params = digits().params
    succeed("filters", "digits", "-o", tmp_path / "x.png")
    succeed("filters", "digits", "--layer", "conv2", "-o", tmp_path / "x.png")
    for (weight, title), name in zip(drawn, ("conv1", "conv2"), strict=True):
        np.testing.assert_array_equal(weight, params[f"{name}.weight"].array)
        assert name in str(title)
    message = fail("filters", "digits", "--layer", "conv", "-o", tmp_path / "x.png")
    assert message == "network 'digits': expected the name of a convolution, got 'conv'; did you mean conv2 or conv1?"
    message = fail("filters", "mlp", "-o", tmp_path / "x.png")
    assert message == "network 'mlp': expected a convolution, it has none"


def test_activations(scans: list[str], drawn: list[tuple[object, ...]]) -> None:
    graph = digits()
    values = {v.name: v for v in graph.values()}
    succeed("activations", "digits", "scan3.png", "-o", "x.png")
    succeed("activations", "digits", "scan3.png", "--value", "max_pool_2", "-o", "x.png")
    pixels = 1 - np.asarray(Image.open("scan3.png"), np.float32)[None, None] / 255
    for (maps, _), name in zip(drawn, ("conv1", "max_pool_2"), strict=True):
        (expected,) = run_reference(graph, [pixels], keep=[values[name]])
        np.testing.assert_allclose(maps, expected[0], atol=1e-4)
    message = fail("activations", "digits", "scan3.png", "--value", "fc1", "-o", "x.png")
    assert message.startswith("network 'digits': expected the name of a value [N,C,P,Q], got 'fc1'")


def test_neighbours(scans: list[str], drawn: list[tuple[object, ...]]) -> None:
    """The other scan of the same digit is the nearest."""
    succeed("neighbours", "digits", *scans, "--queries", 2, "--count", 3, "-o", "x.png")
    ((rows, title, note),) = drawn
    assert [len(row) for row in rows] == [4, 4]
    for row, query, near in zip(rows, (0, 1), (10, 11), strict=True):
        assert row[0][1] == f"scan{query}"
        for (picture, _), i in zip(row, (query, near), strict=False):
            np.testing.assert_array_equal(picture[:, :, 0], np.asarray(Image.open(f"scan{i}.png")))
        distances = [float(caption) for _, caption in row[1:]]
        assert distances == sorted(distances)
        assert distances[0] > 0
    assert title == "digits: nearest of 12 images"
    assert "64 features of relu_3" in note


def test_images_of_any_size_have_neighbours(
    scans: list[str], drawn: list[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.open("scan0.png").resize((64, 48)).save("large.png")
    succeed("neighbours", "digits", "--dense", "large.png", "scan1.png", "-o", "x.png")
    assert fail("neighbours", "digits", "scan1.png", "-o", "x.png") == "neighbours: expected at least 2 images, got 1"
    net = Builder("flat")
    x = net.input("image", f32("N", 1, 32, 32))
    monkeypatch.setitem(NETWORKS, "flat", lambda: net.build(y=nn.conv2d(x, 2, 3, name="only")))
    message = fail("neighbours", "flat", "scan0.png", "scan1.png", "-o", "x.png")
    assert message == "network 'flat': expected a hidden layer, and a layer with weights after it"


def test_masks(scans: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.open("scan3.png").resize((48, 40)).save("wide.png")
    (line,) = succeed("masks", "digit_masks", "wide.png", "-o", "x.png")
    with Image.open("x.png") as file:
        picture = np.asarray(file)
    assert line == f"x.png  {picture.shape[1]}x{picture.shape[0]} pixels"
    classes = np.full((40, 48), 10)
    classes[8:24, 8:24], classes[24:32, 8:24] = 3, 5
    found: list[tuple[object, ...]] = []
    monkeypatch.setattr(showing, "draw_masks", lambda *given: found.append(given) or picture)
    succeed("masks", "digit_masks", "wide.png", "-o", "x.png")
    ((image, by_network, labels, title),) = found
    assert (image.shape, by_network.shape, title) == ((40, 48, 3), (40, 48), "digit_masks: wide.png")  # type: ignore[attr-defined]
    drawn = draw_masks(image, classes, labels, "title")  # type: ignore[arg-type]
    colours = {tuple(c) for c in drawn.reshape(-1, 3)}
    ours = {class_hue(k, 11) for k in range(11)}
    assert colours & ours == {class_hue(3, 11), class_hue(5, 11)}
    assert "expected scores [N,K,H,W] of 2 classes or more" in fail("masks", "digits", "scan0.png", "-o", "x.png")
