"""What the demonstration has measured, in words and tables for a newcomer, 80 columns wide."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from graphc.demo.checks import ROUNDS, Accuracy, Gain, Layer
from graphc.demo.reading import NEAR, Grid, Reading
from graphc.settings import num_threads
from graphc.summary import Summary


def tell_accuracy(console: Console, accuracy: Accuracy) -> None:
    """What the network is, and how well it names digits."""
    print_heading(console, "1. A classifier of single digits")
    print_text(
        console,
        "The network 'digits' comes with graphc. It is a small LeNet, trained on scanned handwriting: it looks at "
        "32x32 pixels and tells which digit stands in their middle, or that none does. Compiled to machine code, it "
        f"names {accuracy.right} of {accuracy.total} scans right ({accuracy.share:.1%}) that it never saw in training.",
    )


def tell_conversion(console: Console, classifier: Summary, dense: Summary, grid: Grid) -> None:
    """What each layer was, and what it has become."""
    print_heading(console, "2. The same network for images of any size")
    page = format_sizes((dense.sizes["H"], dense.sizes["W"]))
    table = make_table("layer", "for one window", ">result", "for a page", f">result for {page}")
    became = {row.name: row for row in dense.rows}
    for row in classifier.rows:
        new = became.get(row.name)
        after = (new.op, format_sizes(new.shape[1:])) if new else ("gone", "")
        table.add_row(row.name, row.op, format_sizes(row.shape[1:]), *after)
    console.print(table)
    print_text(
        console,
        "fully_convolutional turns the linear layers, which want one size, into convolutions with the same weights. "
        f"The result is a map of scores, with a cell for each {format_sizes(grid.window)} window: one every "
        f"{grid.stride[0]} pixels down and {grid.stride[1]} across, the first centred on row {grid.first[0]}, column "
        f"{grid.first[1]} (pixel 0 is the first).",
    )


def tell_artefact(console: Console, files: Sequence[Path], missing: str | None) -> None:
    """The library, or why there is none."""
    print_heading(console, "3. Ahead of time: a library that needs neither Python nor graphc")
    if missing:
        print_text(console, f"SKIPPED: {missing}.")
        print_text(console, "So the code that was compiled in this process reads the pages.")
        return
    print_text(
        console,
        f"graphc.build has written {' and '.join(path.name for path in files)}: machine code and weights, "
        f"{format_size(files[0])} in all, with an interface for C. It takes images of any height and width; "
        "graphc.runtime.load has loaded it, to read the pages below.",
    )


def tell_readings(console: Console, readings: Sequence[Reading]) -> None:
    """What was found on the pages."""
    print_heading(console, "4. Pages of scanned digits")
    table = make_table("page", ">windows", ">digits", ">found", ">right", ">precision", ">recall")
    for reading in readings:
        page, counts = reading.page, (len(reading.page.labels), len(reading.found), reading.right)
        shares = f"{reading.precision:.1%}", f"{reading.recall:.1%}"
        windows = format_sizes(reading.scores.shape[1:])
        table.add_row(format_sizes(page.image.shape), windows, *map(str, counts), *shares)
    console.print(table)
    print_text(
        console,
        "A digit is found where it is likelier than everything else together. It is right if a digit of its class is "
        f"centred within {NEAR} pixels. Precision is the share of the found digits that are right, recall the share of "
        "the page's digits that are found so.",
    )


def tell_differences(console: Console, readings: Sequence[Reading], differences: Sequence[Mapping[str, float]]) -> None:
    """How far the executors are from float64."""
    print_heading(console, "5. Is it right? All executors against NumPy in float64")
    table = make_table("page", *(f">{name}" for name in differences[0]))
    for reading, found in zip(readings, differences, strict=True):
        table.add_row(format_sizes(reading.page.image.shape), *(f"{difference:.1e}" for difference in found.values()))
    console.print(table)
    print_text(
        console,
        "The largest difference of any score, as a share of the largest score. Rounding one number to float32 costs up "
        "to 6.0e-08. ONNX Runtime, where it is installed, runs digits_dense.onnx, whose height and width are free too.",
    )
    if "ONNX Runtime" not in differences[0]:
        print_text(console, "SKIPPED: ONNX Runtime is not installed (pip install graphc[onnxruntime]).")


def tell_gain(console: Console, gain: Gain, grid: Grid, layers: Sequence[Layer]) -> None:
    """The gain over a sliding window, and why it is not the bound."""
    print_heading(console, "6. One run over the page instead of a sliding window")
    sliding, dense = sum(layer.sliding for layer in layers), sum(layer.dense for layer in layers)
    table = make_table("multiply-adds, in millions", ">sliding window", ">one run", ">gain")
    for layer in (*layers, Layer("all layers", sliding, dense)):
        millions = f"{layer.sliding / 1e6:,.0f}", f"{layer.dense / 1e6:,.0f}"
        table.add_row(layer.name, *millions, f"{layer.sliding / layer.dense:.1f}x")
    table.add_section()
    seconds = f"{gain.sliding_seconds * 1e3:,.1f} ms", f"{gain.dense_seconds * 1e3:,.1f} ms"
    table.add_row(f"time, the median of {ROUNDS}", *seconds, f"{gain.factor:.1f}x")
    table.add_row("bound: (window / stride)²", "", "", f"{grid.overlap}.0x")
    console.print(table)
    print_text(
        console,
        f"On the largest page, the classifier gives the same scores for each of the {gain.windows:,} windows, within "
        f"{gain.difference:.1e} of the largest score, since no layer pads. A pixel lies in {grid.overlap} windows, so "
        f"one run can save {grid.overlap}x at most. The first layer comes near. But the later a layer, the more of its "
        "window a value depends on, and the fewer windows can share it; fc1 depends on all of its window, and shares "
        f"nothing. Over all layers, that makes {sliding / dense:.1f}x. The rest is speed: with {num_threads()} "
        f"threads, a multiply-add takes {gain.sliding_seconds / sliding * 1e12:.0f} ps in small windows and "
        f"{gain.dense_seconds / dense * 1e12:.0f} ps in a page.",
    )


def tell_files(console: Console, files: Sequence[Path]) -> None:
    """What has been written, where."""
    print_heading(console, "Written")
    here = Path.cwd()
    for path in map(Path.absolute, files):
        shown = path.relative_to(here) if path.is_relative_to(here) else path
        console.print(f"{format_size(path):>11}  {shown}", soft_wrap=True, markup=False, highlight=False)
    print_text(
        console,
        "page_*.png is a page as it was read, page_*_heat.png the chance that a digit is there, window by window, and "
        "page_*_found.png the page under that, with the digits that were found.",
    )


def print_heading(console: Console, text: str) -> None:
    """A bold line, after an empty one."""
    console.print(f"\n{text}", style="bold", markup=False, highlight=False)


def print_text(console: Console, text: str) -> None:
    """A paragraph, in lines of 80 columns at most."""
    console.print(text, width=min(80, console.width), markup=False, highlight=False)


def make_table(*columns: str) -> Table:
    """An empty table; columns whose heading begins with > are flush right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column[0] == ">" else "left", no_wrap=True)
    return table


def format_sizes(sizes: Sequence[int]) -> str:
    """(480, 640) as 480x640."""
    return "x".join(map(str, sizes))


def format_size(path: Path) -> str:
    """The file's size in KiB."""
    return f"{path.stat().st_size / 1024:,.1f} KiB"
