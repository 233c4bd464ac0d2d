"""Counts which of onnx's own tests graphc passes: `make conformance`, or `python tests/conformance.py [PATTERN]`.

These are its node tests, the groups simple, pytorch-converted and pytorch-operator, and its nine light networks, whose
weights are one number each. A node test runs in three ways, the others as they are:
  given     the model as it is: every operand an input, of constant shape;
  symbolic  batch, height and width of the first input open, the operands of other shapes as initialisers;
  constant  all inputs but the first as initialisers (the only one too), as exporters write weights, axes and shapes.

A run passes, or is wrong (other numbers, shapes or dtypes), unsupported (a GraphcError), unclean (another exception) or
a crash (its process died or took over ten minutes). Exits with 1 if anything is wrong, unclean or crashed. How far it
is shows on stderr: a bar on a terminal, elsewhere a line for each tenth.
"""

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test as onnx_test
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner
from rich.console import Console
from rich.progress import track

from graphc.errors import GraphcError
from graphc.onnx import backend

# The operators of convolutional networks, which graphc promises to run.
OPERATOR_NAMES = """
Conv ConvTranspose Gemm MatMul
Add Sub Mul Div Pow Neg Abs Exp Log Sqrt Reciprocal Floor Ceil Round Sign Erf Min Max Mean Sum Mod
Relu LeakyRelu PRelu Elu Selu Celu ThresholdedRelu HardSigmoid HardSwish Clip Sigmoid Tanh Softplus Softsign Gelu
Mish Swish Softmax LogSoftmax Hardmax
MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool MaxUnpool
BatchNormalization InstanceNormalization LayerNormalization GroupNormalization LRN LpNormalization
MeanVarianceNormalization Dropout
Flatten Reshape Transpose Concat Split Slice Pad Resize Upsample Squeeze Unsqueeze Identity Constant ConstantOfShape
Shape Size Gather GatherElements GatherND ScatterElements ScatterND Cast Expand Tile Where Range DepthToSpace
SpaceToDepth
ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSumSquare
ArgMax ArgMin TopK CumSum Equal Greater GreaterOrEqual Less LessOrEqual And Or Xor Not
NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss GridSample RoiAlign Einsum Trilu
QuantizeLinear DequantizeLinear QLinearConv QLinearMatMul ConvInteger MatMulInteger
"""
OPERATORS = frozenset(OPERATOR_NAMES.split())
PROMISED = "operators of conv. networks"  # node tests of OPERATORS, without those of functions
STATES = ("pass", "wrong", "unsupported", "unclean", "crash")
FAULTS = ("wrong", "unclean", "crash")
INTEGERS = {getattr(TensorProto, f"{sign}INT{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)}
CLASSIC = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.BOOL} | INTEGERS
TIMEOUT = 600.0  # seconds; a node test takes about one, the largest network a minute on a busy machine
WORKERS = 2  # as many as the smallest machine that runs this has cores
LETTERS = {1: {0: "N"}, 2: {0: "N"}, 3: {0: "N", 2: "W"}, 4: {0: "N", 2: "H", 3: "W"}}  # the open dims of each rank


@dataclass(frozen=True)
class Job:
    """One test in one of the three ways."""

    case: Any  # an onnx TestCase
    op: str
    way: str

    def __str__(self) -> str:
        return f"{self.case.name} [{self.way}]"


@dataclass(frozen=True)
class Outcome:
    """How a job went: one of STATES, and the message of whatever went wrong."""

    state: str
    message: str = ""


# -- the tests --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileCase:
    """A test that onnx has as files, with the fields of its TestCase that are used here."""

    name: str
    model: ModelProto
    data_sets: list[tuple[list[Any], list[Any]]]
    rtol: float
    atol: float


DATA = Path(onnx_test.__file__).parent / "data"
GROUPS = ("simple", "pytorch-converted", "pytorch-operator")


def list_jobs(pattern: str) -> list[Job]:
    """Every test whose name contains `pattern`, in every way that it has."""
    return [*list_file_jobs(pattern), *list_node_jobs(pattern)]  # the longest first, so that the workers end together


def list_file_jobs(pattern: str) -> list[Job]:
    """The tests that onnx has as files."""
    jobs = []
    for group in GROUPS:
        for folder in sorted((DATA / group).iterdir()):
            data = folder / "test_data_set_0"
            if pattern in folder.name and data.is_dir():
                sets = [
                    (
                        [read_data(p) for p in list_files(data, "input")],
                        [read_data(p) for p in list_files(data, "output")],
                    )
                ]
                jobs.append(
                    Job(FileCase(folder.name, onnx.load(folder / "model.onnx"), sets, 1e-3, 1e-7), group, "given")
                )
    for path in sorted((DATA / "light").glob("*.onnx")):
        if pattern in path.stem:
            model = onnx.load(path)
            weights = {t.name for t in model.graph.initializer}
            images = [Runner.generate_dummy_data(v) for v in model.graph.input if v.name not in weights]
            sets = [(images, [read_data(path.with_name(f"{path.stem}_output_0.pb"))])]
            jobs.append(Job(FileCase(path.stem, model, sets, 1e-3, 1e-7), "light", "given"))
    return jobs


def list_files(folder: Path, stem: str) -> list[Path]:
    """stem_0.pb, stem_1.pb, ..."""
    return sorted(folder.glob(f"{stem}_*.pb"), key=lambda p: int(p.stem.rpartition("_")[2]))


def read_data(path: Path) -> Any:
    """The tensor in a file; anything else (a sequence) as the message that it is not."""
    tensor = TensorProto()
    try:
        tensor.ParseFromString(path.read_bytes())
        return numpy_helper.to_array(tensor)
    except (DecodeError, TypeError, ValueError) as error:
        return str(error)


def list_node_jobs(pattern: str) -> list[Job]:
    """Every node test whose name contains `pattern`, in every way that it has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnx computes some expected results with overflows
        cases = load_model_tests(kind="node")
    ops = {c.name: c.model.graph.node[0].op_type for c in cases if len(c.model.graph.node) == 1}
    found = []
    for case in (c for c in cases if pattern in c.name):
        origin = case.name.split("_expanded")[0]
        op = f"{ops.get(origin, '')} as function" if origin != case.name else ops.get(case.name, "several nodes")
        found += [Job(case, op, way) for way, change in WAYS.items() if change(case.model, inputs_of(case)) is not None]
    return found


def inputs_of(case: Any) -> list[Any]:
    """The inputs of the test's first data set."""
    return arrays_of(case.data_sets[0][0])


def arrays_of(data: Any) -> list[Any]:
    """The tensors as arrays; some tests hold them as in a file."""
    return [numpy_helper.to_array(x) if isinstance(x, TensorProto) else x for x in data]


def types_of(model: ModelProto) -> set[int]:
    """The element types of the model's inputs and outputs; UNDEFINED for what is no tensor."""
    values = (*model.graph.input, *model.graph.output)
    types: set[int] = {v.type.tensor_type.elem_type for v in values}
    return types | {a.i for n in model.graph.node for a in n.attribute if a.name == "to"}


Changed = tuple[ModelProto, list[Any]] | None


def keep(model: ModelProto, inputs: list[Any]) -> Changed:
    """The model as it is."""
    return model, inputs


def bind(model: ModelProto, inputs: list[Any], fixed: Callable[[int], bool]) -> Changed:
    """A copy with the inputs that are `fixed` as initialisers; None if one is no plain tensor."""
    changed = ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    chosen = [i for i in range(len(inputs)) if fixed(i)]
    if not all(isinstance(inputs[i], np.ndarray | np.generic) and inputs[i].dtype.kind in "fiub" for i in chosen):
        return None
    for i in reversed(chosen):
        graph.initializer.append(numpy_helper.from_array(np.asarray(inputs[i]), graph.input[i].name))
        del graph.input[i]
    return changed, [a for i, a in enumerate(inputs) if i not in chosen]


def make_constant(model: ModelProto, inputs: list[Any]) -> Changed:
    """All inputs but the first as initialisers; the only one too."""
    return bind(model, inputs, lambda i: i > 0 or len(inputs) == 1) if inputs else None


def open_sizes(model: ModelProto, inputs: list[Any]) -> Changed:
    """The first input, and those of its shape, with open sizes; None if it has no such dims."""
    if not inputs or not isinstance(inputs[0], np.ndarray) or inputs[0].ndim not in LETTERS:
        return None
    shape = inputs[0].shape
    changed = bind(model, inputs, lambda i: getattr(inputs[i], "shape", None) != shape)
    if changed is None:
        return None
    for v in changed[0].graph.input:
        declared = v.type.tensor_type.shape.dim
        if len(declared) != len(shape):  # an optional or a sequence
            return None
        for axis, letter in LETTERS[len(shape)].items():
            declared[axis].dim_param = letter
    return changed


WAYS: dict[str, Callable[[ModelProto, list[Any]], Changed]] = {
    "given": keep,
    "symbolic": open_sizes,
    "constant": make_constant,
}


# -- running them -----------------------------------------------------------------------------------------------------


def run(job: Job) -> Outcome:
    """Compile the model and compare its outputs with the expected ones."""
    changed = WAYS[job.way](job.case.model, inputs_of(job.case))
    assert changed is not None
    try:
        found = backend.run_model(*changed, threads=1)
    except GraphcError as error:
        return Outcome("unsupported", str(error))
    except Exception as error:
        return Outcome("unclean", f"{type(error).__name__}: {error}")
    return compare(found, arrays_of(job.case.data_sets[0][1]), job.case.rtol, job.case.atol)


def compare(found: tuple[Any, ...], expected: list[Any], rtol: float, atol: float) -> Outcome:
    """Pass, or wrong with what differs, as onnx's own runner judges it."""
    try:
        Runner.assert_similar_outputs(expected, found, rtol, atol)
    except AssertionError as error:
        return Outcome("wrong", str(error))
    return Outcome("pass")


def work(jobs: list[Job], pipe: Any) -> None:
    """In a worker: run the jobs whose numbers come in."""
    warnings.simplefilter("error")
    while (number := pipe.recv()) is not None:
        pipe.send(run(jobs[number]))


def run_all(jobs: list[Job]) -> Iterator[tuple[Job, Outcome]]:
    """Every job with its outcome, in worker processes; one that dies is replaced."""
    context = get_context("fork")  # the tests are loaded already
    waiting = iter(range(len(jobs)))
    busy: dict[Any, tuple[Any, int]] = {}  # pipe -> (process, number of its job)

    def start() -> tuple[Any, Any]:
        pipe, other = context.Pipe()
        process = context.Process(target=work, args=(jobs, other), daemon=True)
        process.start()
        other.close()
        return pipe, process

    def give(pipe: Any, process: Any) -> None:
        number = next(waiting, None)
        pipe.send(number)
        if number is not None:
            busy[pipe] = process, number

    for _ in range(WORKERS):
        give(*start())
    while busy:
        ready = connection.wait(list(busy), TIMEOUT)
        for pipe in ready or list(busy):  # none: those at work have had ten minutes
            process, number = busy.pop(pipe)
            try:
                outcome = pipe.recv() if ready else Outcome("crash", f"no result in {TIMEOUT:.0f} s")
            except EOFError:
                process.join()
                outcome = Outcome("crash", f"exit status {process.exitcode}")
            if outcome.state == "crash":
                process.kill()
                pipe, process = start()
            give(pipe, process)
            yield jobs[number], outcome


def show_progress(outcomes: Iterator[tuple[Job, Outcome]], total: int) -> Iterator[tuple[Job, Outcome]]:
    """The same, while stderr tells how many of the `total` there have been."""
    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(outcomes, "conformance", total, console=console)
        return
    for done, outcome in enumerate(outcomes, 1):
        yield outcome
        if done * 10 // total > (done - 1) * 10 // total:
            print(f"conformance: {done} of {total}", file=sys.stderr, flush=True)


# -- the report -------------------------------------------------------------------------------------------------------


def print_report(results: list[tuple[Job, Outcome]], verbose: bool) -> None:
    """Counts for each operator, the totals, and every fault."""
    print(f"{'':36}" + "".join(f"{s:>13}" for s in STATES))
    for op in sorted({job.op for job, _ in results}):
        print_counts(op, [r for r in results if r[0].op == op])
    classic = [r for r in results if types_of(r[0].case.model) <= CLASSIC]
    floats = [r for r in classic if TensorProto.FLOAT in types_of(r[0].case.model)]
    for name, rows in (
        ("all types", results),
        ("f32 f64 integers bool", classic),
        ("f32 (with integers, bool)", floats),
    ):
        print()
        print_counts(name, rows)
        for way in WAYS:
            print_counts(f"  {way}", [r for r in rows if r[0].way == way])
            print_counts(f"    {PROMISED}", [r for r in rows if r[0].way == way and r[0].op in OPERATORS])
    for job, outcome in results:
        if outcome.state in FAULTS or (verbose and outcome.state != "pass"):
            print(f"{outcome.state}: {job}: {' '.join(outcome.message.split())[:300]}")


def print_counts(label: str, rows: list[tuple[Job, Outcome]]) -> None:
    """One line of the table."""
    counts = Counter(outcome.state for _, outcome in rows)
    print(f"{label:36}" + "".join(f"{counts[s] or '.':>13}" for s in STATES))


def main() -> int:
    """Run the tests whose name contains the first argument; with -v, print every refusal too."""
    patterns = [a for a in sys.argv[1:] if a != "-v"]
    jobs = list_jobs("".join(patterns[:1]))
    results = sorted(show_progress(run_all(jobs), len(jobs)), key=lambda r: (r[0].op, str(r[0])))
    print_report(results, "-v" in sys.argv)
    return int(any(outcome.state in FAULTS for _, outcome in results))


if __name__ == "__main__":
    sys.exit(main())
