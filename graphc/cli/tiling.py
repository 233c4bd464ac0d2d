"""`graphc plan`, and `graphc run --tile`: images larger than memory."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphc.cli.output import format_bytes, make_console
from graphc.cli.running import LIBRARY, Reader, Runnable, compile_graph, load_network, place_files
from graphc.errors import InputError
from graphc.images import normalise_image
from graphc.ir import Array, DType, TensorType
from graphc.ir.sizes import bind_sizes
from graphc.runtime.network import Network
from graphc.runtime.tiling import TilePlan, make_tile_plan
from graphc.runtime.windows import TIFF

Size = tuple[int, int] | None
WINDOWED = (".npy", ".zarr", *TIFF)


def run_tiles(
    network: Runnable, reader: Reader, inputs: Sequence[Path], output: Path | None, tile: Size, memory: str
) -> None:
    """Run every input tile by tile, and tell where its results are. Errors: InputError."""
    if not isinstance(network, Network):
        raise InputError("--tile: expected for graphc's own code only")
    if reader.resize:
        raise InputError("--resize: expected without --tile only")
    kind = output.suffix if output and output.suffix in WINDOWED else ".npy"
    places = place_files(inputs, output, kind)
    for path in inputs:
        windowed = path.suffix.lower() in WINDOWED
        files = _place_outputs(network, places[path]) if path in places else {}
        results = network.tiled(
            path if windowed else reader.read(path),
            files or None,
            memory,
            tile,
            _make_pictures(reader) if path.suffix.lower() in TIFF else None,
            progress=True,
        )
        make_console().print(str(path), soft_wrap=True)
        listed = results if isinstance(results, tuple) else (results,)
        for (name, _), result in zip(network.outputs, listed, strict=True):
            type = TensorType(DType.of(np.dtype(result.dtype)), tuple(result.shape))
            make_console().print(f"  {name} {type}", soft_wrap=True)
            if name in files:
                make_console().print(f"  {files[name]}", soft_wrap=True)


def _place_outputs(network: Network, place: Path) -> dict[str, Path]:
    """Where each output is written: one into `place`, several beside it, as y.NAME.npy where `place` is y.npy."""
    names = [name for name, _ in network.outputs]
    return {name: place.with_suffix(f".{name}{place.suffix}") if len(names) > 1 else place for name in names}


def _make_pictures(reader: Reader) -> Callable[[Array], Array]:
    """What turns a window of a picture's numbers into what the network takes: 0 to 1, then normalised."""

    def prepare(window: Array) -> Array:
        if window.dtype.kind == "u":
            window = window.astype(np.float32) / np.float32(np.iinfo(window.dtype).max)
        return normalise_image(window.astype(np.float32, copy=False), reader.mean, reader.std)

    return prepare


def show_plan(
    model: str,
    shapes: Sequence[tuple[int, ...]],
    tile: Size,
    memory: str,
    threads: int | None,
    cpu: str,
    precise: bool,
    **options: Any,
) -> None:
    """Say how images of a shape are cut, the memory that this takes, and the work of a tile."""
    if len(shapes) != 1:
        raise InputError("--shape: expected the shape of the images, such as 1x3x20000x20000")
    if model.endswith(LIBRARY):
        network, count = load_network(model, threads, cpu, precise=precise, **options), None
    else:
        from graphc.cli.loading import load_model
        from graphc.summary import count_multiply_adds

        graph = load_model(model, **options)
        network = compile_graph(graph, threads, cpu, precise)

        def count(sizes: dict[str, int]) -> int:
            return sum(count_multiply_adds(node, sizes) for node in graph.nodes)

    assert isinstance(network, Network)
    plan = make_tile_plan(network, shapes[0], memory, tile, staging=1)  # as a run from a file to a file
    for line in _describe(network, plan, count):
        make_console().print(line, soft_wrap=True)


def _describe(network: Network, plan: TilePlan, count: Callable[[dict[str, int]], int] | None) -> list[str]:
    rows, columns = plan.rule.rows, plan.rule.columns
    # of a strip's tile, the rows that are new
    rows_done = plan.tile[0] if plan.strips else plan.largest[0]
    done = (plan.batch, plan.shape[1], rows_done, plan.largest[1])
    passed = f", rows passed on {format_bytes(plan.carried * len(plan.columns))}" if plan.strips else ""
    lines = [
        f"image   {_by(plan.shape)}",
        f"tiles   {plan.count}: {_by((len(plan.rows), len(plan.columns)))} of {_by(plan.tile)} pixels"
        f"{' in strips' if plan.strips else ''}, which read {_by(plan.largest)}",
        f"rule    multiples of {_by((rows.align, columns.align))}; {_by((rows.before, columns.before))} before and "
        f"{_by((rows.after, columns.after))} behind",
        f"memory  {format_bytes(plan.memory)}: process {format_bytes(plan.resident)}, workspace "
        f"{format_bytes(plan.workspace)}, windows {format_bytes(plan.buffers)}{passed}",
    ]
    work = f"work    {plan.work:.2f} times the image's pixels"
    if count:
        work += f"; {count(bind_sizes(network.inputs, [done])) / 1e9:.2f} billion multiply-adds a tile"
    return [*lines, work]


def _by(numbers: Sequence[int]) -> str:
    return "x".join(map(str, numbers))
