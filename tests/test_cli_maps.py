"""`graphc show` of what a classifier says in each place: which scores, which windows, which classes are drawn."""

from functools import partial
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
from PIL import Image

from graphc.cli import showing_maps
from graphc.maps import Panel, draw_maps
from graphc.models import NETWORKS, digits, squeezenet1_1
from graphc.models.pages import LABELS, compose_page
from graphc.passes import fully_convolutional
from graphc.pictures import overlay
from graphc.reference import run_reference

README = Path(__file__).parent.parent / "README.md"
succeed, fail = partial(commands.succeed, "show"), partial(commands.fail, "show")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A page of 60x72 pixels in the current folder, and its scores f32[11,8,11]."""
    monkeypatch.chdir(tmp_path)
    ink = np.rint(255 * (1 - compose_page(60, 72, seed=0).image)).astype(np.uint8)
    Image.fromarray(ink).save("page.png")
    image = (1 - ink.astype(np.float32) / 255)[None, None]
    (scores,) = run_reference(fully_convolutional(digits()), [image])
    return scores[0]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What is drawn, in place of drawing it."""
    found: list[tuple[Any, ...]] = []

    def draw(*given: object) -> np.ndarray:
        found.append(given)
        return np.zeros((3, 4, 3), np.uint8)

    for name in ("draw_maps", "draw_labels"):
        monkeypatch.setattr(showing_maps, name, draw)
    return found


def test_the_commands_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its section on images of any size, but for the measurement; every file that it names is there in the end."""
    monkeypatch.chdir(tmp_path)
    section = README.read_text().split("## Any image size")[1].split("\n## ")[0]
    code = section.split("```python")[1].split("```")[0]
    found: dict[str, Any] = {}
    exec(code, found)
    assert found["masks"].outputs[0].type.shape[2:] == found["masks"].inputs[0].type.shape[2:]
    lines = [line.split("#")[0].split()[1:] for line in section.splitlines() if line.startswith("    graphc ")]
    assert len(lines) == 8
    for words in lines:
        if words[0] != "bench":
            result = commands.invoke(*words)
            assert result.exit_code == 0, result.output
    pictures = {line[-1] for line in lines if line[-1].endswith(".png")}
    assert pictures == {f"{name}.png" for name in ("found", "classes", "boxes", "masks", "windows")}
    for name in pictures:
        with Image.open(name) as picture:
            assert min(picture.size) > 300
    assert np.load("scores.npy").shape == (1, 11, 120, 160)


def test_what_is_no_picture(page: np.ndarray) -> None:
    assert fail("boxes", "digits", "page.png", "-o", "x.jpg") == "x.jpg: expected a file that ends in .png"


def test_classes(page: np.ndarray, drawn: list[tuple[Any, ...]]) -> None:
    succeed("classes", "digits", "page.png", "--class", "3,background", "-o", "x.png")
    succeed("classes", "digits", "page.png", "--count", 2, "-o", "x.png")
    best = np.argsort(-page.mean(axis=(1, 2)))[:2]
    for (picture, panels, stride, offset, scale, title, note), chosen in zip(drawn, ([3, 10], best), strict=True):
        assert picture.shape == (60, 72, 3)
        assert panels[0] == Panel(None, "page.png")
        for panel, k in zip(panels[1:], chosen, strict=True):
            np.testing.assert_allclose(panel.scores, page[k], atol=1e-4)
            assert panel.caption.startswith(f"{LABELS[k]}: {page[k].mean():.2g}"[:6])
        assert (stride, offset) == ((4, 4), (15.5, 15.5))
        assert scale == pytest.approx((max(page[chosen].min(), 0), page[chosen].max()), abs=1e-4)
        assert (title, note.split()[0]) == ("digits: scores of page.png", "8x11")
    message = fail("classes", "digits", "page.png", "--class", "back", "-o", "x.png")
    assert message.startswith("network 'digits': expected one of its 11 classes, got 'back'")
    message = fail("classes", "digit_masks", "page.png", "--class", "x", "-o", "x.png")
    assert message == "network 'digit_masks': expected one of its 11 classes, got 'x'"


def test_class_activation_maps(page: np.ndarray, drawn: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the pool: a score for every 16 pixels, and over a window their mean is the classifier's score."""
    monkeypatch.setitem(NETWORKS, "net", lambda: squeezenet1_1(4, 64))
    Image.open("page.png").resize((64, 64)).convert("RGB").save("window.png")
    commands.invoke("show", "classes", "net", "window.png", "--gap", "drop", "--count", 4, "-o", "x.png")
    ((picture, panels, stride, _, _, title, _),) = drawn
    assert title == "net: class activation maps of window.png".replace("net:", "squeezenet1_1:")
    (scores,) = run_reference(squeezenet1_1(4, 64), [np.moveaxis(picture, 2, 0)[None].astype(np.float32) / 255])
    assert stride == (16, 16)
    np.testing.assert_allclose([p.scores.mean() for p in panels[1:]], np.sort(scores[0])[::-1], rtol=1e-3)


def test_boxes(page: np.ndarray, drawn: list[tuple[Any, ...]]) -> None:
    succeed("boxes", "digits", "page.png", "--count", 1, "-o", "x.png")
    ((picture, (mark,), _),) = drawn
    chances = np.exp(page) / np.exp(page).sum(axis=0)
    k, p, q = np.unravel_index(chances[:10].argmax(), chances[:10].shape)
    assert picture.shape == (60, 72, 3)
    assert (mark.top, mark.left, mark.bottom, mark.right) == (4 * p, 4 * q, 4 * p + 32, 4 * q + 32)
    assert mark.text == f"{LABELS[k]} {chances[k, p, q]:.2f}"


def test_boxes_of_a_network_without_windows(page: np.ndarray, drawn: list[tuple[Any, ...]]) -> None:
    """A segmenter's pixel has no window: the box is all that it sees."""
    Image.open("page.png").resize((48, 48)).save("small.png")
    succeed("boxes", "digit_masks", "small.png", "--count", 1, "-o", "x.png")
    ((_, (mark,), _),) = drawn
    assert mark.bottom - mark.top == mark.right - mark.left > 48


def test_windows(page: np.ndarray, drawn: list[tuple[Any, ...]]) -> None:
    succeed("windows", "digits", "page.png", "-o", "x.png")
    succeed("windows", "digits", "page.png", "--class", "7", "-o", "x.png")
    best = int(page[:10].max(axis=(1, 2)).argmax())
    for (_, (slid, dense, difference), _, _, (low, high), _, note), k in zip(drawn, (best, 7), strict=True):
        for panel in (slid, dense):
            np.testing.assert_allclose(panel.scores, page[k], atol=1e-4)
        assert np.abs(difference.scores - low).max() < 1e-4
        assert (low, high) == pytest.approx((page[k].min(), page[k].max()), abs=1e-4)
        assert note == f"class {LABELS[k]}; no layer pads, so that both are equal but for rounding"
    message = fail("windows", "digit_masks", "page.png", "-o", "x.png")
    assert message == "network 'digit_masks': expected a classifier of images of one size"


def test_windows_that_hang_over_the_edge_are_left_out(
    page: np.ndarray, drawn: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With padding the map of 65 pixels has a second row, whose window would need 80."""
    monkeypatch.setitem(NETWORKS, "net", lambda: squeezenet1_1(4, 64))
    Image.open("page.png").resize((97, 65)).convert("RGB").save("wide.png")
    succeed("windows", "net", "wide.png", "-o", "x.png")
    ((_, (slid, dense, difference), _, _, (low, _), _, note),) = drawn
    assert slid.scores.shape == dense.scores.shape == (1, 3)
    np.testing.assert_array_equal(difference.scores, low + np.abs(slid.scores - dense.scores))
    assert difference.scores.max() > low
    assert "11 layers pad" in note


def test_masks_want_a_score_for_each_pixel(page: np.ndarray) -> None:
    message = fail("masks", "digits", "page.png", "--dense", "-o", "x.png")
    assert "expected a score for each pixel of page.png, [60, 72], got [8, 11]" in message


def test_panels_lie_in_full_rows_on_one_scale() -> None:
    image = np.full((20, 30, 3), 200, np.uint8)
    scores = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)
    heated = overlay(image, scores, (10, 10), (4.5, 4.5), 0, 2)
    sizes = []
    for count in (1, 2, 3, 4, 5):
        panels = [Panel(None, "image"), *[Panel(scores, "scores")] * (count - 1)]
        sizes.append(draw_maps(image, panels, (10, 10), (4.5, 4.5), (0, 2), "title", "note").shape[:2])
    assert {width for _, width in sizes[1:]} == {1280}
    (_, two, three, four, five) = (height for height, _ in sizes)
    assert three < two < five < four  # 1x3, 1x2, 2x3 and 2x2 panels
    page = draw_maps(image, [Panel(scores, "a"), Panel(None, "b")], (10, 10), (4.5, 4.5), (0, 2), "title", "note")
    assert np.abs(page.astype(int) - heated[4, 24]).sum(axis=2).min() < 9
    assert np.abs(page.astype(int) - 200).sum(axis=2).min() == 0
