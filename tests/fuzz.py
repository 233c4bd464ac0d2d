"""`make fuzz`: random networks and mutated model files, for as many minutes as one likes; a failure prints its seed.

    python tests/fuzz.py MINUTES [SEED]

Of some seeds, one draws a network and compares every executor, and random passes in random order, with float64. The
others change a valid model file, knowing its structure, and read, compile and run it: that must end in an error of
graphc's or a result, whatever the file says. Seeds run in processes with limits; which of them
kills its process is then found.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import numpy as np
from forking import Outcome, fork, limit
from google.protobuf.message import DecodeError, Message
from onnx import ModelProto, TensorProto
from onnx_models import run_onnxruntime
from random_graphs import draw_graph
from test_executors import LEVELS
from test_random_graphs import check, run, takes
from test_random_graphs import test_executors_agree as compare_executors

import graphc
from graphc.errors import GraphcError, InputError
from graphc.ir import DType, Graph
from graphc.onnx import from_model, to_model
from graphc.passes import PIPELINE, eliminate_dead_code, optimize
from graphc.reference import random_inputs, run_reference
from graphc.text import parse

BATCH = 20  # seeds that share a process; 2000 is a multiple of two batches
NUMBERS = (0, 1, -1, 2, 3, 7, 64, 255, 2**16, 2**31 - 1, 2**31, -(2**31), 2**32, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, 1e30, float("inf"), -float("inf"), float("nan"))
TEXTS = ("", "x", "y", "\0", "\n", '"', "\\", "../x", "Conv", "Relu", "Loop", "SAME_UPPER", "ai.onnx", "a" * 300)


# ---- networks -------------------------------------------------------------------------------------------------------


def try_network(seed: int) -> Outcome:
    """A small network through every executor against float64; the compiled code is that of one of its forms.

    Compiling takes most of the time, so each network is compiled once: as it stands, optimised, as it comes back from
    ONNX, or after some of the passes in another order. One in 200 is large, and compiled in all ways.
    """
    if seed % 200 == 0:
        compare_executors(seed)
        try_passes(seed)
        return {"done": "agrees in all ways"}
    rng = np.random.default_rng([seed, 2])
    graph = eliminate_dead_code(draw_graph(seed, steps=int(rng.integers(1, 5))))
    assert str(parse(str(graph), {name: p.array for name, p in graph.params.items()})) == str(graph)
    model = to_model(graph)
    again = from_model(model)
    rewritten, names = rewrite(graph, rng)
    form, optimized = [(graph, True), (graph, False), (again, True), (rewritten, False)][int(rng.integers(4))]
    cpu, threads = str(rng.choice(LEVELS)), int(rng.choice([1, 1, 2, 3]))
    network = graphc.compile(form, threads=threads, cpu=cpu, optimized=optimized)
    for side in (3, 9, 17, 33):
        sizes = {s: int(rng.integers(1, 4 if s == "N" else side + 1)) for s in graph.symbols}
        inputs = random_inputs(graph, sizes, seed)
        if not takes(graph, inputs):
            with suppress(InputError):
                network(*inputs)
                raise AssertionError(f"the code takes {sizes}\n{graph}")
            continue
        expected, where = run_reference(graph, inputs, DType.F64), f"at {sizes}\n{graph}"
        check(
            run(network, inputs), expected, f"{cpu} code for {threads} threads, optimized={optimized}, {where}\n{form}"
        )
        check(run_reference(rewritten, inputs), expected, f"reference after {names} {where}")
        check(run_reference(again, inputs), expected, f"ONNX and back {where}")
        given = dict(zip([i.name for i in model.graph.input], inputs, strict=True))
        check(run_onnxruntime(model, given), expected, f"ONNX Runtime {where}")
    return {"done": "agrees"}


def rewrite(graph: Graph, rng: np.random.Generator) -> tuple[Graph, str]:
    """The graph after passes that may be left out, run twice and change places, and their names."""
    chosen = [PIPELINE[i] for i in rng.integers(len(PIPELINE), size=int(rng.integers(1, 2 * len(PIPELINE))))]
    return optimize(graph, chosen), ", ".join(p.__name__ for p in chosen)


def try_passes(seed: int) -> None:
    """What passes in any order give means the same, and so does its code."""
    graph = eliminate_dead_code(draw_graph(seed))
    found, names = rewrite(graph, np.random.default_rng([seed, 2]))
    network = graphc.compile(found, threads=1, optimized=False)
    for side in (5, 16):
        inputs = random_inputs(graph, {s: side if s != "N" else 2 for s in graph.symbols}, seed)
        if takes(graph, inputs):
            expected = run_reference(graph, inputs, DType.F64)
            check(run_reference(found, inputs), expected, f"reference after {names}\n{graph}")
            check(run(network, inputs), expected, f"code after {names}\n{graph}")


# ---- files ----------------------------------------------------------------------------------------------------------


def try_file(seed: int) -> Outcome:
    """A model file with one to five changes: an error of graphc's, or a result."""
    rng = np.random.default_rng([seed, 3])
    model = to_model(eliminate_dead_code(draw_graph(seed, steps=int(rng.integers(1, 5)))))
    for _ in range(int(rng.integers(1, 6))):
        with suppress(ValueError):  # a number that the field cannot hold
            mutate(model, rng)
    try:
        model = ModelProto.FromString(cut(model.SerializeToString(), rng))
    except DecodeError:  # of which `graphc.load` makes a FileError
        return {"done": "not a model"}
    return use(model)


def use(model: ModelProto) -> Outcome:
    """Read, compile and run a model, as far as it can be."""
    try:
        graph: Graph = from_model(model)
        network, sizes = graphc.compile(graph, threads=1), {s: 2 if s == "N" else 9 for s in graph.symbols}
        try:
            inputs = random_inputs(graph, sizes)
        except MemoryError:
            return {"done": "takes inputs of some TiB"}
        network(*inputs)
    except GraphcError as error:
        return {"done": type(error).__name__} if "\n" not in str(error) else {"failure": f"several lines: {error}"}
    return {"done": "runs"}


def mutate(model: ModelProto, rng: np.random.Generator) -> None:
    """Change one field of one message, drop or repeat it, or move it to another place."""
    messages = list(messages_of(model.graph))
    message = messages[int(rng.integers(len(messages)))]
    fields = [f for f, _ in message.ListFields()]
    if not fields:
        return
    field = fields[int(rng.integers(len(fields)))]
    if field.name == "raw_data" and rng.random() < 0.8:
        return  # numbers make few differences
    if rng.random() < 0.1:
        message.ClearField(field.name)
    elif field.is_repeated:
        mutate_list(getattr(message, field.name), rng, model)
    elif field.cpp_type != field.CPPTYPE_MESSAGE:
        value = change(getattr(message, field.name), rng, model)
        if field.cpp_type != field.CPPTYPE_ENUM or value in field.enum_type.values_by_number:
            setattr(message, field.name, value)


def mutate_list(values: object, rng: np.random.Generator, model: ModelProto) -> None:
    """Drop, repeat, swap or change an element."""
    listed: list[object] = list(values)  # type: ignore[call-overload]
    i, j = (int(k) for k in rng.integers(len(listed), size=2))
    what = rng.integers(4)
    if what == 0:
        del listed[i]
    elif what == 1:
        listed.insert(j, listed[i])
    elif what == 2 or isinstance(listed[i], Message):
        listed[i], listed[j] = listed[j], listed[i]
    else:
        listed[i] = change(listed[i], rng, model)
    copies = [type(x).FromString(x.SerializeToString()) if isinstance(x, Message) else x for x in listed]
    del values[:]  # type: ignore[attr-defined]
    values.extend(copies)  # type: ignore[attr-defined]


def change(value: object, rng: np.random.Generator, model: ModelProto) -> object:
    """Another value of the same kind."""

    def pick(choices: tuple[object, ...]) -> object:
        return choices[int(rng.integers(len(choices)))]

    if isinstance(value, bytes):
        return cut(value, rng)
    if isinstance(value, str):
        names = [n for node in model.graph.node for n in (*node.input, *node.output)]
        return pick((*TEXTS, *names))
    if isinstance(value, float):
        return pick((*FLOATS, value * 2, -value))
    assert isinstance(value, int)
    chosen = pick((*NUMBERS, value + 1, value - 1, value * 2))
    assert isinstance(chosen, int)
    return chosen if -(2**31) <= chosen < 2**31 or rng.random() < 0.5 else 3


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    """Mostly the same bytes; else a part of them, or with one changed."""
    if not data or rng.random() < 0.9:
        return data
    at = int(rng.integers(len(data)))
    return data[:at] if rng.random() < 0.5 else data[:at] + bytes([int(rng.integers(256))]) + data[at + 1 :]


def messages_of(message: Message) -> list[Message]:
    """A message and all in it, but for the contents of tensors."""
    found = [message]
    for field, value in message.ListFields():
        if field.cpp_type == field.CPPTYPE_MESSAGE and not isinstance(message, TensorProto):
            for inner in value if field.is_repeated else [value]:
                found += messages_of(inner)
    return found


# ---- both -----------------------------------------------------------------------------------------------------------


def limited(action: Callable[[int], Outcome], seeds: Sequence[int]) -> Outcome:
    """The outcomes, or failures as text, within the limits of hostile files."""
    limit()
    return {"all": [attempt(action, seed) for seed in seeds]}


def attempt(action: Callable[[int], Outcome], seed: int) -> Outcome:
    try:
        return action(seed)
    except BaseException as error:  # whatever it is, it is a finding
        return {"failure": f"{type(error).__name__}: {str(error)[:2000]}"}


def run_all(action: Callable[[int], Outcome], seeds: Sequence[int]) -> list[Outcome]:
    """The outcome of each, from one process; if that dies, from one process each."""
    outcome = fork(partial(limited, action, seeds))
    if isinstance(found := outcome.get("all"), list):
        return found
    return [outcome] if len(seeds) == 1 else [run_all(action, [seed])[0] for seed in seeds]


def main(minutes: float, seed: int) -> int:
    """Run until the time is over; the exit status is 1 if there was a finding."""
    print(f"seed {seed}, {minutes:g} minutes", flush=True)
    counts, findings, begin, first = Counter[str](), 0, time.monotonic(), seed
    use(to_model(draw_graph(0)))  # imports, once for all
    while time.monotonic() < begin + 60 * minutes:
        for action in (try_network, try_file):
            seeds = range(seed, seed + BATCH)
            for number, outcome in zip(seeds, run_all(action, seeds), strict=True):
                counts[f"{action.__name__[4:]}: {outcome.get('done', 'FAILED')}"] += 1
                if "done" not in outcome:
                    findings += 1
                    print(f"{action.__name__}({number}): {outcome.get('killed')} {outcome.get('failure')}", flush=True)
            seed += BATCH
        if (seed - first) % 2000 == 0:
            summarise(counts, begin)
    summarise(counts, begin)
    return int(findings > 0)


def summarise(counts: Counter[str], begin: float) -> None:
    listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    print(f"{time.monotonic() - begin:.0f} s: {listed}; in all {sum(counts.values())}", flush=True)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time()) % 10**6 * 1000))
