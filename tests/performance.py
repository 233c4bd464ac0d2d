"""Measures the networks of the README's tables: `make bench`, or `python tests/performance.py [NETWORK...]`.

All of them, in one and two threads, in every runtime that is installed, and a step of training of some. The tables
replace the section in README.md, and what they are made from goes to build/performance.json; of named networks, the
first table is only printed.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from inspect import signature
from os import sched_getaffinity
from pathlib import Path

from graphc.bench.comparison import compare, measure_library
from graphc.bench.figures import OWN, Comparison, Measurement, geometric_mean, mean_ratios
from graphc.bench.machine import Machine, describe_machine
from graphc.bench.runtimes import PEERS
from graphc.bench.tables import format_shapes, list_left_out, to_json
from graphc.bench.training import Halves, compare_training
from graphc.cli.output import make_console
from graphc.models import NETWORKS
from graphc.summary import default_sizes

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- make bench: begin -->\n", "<!-- make bench: end -->\n"
THREADS = [n for n in (1, 2) if n <= len(sched_getaffinity(0))]
LABELS = {OWN: "graphc", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "ncnn": "ncnn", "torch": "PyTorch"}

# Height and width where the network leaves them open; 224 otherwise.
SIDES = {
    "lenet5": None, "alexnet": None, "vgg16": None, "googlenet": None, "inception_v3": 299, "resnet18": None,
    "resnet50": None, "resnet152": None, "densenet121": None, "squeezenet1_1": None, "shufflenet_v2_x1_0": None,
    "mobilenet_v2": None, "unet": 256, "fcn32s": 256,
}  # fmt: skip

# Networks that are trained, images of a batch, and their side.
TRAINED = [
    ("lenet5", 64, 32), ("resnet18", 8, 64), ("resnet18", 4, 224), ("vgg16", 2, 224), ("mobilenet_v2", 8, 128),
    ("unet", 2, 128),
]  # fmt: skip


def measure(networks: Sequence[str]) -> tuple[list[Comparison], dict[str, Measurement]]:
    """The comparisons of these networks, one image at a time; and each as a library, one thread."""
    found, libraries = [], {}
    with make_console(stderr=True).status("measuring") as status:
        for name in networks:
            graph, side = NETWORKS[name](), SIDES[name]
            sizes = default_sizes(graph) | ({"H": side, "W": side} if side else {})
            found += compare(graph, sizes, list(PEERS.values()), THREADS, tell=status.update)
            status.update(f"{name}: as a library")
            libraries[name] = measure_library(graph, sizes)
    return found, libraries


def measure_training() -> list[Halves]:
    """A step of training of each of TRAINED."""
    found = []
    with make_console(stderr=True).status("measuring") as status:
        for name, images, side in TRAINED:
            make = NETWORKS[name]
            graph = make(size=side) if "size" in signature(make).parameters else make()
            sizes = {n: size for n, size in (("N", images), ("H", side), ("W", side)) if n in graph.symbols}
            found += compare_training(graph, sizes, ["torch"], THREADS, tell=status.update)
    return found


def format_markdown(
    machine: Machine, comparisons: Sequence[Comparison], libraries: Mapping[str, Measurement], day: str
) -> str:
    """A row for each network and number of threads, a column for each runtime that was measured; then what sums up."""
    versions = {m.runtime: m.version.split(" ")[0] for c in comparisons for m in c.measurements}
    names = [name for name in LABELS if name in versions]
    head = ["network", "input", "threads", *(f"{LABELS[n]}, ms" for n in names), "best peer ÷ graphc"]
    rows = [head, ["---", "---", *["---:"] * (len(head) - 2)]]
    for c in comparisons:
        times = [_format_time(c, name) for name in names]
        best = f"{c.best_ratio:.2f}" if c.best_ratio is not None else "-"
        rows.append([c.network, format_shapes(c.shapes), str(c.threads), *times, best])
    measured = {name: [m for c in comparisons for m in c.measurements if m.runtime == name] for name in names}
    errors = ", ".join(f"{LABELS[name]} {max(m.error for m in measured[name]):.0e}" for name in names)
    memory = ", ".join(f"{LABELS[n]} {_mean_megabytes(measured[n])}" for n in names)
    lines = [
        f"Measured on {day}: {machine}; {', '.join(f'{LABELS[n]} {versions[n]}' for n in names if n != OWN)}.",
        "",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        *_describe_means(comparisons),
        f"* Largest difference from float64, as a share of the largest output: {errors}.",
        f"* Peak memory of the whole process in MB, geometric mean: {memory}; of one that loads the library that "
        f"`graphc compile` made, {_mean_megabytes(libraries.values())}{_describe_larger(comparisons, libraries)}.",
        *(f"* {line[0].upper()}{line[1:]}." for line in list_left_out(comparisons)),
    ]
    return "\n".join(lines) + "\n"


def format_training(halves: Sequence[Halves]) -> str:
    """A row for each network, batch and number of threads."""
    head = ["network", "input", "threads", "graphc, ms", "PyTorch, ms"]
    head += ["backward and update ÷ forward: graphc", "PyTorch"]
    rows = [head, ["---", "---", *["---:"] * (len(head) - 2)]]
    for h in halves:
        what = [h.step.network.removesuffix(" step"), format_shapes(h.step.shapes[:1]), str(h.step.threads)]
        times, backward = [_format_time(h.step, name) for name in (OWN, "torch")], h.backward_ratios()
        rows.append([*what, *times, *(f"{backward[n]:.2f}" if n in backward else "-" for n in (OWN, "torch"))])
    table = (f"| {' | '.join(row)} |" for row in rows)
    lines = ["", "A step of training: forward, backward, and SGD with momentum.", "", *table, ""]
    return "\n".join([*lines, *_describe_means([h.step for h in halves])]) + "\n"


def _mean_megabytes(measured: Iterable[Measurement]) -> str:
    return f"{geometric_mean([m.peak_bytes for m in measured]) / 1e6:.0f}"


def _describe_means(comparisons: Sequence[Comparison]) -> Iterator[str]:
    for threads in THREADS:
        means = mean_ratios([c for c in comparisons if c.threads == threads])
        each = ", ".join(f"{LABELS.get(name, name)} {ratio:.2f}" for name, (ratio, _) in means.items())
        if each:
            yield f"* Time ÷ graphc's, geometric mean, {threads} thread{'s' if threads > 1 else ''}: {each}."


def _describe_larger(comparisons: Sequence[Comparison], libraries: Mapping[str, Measurement]) -> str:
    """The networks that take more memory as a library than in ONNX Runtime, if that was measured."""
    peers = [(c, m) for c in comparisons for m in c.measurements if m.runtime == "onnxruntime" and c.threads == 1]
    larger = [c.network for c, m in peers if libraries[c.network].peak_bytes > m.peak_bytes]
    return f", more than ONNX Runtime for {', '.join(larger) or 'no network'}" if peers else ""


def _format_time(c: Comparison, name: str) -> str:
    for m in c.measurements:
        if m.runtime == name:
            ratio = "" if name == OWN else f" ({c.ratio(m):.2f})"
            return f"{m.median * 1e3:.3g}{ratio}"
    return "-"


def replace_section(readme: str, section: str) -> str:
    """The README with this between its two marks."""
    before, found, rest = readme.partition(BEGIN)
    _, ended, after = rest.partition(END)
    assert found and ended, f"README.md: expected the marks {BEGIN.strip()} and {END.strip()}"
    return f"{before}{BEGIN}{section}{END}{after}"


def main(networks: Sequence[str]) -> None:
    machine = describe_machine()
    comparisons, libraries = measure(networks or list(SIDES))
    section = format_markdown(machine, comparisons, libraries, date.today().isoformat())
    print(section)
    if networks:
        return
    halves = measure_training()
    print(format_training(halves))
    figures = to_json(machine, comparisons) | {"training": [h.to_json() for h in halves]}
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build/performance.json").write_text(json.dumps(figures, indent=2))
    readme = ROOT / "README.md"
    readme.write_text(replace_section(readme.read_text(), section + format_training(halves)))


if __name__ == "__main__":
    main(sys.argv[1:])
