"""What the commands do, but for `run`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

from graphc.artefact import build
from graphc.cli.loading import find_sizes, load_model
from graphc.cli.output import format_bytes, make_console, show_progress
from graphc.diagram import make_diagram
from graphc.drawing import draw_dot, draw_svg
from graphc.errors import InputError
from graphc.files import replace_file
from graphc.ir import Graph
from graphc.onnx import export_onnx
from graphc.passes import optimize
from graphc.summary import print_summary, summarize
from graphc.verify import verify

__all__ = [
    "compile_network",
    "draw_network",
    "export_network",
    "load_model",
    "show_demo",
    "show_summary",
    "verify_network",
]


def compile_network(
    graph: Graph,
    folder: Path,
    emit: tuple[str, ...],
    name: str | None,
    weights: Literal["embed", "file"],
    cpu: str,
    precise: bool,
    tune: bool,
    shapes: Sequence[tuple[int, ...]],
) -> None:
    """Write the artefacts and list them."""
    if shapes and not tune:
        raise InputError("--shape: expected together with --tune only; the code takes every size")
    sizes = find_sizes(graph, shapes) if tune else False
    with show_progress(f"compiling {graph.name}"):
        files = build(graph, folder, emit, name=name, cpu=cpu, weights=weights, precise=precise, tune=sizes)
    for path in files.values():
        click.echo(f"{path}  {format_bytes(path.stat().st_size)}")


def export_network(graph: Graph, path: Path, opset: int, fp16: bool) -> None:
    """Write an ONNX file, and list it; with more than 2 GiB of parameters also the one beside it that holds them."""
    with show_progress(f"exporting {graph.name}"):
        files = export_onnx(graph, path, opset, fp16=fp16)
    for file in files:
        click.echo(f"{file}  {format_bytes(file.stat().st_size)}")


def show_summary(graph: Graph, shapes: Sequence[tuple[int, ...]], as_json: bool) -> None:
    """Print the summary, as a table or as JSON."""
    summary = summarize(graph, find_sizes(graph, shapes))
    if as_json:
        click.echo(json.dumps(summary.to_json(), indent=2))
    else:
        print_summary(summary, make_console())


def verify_network(
    graph: Graph,
    shapes: Sequence[tuple[int, ...]],
    seed: int,
    tolerance: float,
    threads: int | None,
    cpu: str,
    provider: str,
) -> bool:
    """Print a line for each executor; whether all of them are right."""
    with show_progress(f"verifying {graph.name}"):
        comparisons = verify(graph, find_sizes(graph, shapes), seed, threads, cpu, tolerance, provider=provider)
    for c in comparisons:
        verdict = f"wrong from {c.first_wrong} on" if c.first_wrong else "right"
        told = f"skipped: {c.skipped}" if c.skipped else f"largest difference {c.difference:.1e}, {verdict}"
        click.echo(f"{c.executor:11}  {told}")
    return not any(c.first_wrong for c in comparisons)


def draw_network(graph: Graph, path: Path, optimized: bool, every_op: bool) -> None:
    """Write a drawing."""
    if path.suffix not in (".svg", ".dot"):
        raise InputError(f"{path}: expected a file that ends in .svg or .dot")
    boxes, edges = make_diagram(optimize(graph) if optimized else graph, grouped=not every_op)
    text = draw_svg(boxes, edges, graph.name) if path.suffix == ".svg" else draw_dot(boxes, edges, graph.name)
    with replace_file(path) as file:
        file.write(text.encode())
    click.echo(f"{path}  {len(boxes)} boxes")


def show_demo(folder: Path) -> None:
    """Run the demo."""
    from graphc.demo import run_demo  # it wants what only the demo needs

    run_demo(folder, make_console())
