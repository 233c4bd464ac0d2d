"""Measuring: every runtime loads the network, then they take turns, round after round."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory

from graphc.artefact import build
from graphc.bench.figures import Comparison, Measurement
from graphc.bench.machine import choose_cpus
from graphc.bench.peers.artefact import FOLDER
from graphc.bench.problem import read_arrays, write_problem
from graphc.bench.process import Worker, WorkerError
from graphc.bench.runtimes import ARTEFACT, GRAPHC, Peer
from graphc.ir import Array, DType, Graph
from graphc.reference import random_inputs, run_reference
from graphc.verify import relative_difference

ROUNDS = 9  # enough for quartiles that mean something
SECONDS = 0.2  # of a runtime's turn: many timer ticks, so that no single one of them decides it


def compare(
    graph: Graph,
    sizes: Mapping[str, int],
    peers: Sequence[Peer],
    threads: Sequence[int],
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    tell: Callable[[str], None] = lambda text: None,
    own: Peer = GRAPHC,
    training: Graph | None = None,
) -> list[Comparison]:
    """One comparison for each number of threads, on random inputs of these sizes.

    The outputs are compared with the network's, or with the first ones of its `training` form.

    A peer that is not installed, or fails, is left out and named; `own` must not fail. `tell` hears what happens now.
    """
    cpus = [choose_cpus(n) for n in threads]  # asks for what there is before anything takes long
    inputs = random_inputs(graph, sizes)
    with TemporaryDirectory(prefix="graphc-bench-") as name:
        folder = Path(name)
        tell(f"{graph.name}: computing the outputs in float64")
        expected = run_reference(training or graph, inputs, DType.F64)[: len(graph.outputs)]
        write_problem(graph, dict(sizes), inputs, folder, onnx=training is None)
        shapes = tuple(a.shape for a in inputs)
        results = []
        for chosen in cpus:
            say = partial(_tell_more, tell, f"{graph.name}, threads {len(chosen)}")
            measured, left_out = _measure(own, peers, folder, chosen, expected, rounds, seconds, say)
            results.append(Comparison(graph.name, shapes, len(chosen), measured, left_out))
    return results


def measure_library(graph: Graph, sizes: Mapping[str, int], seconds: float = SECONDS) -> Measurement:
    """The network as a shared library that was built beforehand, in a process without the compiler; one thread."""
    inputs = random_inputs(graph, sizes)
    expected = run_reference(graph, inputs, DType.F64)
    with TemporaryDirectory(prefix="graphc-bench-") as name:
        folder = Path(name)
        write_problem(graph, dict(sizes), inputs, folder, onnx=False)
        build(graph, folder / FOLDER, ("so",))
        measured, _ = _measure(ARTEFACT, [], folder, choose_cpus(1), expected, 1, seconds, lambda text: None)
    return measured[0]


def _tell_more(tell: Callable[[str], None], what: str, text: str) -> None:
    tell(f"{what}: {text}")


def _measure(
    own: Peer,
    peers: Sequence[Peer],
    folder: Path,
    cpus: Sequence[int],
    expected: Sequence[Array],
    rounds: int,
    seconds: float,
    tell: Callable[[str], None],
) -> tuple[tuple[Measurement, ...], dict[str, str]]:
    left_out = {peer.name: peer.missing for peer in peers if peer.missing}
    turns: list[tuple[Peer, Worker, list[float]]] = []
    measured = []

    @contextmanager
    def leave_out_if_it_fails(peer: Peer) -> Iterator[None]:
        try:
            yield
        except WorkerError as error:
            if peer is own:
                raise WorkerError(f"{peer.name}: {error}") from None
            left_out[peer.name] = str(error)

    with ExitStack() as stack:
        for peer in (own, *peers):
            if peer.name not in left_out:
                tell(f"loading {peer.name}")
                with leave_out_if_it_fails(peer):
                    turns.append((peer, stack.enter_context(Worker(peer, folder, cpus)), []))
        for i in range(rounds):
            tell(f"round {i + 1} of {rounds}")
            for peer, worker, times in turns:
                if peer.name not in left_out:
                    with leave_out_if_it_fails(peer):
                        times.append(worker.time(seconds))
        for peer, worker, times in turns:
            if peer.name not in left_out:
                with leave_out_if_it_fails(peer):
                    peak = worker.save(folder / f"{peer.name}.npz")
                    error = _largest_error(read_arrays(folder / f"{peer.name}.npz"), expected)
                    measured.append(
                        Measurement(peer.name, worker.version, tuple(times), error, peak, worker.load_seconds)
                    )
    return tuple(measured), left_out


def _largest_error(outputs: Sequence[Array], expected: Sequence[Array]) -> float:
    found, wanted = ([a.shape for a in arrays] for arrays in (outputs, expected))
    if found != wanted:
        raise WorkerError(f"expected outputs of the shapes {wanted}, got {found}")
    error = max(map(relative_difference, outputs, expected))
    if not isfinite(error):
        raise WorkerError("expected finite outputs where float64 has them, got others")
    return error
