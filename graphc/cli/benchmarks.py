"""What `graphc bench` does."""

import json
from collections.abc import Sequence
from pathlib import Path

from graphc.bench.comparison import compare
from graphc.bench.machine import describe_machine
from graphc.bench.runtimes import find_peers
from graphc.bench.tables import print_comparisons, to_json
from graphc.cli.loading import find_sizes, load_model
from graphc.cli.output import make_console, replace_file
from graphc.errors import InputError


def compare_networks(
    models: Sequence[str],
    against: tuple[str, ...],
    threads: Sequence[int],
    shapes: Sequence[tuple[int, ...]],
    batch: int | None,
    rounds: int,
    seconds: float,
    file: Path | None,
) -> None:
    """Measure every network, print the table, and write `file` as JSON."""
    peers = find_peers(against)
    machine = describe_machine()  # first: measuring is a load itself
    comparisons = []
    with make_console(stderr=True).status("measuring") as status:
        for model in models:
            graph = load_model(model)
            sizes = find_sizes(graph, shapes)
            if batch is not None:
                if "N" not in sizes:
                    raise InputError(f"--batch: expected a network with an open batch, '{graph.name}' has none")
                sizes["N"] = batch
            comparisons += compare(graph, sizes, peers, threads, rounds, seconds, status.update)
    print_comparisons(machine, comparisons, make_console())
    if file:
        with replace_file(file) as stream:
            stream.write(json.dumps(to_json(machine, comparisons), indent=2).encode())
