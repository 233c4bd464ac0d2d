"""Measurements as a table on the terminal and as JSON."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from graphc.bench.figures import Comparison, mean_ratios
from graphc.bench.machine import Machine

RATIO = "÷ graphc"


def print_comparisons(machine: Machine, comparisons: Sequence[Comparison], console: Console) -> None:
    """Write the machine, a row for each runtime, the geometric means, and what was left out and why."""
    console.print(str(machine))
    console.print(_tabulate(comparisons))
    for name, (ratio, count) in mean_ratios(comparisons).items():
        networks = "comparison" if count == 1 else "comparisons"
        console.print(f"{name} ÷ graphc, time, geometric mean of {count} {networks}: {ratio:.2f}")
    for line in list_left_out(comparisons):
        console.print(line)


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
    for heading in ("ms", "± ms", RATIO, "error", "peak MB"):
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
