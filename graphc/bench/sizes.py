"""How a network's cost grows with the image: the time of a run from 256x256 pixels to 8192x8192, and a plot of it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from html import escape
from math import log10, prod
from typing import Any

import numpy as np

from graphc.bench.machine import Machine
from graphc.bench.worker import time_runs
from graphc.driver import compile
from graphc.errors import InputError
from graphc.ir import Graph
from graphc.ir.sizes import bind_sizes
from graphc.runtime.network import Network
from graphc.runtime.tiling import parse_bytes

SIDES = (256, 512, 1024, 2048, 4096, 8192)
WIDTH, HEIGHT, MARGIN = 640, 420, 70  # of the plot, in pixels


@dataclass(frozen=True)
class SizeTime:
    """The seconds of a run over a square image, and whether it was cut into tiles."""

    side: int
    seconds: float
    tiled: bool

    @property
    def pixel_time(self) -> float:
        """Nanoseconds for each pixel."""
        return self.seconds / self.side**2 * 1e9


class _Nowhere:
    """An output that is thrown away: what is measured is the network, not the disk."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype

    def __setitem__(self, where: object, values: object) -> None:
        pass


def measure_sizes(
    graph: Graph, threads: int, seconds: float, memory: int | str, tell: Callable[[str], None] = lambda _: None
) -> list[SizeTime]:
    """The time of an image of each of SIDES: whole where that takes no more than `memory`, else in tiles."""
    found = []
    for side in SIDES:
        tell(f"{graph.name}, {side}x{side}")
        # one that is new: what the size before took counts, where tiles are to fit
        found.append(_measure(compile(graph, threads), side, seconds, memory))
    return found


def _measure(network: Network, side: int, seconds: float, memory: int | str) -> SizeTime:
    if len(network.inputs) != 1 or len(network.inputs[0][1].shape) != 4:
        raise InputError(f"network '{network.name}': expected one input [N,C,H,W]")
    (name, type), *_ = network.inputs
    n, c = (d if isinstance(d, int) else 1 for d in type.shape[:2])
    limit = parse_bytes(memory)
    assert limit is not None
    shape, dtype = (n, c, side, side), type.dtype.numpy
    sizes = bind_sizes(network.inputs, [shape])
    pairs = list(zip(network.outputs, network.output_shapes(**sizes), strict=True))
    taken = sum(prod(s) * t.dtype.numpy.itemsize for (_, t), s in [*pairs, (network.inputs[0], shape)])
    tiled = taken + network.workspace_bytes(**sizes) > limit
    row = np.random.default_rng(0).random((1, c, 1, side)).astype(dtype)
    image = np.broadcast_to(row, shape)
    if tiled:
        outs = {output: _Nowhere(s, t.dtype.numpy) for (output, t), s in pairs}
        run: Callable[[], object] = partial(network.tiled, image, outs, limit)
    else:
        run, _ = network.bind({name: np.ascontiguousarray(image)})
    return SizeTime(side, time_runs(run, seconds), tiled)


def fit_exponent(times: Sequence[SizeTime]) -> float:
    """The power of the number of pixels with which time grows: 1 is linear."""
    return float(np.polyfit([log10(t.side**2) for t in times], [log10(t.seconds) for t in times], 1)[0])


def draw_sizes(name: str, machine: Machine, times: Sequence[SizeTime]) -> str:
    """SVG: seconds against pixels, both on logarithmic axes, with the line of a cost that is linear in pixels."""
    pixels, seconds = [t.side**2 for t in times], [t.seconds for t in times]
    typical = float(np.median([t.seconds / t.side**2 for t in times]))
    left, right = log10(pixels[0]) - 0.2, log10(pixels[-1]) + 0.2
    bottom, top = log10(min(seconds)) - 0.4, log10(max(seconds)) + 0.4

    def place(x: float, y: float) -> tuple[float, float]:
        across = (log10(x) - left) / (right - left) * (WIDTH - 2 * MARGIN) + MARGIN
        down = (top - log10(y)) / (top - bottom) * (HEIGHT - 2 * MARGIN) + MARGIN
        return round(across, 1), round(down, 1)

    (x1, y1), (x2, y2) = (place(p, p * typical) for p in (pixels[0], pixels[-1]))
    base = HEIGHT - MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{MARGIN}" y="24" font-size="15">{escape(name)}: seconds against pixels</text>',
        f'<text x="{MARGIN}" y="44">time grows with pixels to the power of {fit_exponent(times):.3f}; the line is '
        f"{typical * 1e9:.1f} ns for each pixel</text>",
        f'<path d="M{MARGIN},{MARGIN}V{base}H{WIDTH - MARGIN}" fill="none" stroke="black"/>',
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#888" stroke-dasharray="5 4"/>',
    ]
    for t in times:
        x, y = place(t.side**2, t.seconds)
        lines += [
            f'<circle cx="{x}" cy="{y}" r="4" fill="{"white" if t.tiled else "#1f5fa8"}" stroke="#1f5fa8"/>',
            f'<text x="{x}" y="{y - 10}" text-anchor="middle">{t.seconds:.3g} s</text>',
            f'<text x="{x}" y="{base + 18}" text-anchor="middle">{t.side}²</text>',
        ]
    lines += [
        f'<text x="{MARGIN}" y="{HEIGHT - 28}">hollow: in tiles</text>',
        f'<text x="{MARGIN}" y="{HEIGHT - 10}" fill="#666">{escape(machine.cpu)}</text>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def sizes_to_json(name: str, times: Sequence[SizeTime]) -> dict[str, Any]:
    """Everything that was measured."""
    return {"network": name, "exponent": fit_exponent(times), "sizes": [asdict(t) for t in times]}
