"""Tiles: which parts of an image are run one after another, what each must read, and the memory that this takes.

A tile stands alone, and reads as much around its core as its results depend on; or it is one of a strip, a column of
tiles that pass rows on from the top of the image to its bottom (graphc/strips.py), and computes what the one above it
has not.

The rule of a network, which graphc/halos.py derives from its graph, stands in the metadata of the compiled network, so
that a library tiles without the compiler.
"""

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, prod
from mmap import PAGESIZE
from typing import TYPE_CHECKING

from graphc.errors import InputError, UnsupportedError
from graphc.ir.sizes import bind_sizes

if TYPE_CHECKING:
    from graphc.runtime.network import Network

META_KEY = "tiling"
Span = tuple[int, int]  # from, and up to but without
CONTINUES, CONTINUED = 1, 2  # what a tile of a strip does with the one before it, and what the next one does with it
# What Python, NumPy and the libraries that read and write take beside the buffers that are counted
SLACK = 24 << 20
AGAIN = 8 << 20  # by which a run that is taken up again may expect to exceed the limit, within the slack
# Of a run's time, what a tile of a strip takes for the rows that it sees once more: they are read, copied, and what is
# computed pixel by pixel is computed for them (the U-Net of the digits, 160 rows more than 416 or 96: 0.06 to 0.1)
SEEN_AGAIN = 0.08


@dataclass(frozen=True)
class AxisRule:
    """Along one axis of the image: tiles begin at multiples of `align`, and see `before` and `after` pixels more.

    The network takes no tile of less than `least` pixels.
    """

    align: int
    before: int
    after: int
    least: int

    def cover(self, core: Span, size: int) -> Span:
        """What a tile reads for the results of `core`, in an image of `size`."""
        end = max(core[1] + self.after, self.least)
        end = size - max(size - end, 0) // self.align * self.align  # each end leaves the same remainder
        begin = max(min(core[0] - self.before, end - self.least), 0)
        return begin // self.align * self.align, end

    def cut(self, size: int, length: int) -> list[Span]:
        """The image's cores of `length`, a multiple of `align`; less than `align` at the end goes to the last one."""
        begins = range(0, max(size - self.align, 0) + 1, length)
        return [(i, j) for i, j in zip(begins, [*begins[1:], size], strict=True)]


@dataclass(frozen=True)
class StripRule:
    """A tile of a strip sees `overlap` pixels of the one above; each output is so many rows `late` at a tile's end."""

    overlap: int
    late: Mapping[str, int]


@dataclass(frozen=True)
class TileRule:
    """How a network's images may be cut; `strides` are those of each output's rows and columns, in pixels.

    Without a rule for `strips`, every tile stands alone.
    """

    rows: AxisRule
    columns: AxisRule
    strides: Mapping[str, tuple[Fraction, Fraction]]
    strips: StripRule | None = None

    def to_json(self) -> str:
        """For the metadata of a compiled network."""
        axes = [[a.align, a.before, a.after, a.least] for a in (self.rows, self.columns)]
        strips = [self.strips.overlap, dict(self.strips.late)] if self.strips else None
        strides = {k: [str(x) for x in v] for k, v in self.strides.items()}
        return json.dumps({"axes": axes, "strides": strides, "strips": strips})


def refuse(reason: str) -> str:
    """The metadata of a network whose images cannot be cut."""
    return json.dumps({"refused": reason})


def read_rule(name: str, meta: Mapping[str, str]) -> TileRule:
    """The rule in a network's metadata. Errors: UnsupportedError if its images cannot be cut."""
    if META_KEY not in meta:
        raise UnsupportedError(f"network '{name}' cannot be tiled: it was compiled without a rule; compile it again")
    found = json.loads(meta[META_KEY])
    if "refused" in found:
        raise UnsupportedError(f"network '{name}' cannot be tiled: {found['refused']}")
    rows, columns = (AxisRule(*axis) for axis in found["axes"])
    strides = {k: (Fraction(v[0]), Fraction(v[1])) for k, v in found["strides"].items()}
    return TileRule(rows, columns, strides, StripRule(*found["strips"]) if found["strips"] else None)


@dataclass(frozen=True)
class Tile:
    """A part of some images: its results are those of the pixels `rows` x `columns`; it reads `seen`, which is more.

    `part` of one of a strip is CONTINUES, CONTINUED, their sum or 0; it is None for a tile that stands alone.
    """

    images: Span
    rows: Span
    columns: Span
    seen: tuple[Span, Span]
    part: int | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """N, and the height and width of what is read."""
        return length(self.images), length(self.seen[0]), length(self.seen[1])

    def results(self, strides: tuple[Fraction, Fraction], shape: Sequence[int], sizes: Span, late: int = 0) -> "Place":
        """Where its part of an output [N,K,P,Q] lies there, and in what the tile's run returns.

        `sizes` are the image's height and width; in a strip, the rows come `late`.
        """
        target, source = [], []
        axes = zip((self.rows, self.columns), self.seen, strides, shape[2:], sizes, (late, 0), strict=True)
        for core, seen, stride, extent, size, behind in axes:
            begin = int(core[0] / stride) - (behind if core[0] else 0)
            end = extent if core[1] == size else min(int(core[1] / stride) - behind, extent)
            skipped = begin - int(seen[0] / stride)
            target.append((min(begin, end), end))
            source.append((skipped, skipped + max(end - begin, 0)))
        return Place(self.images, (target[0], target[1]), (source[0], source[1]))


@dataclass(frozen=True)
class Place:
    """Rows and columns of an output's `images`, and the same ones in what a tile's run returns."""

    images: Span
    target: tuple[Span, Span]
    source: tuple[Span, Span]

    @property
    def empty(self) -> bool:
        """Whether nothing lies there."""
        return any(begin == end for begin, end in self.target)


def length(span: Span) -> int:
    return span[1] - span[0]


@dataclass(frozen=True)
class TilePlan:
    """How a network's images [N,C,H,W] are cut: into cores of `tile` pixels, and what a run takes, in bytes.

    In `strips`, a tile computes so many rows that are new, and the first one more. Each strip has memory for the rows
    that its tiles pass on: so all tiles beside each other can be run before those below them.
    """

    rule: TileRule
    shape: tuple[int, int, int, int]
    batch: int  # images in a run
    tile: tuple[int, int]
    largest: tuple[int, int]  # height and width that a tile reads
    workspace: int
    buffers: int
    resident: int  # of the process when the plan was made
    strips: bool = False
    carried: int = 0  # of each strip

    @property
    def memory(self) -> int:
        """The resident memory of the process at its peak."""
        return self.resident + self.workspace + self.buffers + self.carried * len(self.columns) + SLACK

    @property
    def rows(self) -> list[tuple[Span, Span]]:
        """The cores along the rows, and what is seen for each."""
        size = self.shape[2]
        if self.strips:
            return cut_strip(self.rule, size, self.tile[0])
        return [(core, self.rule.rows.cover(core, size)) for core in self.rule.rows.cut(size, self.tile[0])]

    @property
    def columns(self) -> list[tuple[Span, Span]]:
        """The cores along the columns, and what is seen for each."""
        rule, size = self.rule.columns, self.shape[3]
        return [(core, rule.cover(core, size)) for core in rule.cut(size, self.tile[1])]

    @property
    def count(self) -> int:
        """How many tiles there are."""
        return ceil(self.shape[0] / self.batch) * len(self.rows) * len(self.columns)

    @property
    def work(self) -> float:
        """What is computed, for each pixel of the image: 1 if nothing is computed twice."""
        rows, columns = (
            sum(length(seen) for _, seen in axis) / size
            for axis, size in zip((self.rows, self.columns), self.shape[2:], strict=True)
        )
        return (1 + (rows - 1) * SEEN_AGAIN if self.strips else rows) * columns

    def __iter__(self) -> Iterator[Tile]:
        rows, columns = self.rows, self.columns
        for n in range(0, self.shape[0], self.batch):
            images = (n, min(n + self.batch, self.shape[0]))
            for i, (row, down) in enumerate(rows):
                part = CONTINUES * (i > 0) + CONTINUED * (i < len(rows) - 1) if self.strips else None
                for column, across in columns:
                    yield Tile(images, row, column, (down, across), part)

    def late(self, output: str) -> int:
        """By how many rows an output comes late at a tile's end."""
        return self.rule.strips.late[output] if self.strips and self.rule.strips else 0

    def lead(self, tile: Tile) -> Tile:
        """A tile without results that passes on the rows which this one continues with, if none was run before it."""
        end = tile.rows[0]
        return replace(tile, rows=(end, end), seen=(self.lead_rows(end), tile.seen[1]), part=CONTINUED)

    def lead_rows(self, end: int) -> Span:
        """What such a tile sees, along the rows, to pass on those up to `end`."""
        assert self.rule.strips
        rule = self.rule.rows
        begin = max(end - self.rule.strips.overlap - rule.before, 0) // rule.align * rule.align
        return begin, end + self.shape[2] % rule.align


def cut_strip(rule: TileRule, size: int, new: int) -> list[tuple[Span, Span]]:
    """The rows of a strip's tiles, each of `new` ones, a multiple of `align`; the first has as many more as are seen
    again.

    Ends are multiples of `align` but for the image's. What is left over there, every tile sees (as in `cover`).
    """
    assert rule.strips
    overlap, rest = rule.strips.overlap, size % rule.rows.align
    begin, end, found = 0, overlap + new, list[tuple[Span, Span]]()
    while end < size - rest:
        found.append(((begin, end), (max(begin - overlap, 0), end + rest)))
        begin, end = end, end + new
    return [*found, ((begin, size), (max(begin - overlap, 0), size))]


def make_tile_plan(
    network: "Network",
    shape: Sequence[int],
    max_memory: int | str | None = "1GiB",
    tile: int | tuple[int, int] | None = None,
    staging: int = 0,
    kept: int = 0,
    slots: int = 2,
    begun: tuple[int, int] | None = None,
    alone: bool = False,
) -> TilePlan:
    """The plan for images of `shape` [N,C,H,W] on a compiled network.

    The tiles are the largest with which the process stays within `max_memory` (bytes, or such as "1GiB"; None for no
    limit): of all shapes that fit, the one that reads fewest pixels. `tile` gives them instead, in pixels; they are
    rounded up to what the network's strides ask for. `staging` says how many arrays of a tile's input are held beside
    it, `slots` how many tiles' results, and `kept` bytes are those of results that stay in memory. `begun` are
    the tiles of a run that is taken up again: they are kept if they fit, for what is resident differs from run to run.
    If each must stand `alone`, there are no strips.
    Errors: UnsupportedError if the network cannot be tiled; InputError if the smallest tile does not fit.
    """
    rule = read_rule(network.name, network.meta)
    network.output_shapes(**bind_sizes(network.inputs, [tuple(shape)]))  # whether it takes such images
    (n, c, height, width), fixed = shape, network.inputs[0][1].shape[0]
    batch = fixed if isinstance(fixed, int) else 1
    resident, limit = resident_bytes(), parse_bytes(max_memory)
    axes = (rule.rows, rule.columns)

    def in_strips(new: int) -> bool:
        return not alone and rule.strips is not None and len(cut_strip(rule, height, new)) > 1

    def plan(core: tuple[int, int]) -> TilePlan:
        strips = in_strips(core[0])
        bare = TilePlan(rule, (n, c, height, width), batch, core, (0, 0), 0, 0, resident, strips)
        rows, columns = (max(length(seen) for _, seen in axis) for axis in (bare.rows, bare.columns))
        if strips:
            (end, _), _ = bare.rows[-1]
            rows = max(rows, length(bare.lead_rows(end)))
        sizes = bind_sizes(network.inputs, [(batch, c, rows, columns)])
        shapes = network.output_shapes(**sizes)
        outputs = sum(prod(s) * t.dtype.numpy.itemsize for s, (_, t) in zip(shapes, network.outputs, strict=True))
        one = batch * c * rows * columns * network.inputs[0][1].dtype.numpy.itemsize
        return replace(bare, largest=(rows, columns), workspace=network.workspace_bytes(**sizes),
                       buffers=(1 + staging) * one + slots * outputs + kept,
                       carried=network.carried_bytes(**sizes) if strips else 0)  # fmt: skip

    if tile is not None:
        wanted = (tile, tile) if isinstance(tile, int) else tile
        if min(wanted) < 1:
            raise InputError(f"tile: expected positive sizes, got {wanted[0]}x{wanted[1]}")
        new, across = (ceil(t / a.align) * a.align for t, a in zip(wanted, axes, strict=True))
        return plan((new, across))
    if begun is not None and all(size > 0 and size % a.align == 0 for size, a in zip(begun, axes, strict=True)):
        found = plan(begun)
        if limit is None or found.memory <= limit + AGAIN:
            return found
    heights, widths = (list_lengths(size, a.align) for size, a in zip((height, width), axes, strict=True))
    if not alone and rule.strips and height > rule.strips.overlap:
        parts = list_lengths(height - rule.strips.overlap, rule.rows.align)
        heights = [*filter(in_strips, parts), *(h for h in heights if not in_strips(h))]
    best = None
    for w in widths:
        fit = bisect_right(heights, False, key=lambda h: limit is not None and plan((h, w)).memory > limit)
        if fit and (best is None or plan((heights[fit - 1], w)).work < best.work):
            best = plan((heights[fit - 1], w))
    if best is None:
        least = plan((heights[0], widths[0]))
        raise InputError(f"max_memory: expected at least {least.memory} bytes for a tile of {least.largest[0]}x"
                         f"{least.largest[1]} pixels ({resident} are in use), got {limit}")  # fmt: skip
    return best


def list_lengths(size: int, align: int) -> list[int]:
    """The lengths of cores that cut `size` into 1, 2, 3 and so on parts as even as can be, rising."""
    blocks = ceil(size / align)
    found, parts = [], 1
    while True:
        found.append(ceil(blocks / parts))
        if found[-1] == 1:
            return [align * x for x in reversed(found)]
        parts = ceil(blocks / (found[-1] - 1))


def parse_bytes(text: int | str | None) -> int | None:
    """Bytes from such as 1GiB, 512MB or 2e9. Errors: InputError."""
    if text is None or isinstance(text, int):
        return text
    units = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9, "B": 1, "": 1}
    unit = next(u for u in units if text.endswith(u))
    try:
        return int(float(text.removesuffix(unit)) * units[unit])
    except ValueError:
        raise InputError(f"memory: expected such as 1GiB or 512MB, got {text!r}") from None


def resident_bytes() -> int:
    """The memory of this process that is resident, files that it maps included."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGESIZE
