"""The demonstration: its numbers, its files, and what it does without the things that it can do without."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from graphc import demo
from graphc.demo.checks import Layer, compare, count_layers, cut_windows, find_missing_compiler
from graphc.demo.reading import OUTSIDE, Grid, count_right, find_grid, place_cells
from graphc.errors import FileError, GraphcError
from graphc.models import digits, pages
from graphc.models.pages import Page
from graphc.passes import fully_convolutional
from graphc.pictures import Detection
from graphc.summary import summarize

GRID = Grid((32, 32), (4, 4), (15.5, 15.5))


def record_console() -> Console:
    return Console(file=io.StringIO(), width=80, record=True)


def image_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[demo.Results, str]:
    """The results of the whole demonstration, and what it printed."""
    if missing := find_missing_compiler():
        pytest.skip(missing)
    console = record_console()
    results = demo.run_demo(tmp_path_factory.mktemp("demo") / "new" / "folder", console)
    return results, console.export_text()


def test_numbers(run: tuple[demo.Results, str]) -> None:
    results, _ = run
    assert results.accuracy.total == 364 and results.accuracy.share >= 0.97
    assert [reading.page.image.shape for reading in results.readings] == list(demo.SIZES)
    for reading in results.readings:
        assert reading.precision > 0.9 and reading.recall > 0.9
    for differences in results.differences:
        assert {"in process", "artefact"} <= differences.keys()
        assert max(differences.values()) < 1e-5
        assert differences["in process"] == differences["artefact"]  # the same code
    assert results.gain.windows == 113 * 153
    assert results.gain.difference < 1e-5
    assert results.gain.factor == results.gain.sliding_seconds / results.gain.dense_seconds > 0


def test_files(run: tuple[demo.Results, str]) -> None:
    results, _ = run
    folder = results.files[0].parent
    assert sorted(folder.iterdir()) == sorted(results.files)
    assert {"digits.so", "digits.h", "digits_dense.onnx"} <= {path.name for path in results.files}
    for height, width in demo.SIZES:
        stem = f"page_{height}x{width}"
        page, heat, found = (image_size(folder / f"{stem}{kind}.png") for kind in ("", "_heat", "_found"))
        assert page == (width, height)
        assert heat == found
        assert heat[0] * height == heat[1] * width  # the page, magnified


def test_text_fits_80_columns(run: tuple[demo.Results, str]) -> None:
    results, text = run
    report, written = text.split("\nWritten\n")
    assert max(map(len, report.splitlines())) <= 80
    assert "…" not in report  # what a table does to a column that does not fit
    assert "SKIPPED" not in report
    for path in results.files:
        assert any(line.endswith(f"  {path}") for line in written.splitlines())


def test_without_compiler_and_onnxruntime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "SIZES", ((64, 80),))
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.chdir(tmp_path)
    console = record_console()
    results = demo.run_demo(Path("out"), console)
    text = console.export_text()
    assert results.differences[0].keys() == {"in process"}
    assert {path.suffix for path in results.files} == {".onnx", ".png"}
    assert "SKIPPED: CC: expected a C compiler, got 'no-such-compiler'" in text
    assert "SKIPPED: ONNX Runtime is not installed" in text
    assert "  out/digits_dense.onnx\n" in text  # from the current folder on


def test_missing_compiler_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    assert "install gcc or clang" in (find_missing_compiler() or "")


def test_without_scikit_learn_nothing_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pages.load_scans.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(GraphcError, match=r"install graphc\[data\]"):
        demo.run_demo(tmp_path / "demo", record_console())
    assert not (tmp_path / "demo").exists()


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="file/demo: cannot be a folder"):
        demo.run_demo(tmp_path / "file" / "demo", record_console())


def test_compare_finds_a_wrong_executor() -> None:
    page = pages.compose_page(40, 44, 0)
    dense = fully_convolutional(digits())
    (difference,) = compare(dense, {"zero": lambda x: np.zeros((1, 11, 3, 4), np.float32)}, page).values()
    assert difference == 1


def test_grid_comes_from_the_graph() -> None:
    grid = find_grid(fully_convolutional(digits()))
    assert grid == GRID
    assert grid.overlap == 64


def test_layers_count_the_work_of_both_ways() -> None:
    graph = digits()
    sizes = {"N": 1, "H": 36, "W": 40}  # 2 x 3 windows
    layers = count_layers(summarize(graph, {"N": 1}), summarize(fully_convolutional(graph), sizes), 6)
    assert layers == [
        Layer("conv1", 6 * 28 * 28 * 25 * 8, 32 * 36 * 25 * 8),
        Layer("conv2", 6 * 10 * 10 * 8 * 25 * 24, 12 * 14 * 8 * 25 * 24),
        Layer("fc1", 6 * 600 * 64, 6 * 600 * 64),
        Layer("fc2", 6 * 64 * 11, 6 * 64 * 11),
    ]


def test_windows_start_at_every_stride() -> None:
    page = pages.compose_page(39, 45, 0)
    windows = cut_windows(page, GRID)
    assert windows.shape == (2, 4, 1, 32, 32)
    np.testing.assert_array_equal(windows[1, 2, 0], page.image[4:36, 8:40])


def test_cells_lie_around_their_windows_centres() -> None:
    cells = np.zeros((2, 3, 3), np.uint8)
    cells[1, 2] = 255
    picture = place_cells(cells, (38, 43), GRID)
    rows, columns = np.nonzero((picture == 255).all(axis=2))
    # The window from (4, 8) on is centred on (19.5, 23.5): pixels 18 to 21 and 22 to 25 lie around that.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (18, 21, 22, 25)
    rows, columns = np.nonzero((picture != OUTSIDE).all(axis=2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (14, 21, 14, 25)


def test_a_digit_counts_once_and_only_near_and_by_its_class() -> None:
    boxes = np.array([[10, 10, 30, 26], [60, 60, 80, 74]])  # centred on (19.5, 17.5) and (69.5, 66.5)
    page = Page(np.zeros((96, 96), np.float32), boxes, np.array([3, 7]), np.full((96, 96), 10))
    three, seven = Detection(3, 0.9, 1, 1), Detection(7, 0.9, 13, 13)  # centred on (19.5, 19.5) and (67.5, 67.5)
    assert count_right([three, seven], page, GRID) == 2
    assert count_right([three, three], page, GRID) == 1
    assert count_right([Detection(7, 0.9, 1, 1)], page, GRID) == 0
    assert count_right([Detection(3, 0.9, 3, 1)], page, GRID) == 0  # 8 pixels below
    assert count_right([], page, GRID) == 0
