"""Measurements as a table on the terminal and as JSON."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from graphc.bench.dense import DenseComparison
from graphc.bench.figures import Comparison, mean_ratios
from graphc.bench.machine import Machine
from graphc.bench.profile import Profile


def print_comparisons(machine: Machine, comparisons: Sequence[Comparison], console: Console) -> None:
    """Write the machine, a row for each runtime, the geometric means, and what was left out and why."""
    console.print(str(machine))
    console.print(_tabulate(comparisons))
    for name, (ratio, count) in mean_ratios(comparisons).items():
        networks = "comparison" if count == 1 else "comparisons"
        console.print(f"{name} ÷ graphc, time, geometric mean of {count} {networks}: {ratio:.2f}")
    for line in list_left_out(comparisons):
        console.print(line)


def print_dense(machine: Machine, comparisons: Sequence[DenseComparison], console: Console) -> None:
    """Write the machine, a row for each comparison, and lines that say what was timed and what keeps a gain lower."""
    console.print(str(machine))
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("network", "image", "threads", "window", "stride", "scores"):
        table.add_column(heading, no_wrap=True)
    for heading in ("dense, ms", "window, ms", "gain", "(window/stride)²", "%", "in work", "%", "peak MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for c in comparisons:
        table.add_row(
            c.network, _pair(c.image), str(c.threads), _pair(c.window), _pair(c.stride), _pair(c.scores),
            f"{median(c.dense_seconds) * 1e3:.3f}", f"{median(c.window_seconds) * 1e3:.4f}", f"{c.gain:.1f}",
            f"{c.bound:.1f}", f"{c.gain / c.bound:.0%}", f"{c.work:.1f}", f"{c.gain / c.work:.0%}",
            f"{c.peak_bytes / 1e6:.0f}",
        )  # fmt: skip
    console.print(table)
    console.print(
        "gain: the time of all windows ÷ that of one dense run. (window/stride)²: if all layers of all windows had "
        "their pixels in common. in work: multiply-adds of all windows ÷ those of the dense run, the gain if each took "
        "equally long"
    )
    for c in comparisons:
        for line in describe_dense(c):
            console.print(f"{c.network}, {_pair(c.image)}, threads {c.threads}: {line}")


def describe_dense(c: DenseComparison) -> list[str]:
    """What was timed of the windows, and why there is less work to save than the bound says."""
    p, q = c.scores
    how = "one alone" if c.timed == 1 else f"{c.timed} of them in one run, which is faster than one by one"
    lines = [f"{p * q} windows; timed was {how}"]
    if c.covered < 0.99:
        lines.append(f"no window hangs over the edges of the image, which leaves {c.covered:.0%} of the bound")
    if c.once_layers:
        lines.append(
            f"{c.once:.0%} of the dense run's multiply-adds are those of {', '.join(c.once_layers)}, which have one "
            "pixel for each score, so that windows have nothing of them in common"
        )
    whole, one = c.workspace_bytes
    if whole > c.cache_bytes > one:
        lines.append(
            f"the dense run's maps take {whole / 1e6:.0f} MB and go through memory; a window's, {one / 1e6:.2g} MB, "
            f"stay in the cache of {c.cache_bytes / 1e6:.0f} MB"
        )
    kept = f"{c.compared} scores differ by up to {c.difference:.1e} of the largest from the windows'"
    return [*lines, f"{kept}, which see padding for neighbours in {c.padded} layers" if c.padded else kept]


def _pair(pair: tuple[int, int]) -> str:
    return f"{pair[0]}x{pair[1]}"


def list_left_out(comparisons: Sequence[Comparison]) -> list[str]:
    """A line for each runtime and reason, with the networks that it was left out of, unless that is all."""
    networks: dict[tuple[str, str], list[str]] = {}
    for c in comparisons:
        for left_out in c.left_out.items():
            networks.setdefault(left_out, []).append(c.network)
    everywhere = {c.network for c in comparisons}
    lines = []
    for (peer, reason), where in networks.items():
        of = "" if set(where) == everywhere else f" of {', '.join(dict.fromkeys(where))}"
        lines.append(f"left out{of}: {peer}: {reason}")
    return lines


def _tabulate(comparisons: Sequence[Comparison]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("network", "input", "threads", "runtime"):
        table.add_column(heading, no_wrap=True)
    for heading in ("ms", "± ms", "÷ graphc", "error", "peak MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for c in comparisons:
        head = [c.network, format_shapes(c.shapes), str(c.threads)]
        for i, m in enumerate(c.measurements):
            table.add_row(
                *(head if i == 0 else ("", "", "")),
                m.runtime,
                f"{m.median * 1e3:.3f}",
                f"{m.median * m.spread * 1e3:.3f}",
                f"{c.ratio(m):.2f}" if i else "",
                f"{m.error:.1e}",
                f"{m.peak_bytes / 1e6:.0f}",
            )
        table.add_section()
    return table


def print_profile(profile: Profile, console: Console) -> None:
    """Write a row for each step, their sums for each kernel, the total and what it is of a whole run."""
    limits, whole = profile.limits, profile.row_seconds
    bandwidth = ", ".join(f"{level} {b / 1e9:.0f} GB/s" for level, b in limits.bandwidth.items())
    console.print(
        f"{profile.network}, {format_shapes(profile.shapes)}, threads {limits.threads}; at most "
        f"{limits.flops / 1e9:.0f} GFLOP/s, {bandwidth}"
    )
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("step", overflow="fold")
    table.add_column("kernel", overflow="fold")
    for heading in ("ms", "share %", "GFLOP/s", "GB/s", "% of limit", "limit"):
        table.add_column(heading, justify="left" if heading == "limit" else "right", no_wrap=True)
    table.add_column("why this kernel", overflow="fold")
    for s in profile.steps:
        table.add_row(
            s.node,
            s.kernel,
            f"{s.seconds * 1e3:.4f}",
            f"{s.seconds / whole * 100:.1f}",
            f"{s.flops / s.seconds / 1e9:.1f}" if s.flops else "-",
            f"{s.moved / s.seconds / 1e9:.1f}",
            f"{s.least_seconds / s.seconds * 100:.0f}",
            s.limit,
            s.reason,
        )
    table.add_row("(the call)", "", f"{profile.call_seconds * 1e3:.4f}", f"{profile.call_seconds / whole * 100:.1f}")
    console.print(table)
    table = Table("kernel", box=box.SIMPLE_HEAD)
    for heading in ("steps", "ms", "share %"):
        table.add_column(heading, justify="right", no_wrap=True)
    for kernel, (count, seconds) in profile.by_kernel().items():
        table.add_row(kernel, str(count), f"{seconds * 1e3:.4f}", f"{seconds / whole * 100:.1f}")
    console.print(table)
    console.print(
        f"all rows {whole * 1e3:.4f} ms, {whole / profile.run_seconds:.1%} of a call without time stamps, "
        f"{profile.run_seconds * 1e3:.4f} ms"
    )


def format_shapes(shapes: Sequence[Sequence[int]]) -> str:
    """1x3x224x224, with commas between those of several inputs."""
    return ", ".join("x".join(map(str, shape)) for shape in shapes)


def to_json(machine: Machine, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Everything that was measured; times in seconds, memory in bytes, errors as a share of the largest output."""
    return {
        "machine": machine.to_json(),
        "comparisons": [c.to_json() for c in comparisons],
        "geometric_means": {n: {"ratio": r, "comparisons": k} for n, (r, k) in mean_ratios(comparisons).items()},
    }
