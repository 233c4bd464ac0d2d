"""What a network is, layer by layer: shapes, parameters, multiply-adds, units and connections, memory, geometry."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from math import prod
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from graphc import ops
from graphc.codegen.plan import make_plan
from graphc.codegen.target import make_target
from graphc.errors import InputError
from graphc.geometry import Geometry, find_geometry
from graphc.ir import Graph, Node, Value, dims
from graphc.passes import find_windows, optimize
from graphc.passes.windows import Part, Windows
from graphc.reference import check_sizes

SIDE = 224  # pixels: the height and width shown where the network leaves them open, the usual ones for classifiers
ANY_WIDTH = 10_000  # columns: more than any table takes


@dataclass(frozen=True)
class Row:
    """One node. Its `units` are the elements of its results, a connection is one input, or bias, of one unit.

    Nodes that treat each element by itself, or only move elements, are no layers of their own: they have neither.
    Connections that lie in padding count too. `shape`, `geometry` and `part` are those of the first result; `part` are
    the rows and columns that a window of a dense classifier has in it.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    units: int
    connections: int
    geometry: Geometry | None
    part: tuple[Part, Part] | None = None


@dataclass(frozen=True)
class Summary:
    """A network at given sizes. `workspace_bytes` is what the compiled network takes beside inputs, outputs, weights.

    `parameters` counts what training changes, `parameter_bytes` statistics and constants too.
    """

    name: str
    sizes: Mapping[str, int]
    rows: tuple[Row, ...]
    parameters: int
    parameter_bytes: int
    workspace_bytes: int
    geometry: Geometry | None
    windows: Windows | None = None

    @property
    def multiply_adds(self) -> int:
        """Of the whole network."""
        return sum(row.multiply_adds for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """All of it as numbers, texts, lists and dicts; geometries in pixels, rows before columns."""
        rows = [asdict(row) | {"geometry": _geometry_to_json(row.geometry)} for row in self.rows]
        return {
            **asdict(self),
            "multiply_adds": self.multiply_adds,
            "rows": rows,
            "geometry": _geometry_to_json(self.geometry),
            "windows": self.windows and {k: v for k, v in asdict(self.windows).items() if k != "parts"},
        }


def default_sizes(graph: Graph) -> dict[str, int]:
    """One image of 224x224 where the network leaves the sizes open; any other open dim is 1."""
    image = {d: SIDE for v in graph.inputs if v.type.rank == 4 for d in v.type.shape[2:]}
    return {s: image.get(dims.symbol(s), 1) for s in graph.symbols}


def summarize(graph: Graph, sizes: Mapping[str, int] | None = None, cpu: str = "native") -> Summary:
    """Count everything at these sizes, `default_sizes` for those that are not given."""
    unknown = set(sizes or {}) - set(graph.symbols)
    if unknown:
        open_sizes = ", ".join(graph.symbols) or "none"
        raise InputError(f"network '{graph.name}': expected sizes for {open_sizes}, got {', '.join(sorted(unknown))}")
    chosen = default_sizes(graph) | dict(sizes or {})
    check_sizes(graph, chosen)
    places = find_geometry(graph)
    windows = find_windows(graph)
    counted: set[str] = set()  # a parameter that several nodes share belongs to the first
    rows = tuple(_row(graph, node, chosen, places.get(node.outputs[0]), windows, counted) for node in graph.nodes)
    plan = make_plan(optimize(graph), make_target(cpu))
    elements = {name: prod(p.value.type.static_shape()) for name, p in graph.params.items()}
    return Summary(
        graph.name,
        chosen,
        rows,
        sum(n for name, n in elements.items() if graph.params[name].trainable),
        sum(n * graph.params[name].value.type.dtype.size for name, n in elements.items()),
        plan.peak_bytes(chosen),
        places.get(graph.outputs[0]),
        windows,
    )


def count_multiply_adds(node: Node, sizes: Mapping[str, int]) -> int:
    """How many products with weights a node adds up."""
    inputs, outputs = (_shapes(values, sizes) for values in (node.inputs, node.outputs))
    connections, _, multiplies = _count_connections(node, inputs, prod(outputs[0]))
    return connections if multiplies else 0


def _shapes(values: Sequence[Value], sizes: Mapping[str, int]) -> list[tuple[int, ...]]:
    return [tuple(dims.evaluate(d, sizes) for d in v.type.shape) for v in values]


def _row(
    graph: Graph,
    node: Node,
    sizes: Mapping[str, int],
    place: Geometry | None,
    windows: Windows | None,
    counted: set[str],
) -> Row:
    shape, *_ = shapes = _shapes(node.outputs, sizes)
    own = [v for v in node.inputs if v in graph.constants and graph.constants[v].trainable and v.name not in counted]
    counted.update(v.name for v in own)
    parameters = sum(prod(v.type.static_shape()) for v in own)
    connections, biases, _ = _count_connections(node, _shapes(node.inputs, sizes), prod(shape))
    return Row(
        node.name,
        node.op.name,
        shape,
        parameters,
        count_multiply_adds(node, sizes),
        sum(map(prod, shapes)) if connections else 0,
        connections + biases,
        place,
        windows.parts.get(node.outputs[0].name) if windows else None,
    )


def _count_connections(node: Node, inputs: list[tuple[int, ...]], units: int) -> tuple[int, int, bool]:
    """Connections with inputs, connections with biases, and whether the former are multiplied by weights."""
    match node.op:
        case ops.Conv2d(bias=bias) | ops.LocallyConnected2d(bias=bias):
            return units * prod(inputs[1][1:4]), units * bias, True
        case ops.Conv2dWeightGradient(kernel=kernel, groups=groups):  # each of x's channels with each of a group
            return prod(inputs[1]) * inputs[0][1] // groups * prod(kernel), 0, True
        case ops.ConvTranspose2d(bias=bias):
            return prod(inputs[0]) * prod(inputs[1][1:]), units * bias, True
        case ops.Linear(bias=bias):
            return units * inputs[1][1], units * bias, True
        case ops.MatMul(turn_a=turn_a):
            return units * inputs[0][-2 if turn_a else -1], 0, True
        case ops.MaxPool() | ops.MinPool() | ops.MaxPoolWithIndices() | ops.AveragePool() | ops.L2Pool():
            return units * prod(node.op.kernel), 0, False
        case ops.ChannelL2Pool():
            return units * node.op.size, 0, False
        case ops.GlobalAveragePool() | ops.GlobalMaxPool():
            return prod(inputs[0]), 0, False
    return 0, 0, False


def print_summary(summary: Summary, console: Console) -> None:
    """Write the table and the totals. A narrow terminal gets no units and connections, and long names are folded."""
    table = _tabulate(summary, ("parameters", "multiply_adds", "units", "connections"))
    if console.measure(table, options=console.options.update(width=ANY_WIDTH)).maximum > console.width:
        table = _tabulate(summary, ("parameters", "multiply_adds"))
    console.print(table)
    console.print(f"weights {_bytes(summary.parameter_bytes)}, workspace of a run {_bytes(summary.workspace_bytes)}")
    if (g := summary.geometry) is None:
        console.print("each output sees the whole image")
    else:
        console.print(
            f"each output pixel sees {_pair(g.rows.field, g.columns.field)} pixels, the next one those "
            f"{_pair(g.rows.stride, g.columns.stride)} further; the first is centred on row "
            f"{_number(g.rows.centre)}, column {_number(g.columns.centre)}"
        )
    for line in describe_windows(summary.windows) if summary.windows else ():
        console.print(line)


def describe_windows(windows: Windows) -> list[str]:
    """Which window each element of a dense map is about, whether it is what the classifier says, and if not, where."""
    (height, width), (down, right), (p, q) = windows.size, windows.stride, windows.map
    which = "output pixel (p, q)" if (p, q) == (1, 1) else f"the {p}x{q} output pixels from (p, q) on"
    verb = "is" if (p, q) == (1, 1) else "are"
    about = f"{which} {verb} about the window of {height}x{width} pixels from row {down}p, column {right}q on"
    if not windows.padded:
        return [about, "exact: no layer pads, so that is what the classifier gives for that window alone"]
    count = len(windows.padded)
    layers = f"layer '{windows.padded[0]}' pads" if count == 1 else f"{count} layers pad, first '{windows.padded[0]}'"
    top, left, bottom, more = windows.beyond
    return [
        about,
        f"not exact in an image larger than a window: {layers}; there a window sees its neighbours where the "
        'classifier saw padding. "same" counts, of the rows and columns that a window has in a layer, those that see '
        "no padding: these are the classifier's, those around them are not",
        f"at the image's own edges the padding is the classifier's: the first {top} rows, {left} columns and the last "
        f"{bottom} rows, {more} columns of output pixels see it",
    ]


def _tabulate(summary: Summary, counts: Sequence[str]) -> Table:
    """The table of the rows with these of their counts, each with its total."""
    sizes = ", ".join(f"{k}={v}" for k, v in summary.sizes.items())
    title = Text(f"{summary.name} at {sizes}" if sizes else summary.name, "bold")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("layer (op)", overflow="fold", min_width=10)
    padded = summary.windows is not None and bool(summary.windows.padded)
    for heading in ("output shape", *counts, "sees", *(["same"] if padded else [])):
        table.add_column(heading.replace("_", "-"), justify="right", no_wrap=True)
    for row in summary.rows:
        shape = "x".join(map(str, row.shape)) or "scalar"
        numbers = [f"{n:,}" if (n := getattr(row, count)) else "-" for count in counts]
        sees = "all" if row.geometry is None else _pair(row.geometry.rows.field, row.geometry.columns.field)
        same = [_same(row.part)] if padded else []
        table.add_row(Text(f"{row.name} ({row.op})"), shape, *numbers, sees, *same)
    table.add_section()
    totals = [sum(getattr(row, count) for row in summary.rows) for count in counts]
    table.add_row("total", "", *(f"{n:,}" for n in totals), "")
    return table


def _same(part: tuple[Part, Part] | None) -> str:
    """The rows and columns that are the classifier's, of how many, such as 1-110 of 112; once where they are alike."""
    if part is None:
        return "-"
    texts = ["none" if p.first == p.last else f"{p.first}-{p.last - 1}" for p in part]
    counts = [str(p.count) for p in part]
    if part[0] == part[1]:
        texts, counts = texts[:1], counts[:1]
    return "all" if all(p.whole for p in part) else f"{'x'.join(texts)} of {'x'.join(counts)}"


def _geometry_to_json(g: Geometry | None) -> dict[str, list[float]] | None:
    if g is None:
        return None
    return {
        "field": [float(g.rows.field), float(g.columns.field)],
        "stride": [float(g.rows.stride), float(g.columns.stride)],
        "first_centre": [float(g.rows.centre), float(g.columns.centre)],
    }


def _pair(rows: Fraction, columns: Fraction) -> str:
    return f"{_number(rows)}x{_number(columns)}"


def _number(x: Fraction) -> str:
    return f"{float(x):g}"


def _bytes(n: int) -> str:
    return f"{n / 2**20:.1f} MiB" if n >= 2**20 else f"{n / 2**10:.1f} KiB"
