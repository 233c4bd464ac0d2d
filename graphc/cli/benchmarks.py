"""What `graphc bench` does."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM, signal
from typing import Any

from graphc.bench.comparison import compare
from graphc.bench.dense import DenseComparison, compare_dense
from graphc.bench.machine import Machine, describe_machine
from graphc.bench.profile import profile
from graphc.bench.runtimes import find_peers
from graphc.bench.sizes import draw_sizes, fit_exponent, measure_sizes, sizes_to_json
from graphc.bench.tables import print_comparisons, print_dense, print_profile, to_json
from graphc.bench.training import Halves, compare_training, find_trainers
from graphc.cli.loading import find_sizes, load_model
from graphc.cli.output import make_console
from graphc.errors import InputError
from graphc.files import replace_file
from graphc.ir import Graph


@dataclass(frozen=True)
class Effort:
    """How long is measured: `rounds` times `seconds` for each runtime, on each of these numbers of threads."""

    threads: Sequence[int]
    rounds: int
    seconds: float


def load_models(
    models: Sequence[str], shapes: Sequence[tuple[int, ...]], batch: int | None
) -> list[tuple[Graph, dict[str, int]]]:
    """Each network with its sizes. Errors: InputError."""
    found = []
    for model in models:
        graph = load_model(model)
        sizes = find_sizes(graph, shapes)
        if batch is not None:
            if "N" not in sizes:
                raise InputError(f"--batch: expected a network with an open batch, '{graph.name}' has none")
            sizes["N"] = batch
        found.append((graph, sizes))
    return found


def compare_networks(
    networks: Sequence[tuple[Graph, dict[str, int]]], against: tuple[str, ...], effort: Effort, file: Path | None
) -> None:
    """Measure every network in every runtime, print the table, and write `file` as JSON."""
    peers = find_peers(against)
    comparisons = []
    with _measuring() as (machine, tell):
        for graph, sizes in networks:
            comparisons += compare(graph, sizes, peers, effort.threads, effort.rounds, effort.seconds, tell)
    print_comparisons(machine, comparisons, make_console())
    _write_json(file, to_json(machine, comparisons))


def compare_windows(
    networks: Sequence[tuple[Graph, dict[str, int]]], image: tuple[int, int], effort: Effort, file: Path | None
) -> None:
    """Measure dense runs against sliding windows, print the table, and write `file` as JSON."""
    comparisons: list[DenseComparison] = []
    with _measuring() as (machine, tell):
        for graph, _ in networks:
            comparisons += compare_dense(graph, image, effort.threads, effort.rounds, effort.seconds, tell)
    print_dense(machine, comparisons, make_console())
    _write_json(file, {"machine": machine.to_json(), "comparisons": [c.to_json() for c in comparisons]})


def compare_trainings(
    networks: Sequence[tuple[Graph, dict[str, int]]], against: tuple[str, ...], effort: Effort, file: Path | None
) -> None:
    """Measure a step of training of every network, print the tables, and write `file` as JSON."""
    names = find_trainers(against)
    halves: list[Halves] = []
    with _measuring() as (machine, tell):
        for graph, sizes in networks:
            halves += compare_training(graph, sizes, names, effort.threads, effort.rounds, effort.seconds, tell)
    console = make_console()
    print_comparisons(machine, [h.step for h in halves], console)
    print_comparisons(machine, [h.forward for h in halves], console)
    for h in halves:
        ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in h.backward_ratios().items())
        console.print(f"{h.step.network}, threads {h.step.threads}: backward and update ÷ forward: {ratios}")
    steps, forwards = ([getattr(h, part) for h in halves] for part in ("step", "forward"))
    _write_json(file, {"steps": to_json(machine, steps), "forward": to_json(machine, forwards)})


def profile_networks(networks: Sequence[tuple[Graph, dict[str, int]]], effort: Effort, file: Path | None) -> None:
    """Measure every step of every network, print the tables, and write `file` as JSON."""
    machine = describe_machine()
    profiles = []
    console, status = make_console(), make_console(stderr=True).status("measuring")
    console.print(str(machine))
    for graph, sizes in networks:
        for threads in effort.threads:
            with status:
                status.update(f"{graph.name}, threads {threads}: measuring its steps")
                profiles.append(profile(graph, sizes, threads, effort.rounds * effort.seconds))
            print_profile(profiles[-1], console)
    _write_json(file, {"machine": machine.to_json(), "profiles": [p.to_json() for p in profiles]})


def plot_sizes(
    networks: Sequence[tuple[Graph, dict[str, int]]], effort: Effort, memory: str, plot: Path, file: Path | None
) -> None:
    """Measure a network over images of many sizes, print the table, and write the plot and `file` as JSON."""
    if len(networks) != 1 or len(effort.threads) != 1:
        raise InputError("--sizes: expected one network and one number of threads")
    if plot.suffix != ".svg":
        raise InputError(f"{plot}: expected a name that ends in .svg")
    ((graph, _),) = networks
    with _measuring() as (machine, tell):
        times = measure_sizes(graph, effort.threads[0], effort.seconds, memory, tell)
    console = make_console()
    for t in times:
        console.print(f"{t.side:5}x{t.side:<5} {t.seconds:9.4f} s {t.pixel_time:8.2f} ns a pixel{' (tiles)' * t.tiled}")
    console.print(f"time grows with pixels to the power of {fit_exponent(times):.3f}")
    with replace_file(plot) as stream:
        stream.write(draw_sizes(graph.name, machine, times).encode())
    _write_json(file, {"machine": machine.to_json(), **sizes_to_json(graph.name, times)})


@contextmanager
def _measuring() -> Iterator[tuple[Machine, Callable[[str], None]]]:
    """The machine, and what to tell progress."""
    signal(SIGTERM, lambda *_: sys.exit(128 + SIGTERM))  # as after Ctrl-C, the files for the workers are removed
    machine = describe_machine()  # first: measuring is a load itself
    with make_console(stderr=True).status("measuring") as status:
        yield machine, status.update


def _write_json(file: Path | None, what: dict[str, Any]) -> None:
    if file:
        with replace_file(file) as stream:
            stream.write(json.dumps(what, indent=2).encode())
