"""From the options of `graphc train` to a network with its first weights, an optimiser and a schedule."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from graphc.cli.loading import find_model
from graphc.errors import InputError
from graphc.ir import Builder, Graph, Node, Param, Value
from graphc.ops import BatchNorm
from graphc.optim import SGD, Adam, AdamW, Optimizer
from graphc.passes import enter_training
from graphc.passes.spell_batch_norm import spell_out
from graphc.schedules import Constant, Cosine, Schedule, Steps, WarmUp
from graphc.state import read_state
from graphc.training import add_cross_entropy, trainable, training_step

MOMENTUM = 0.9  # the default that most papers use
DECAY_EVERY = 30  # epochs (He et al. 2016)
UNTOLD = ("output", "resume", "threads")  # options that do not change what is learnt


@dataclass(frozen=True)
class Options:
    """The options of `graphc train`, but for the network, the data and the files."""

    epochs: int
    batch: int
    lr: float
    schedule: str
    decay_every: int | None
    warmup: int
    optimizer: str
    momentum: float | None
    weight_decay: float | None
    clip: float | None
    seed: int
    resume: bool
    weights: Path | None
    classes: int | None
    freeze: tuple[str, ...]
    size: tuple[int, int] | None
    mean: list[float] | None
    std: list[float] | None
    threads: int | None


def make_optimizer(name: str, momentum: float | None, weight_decay: float | None) -> Optimizer:
    """The optimiser of these options. Errors: InputError."""
    if momentum is not None and name not in ("momentum", "nesterov"):
        raise InputError(f"--momentum: expected with --optimizer momentum or nesterov, got {name}")
    if name in ("sgd", "momentum", "nesterov"):
        return SGD((momentum or MOMENTUM) * (name != "sgd"), name == "nesterov", weight_decay or 0.0)
    if name == "adam":
        return Adam(weight_decay=weight_decay or 0.0)
    return AdamW() if weight_decay is None else AdamW(weight_decay=weight_decay)


def make_schedule(options: Options, steps: int) -> Schedule:
    """The rate of each step, where an epoch has `steps`. Errors: InputError."""
    if options.decay_every and options.schedule != "step":
        raise InputError(f"--decay-every: expected with --schedule step only, got {options.schedule}")
    if options.warmup >= options.epochs:
        raise InputError(f"--warmup: expected fewer epochs than the {options.epochs} in all, got {options.warmup}")
    match options.schedule:
        case "constant":
            then: Schedule = Constant(options.lr)
        case "step":
            then = Steps(options.lr, steps * (options.decay_every or DECAY_EVERY))
        case _:
            then = Cosine(options.lr, steps * (options.epochs - options.warmup))
    return WarmUp(then, steps * options.warmup)


def choose_graph(
    graph: Graph,
    as_step: bool,
    optimizer: str,
    momentum: float | None,
    weight_decay: float | None,
    clip: float | None,
    seed: int,
) -> Graph:
    """The network, or if `as_step` its step of training. InputError for an option that only a training step has."""
    if as_step:
        trained = enter_training(add_cross_entropy(graph), seed)
        return training_step(trained, make_optimizer(optimizer, momentum, weight_decay), clip=clip)
    context = click.get_current_context()
    for option in context.command.params:
        typed = context.get_parameter_source(str(option.name)) == ParameterSource.COMMANDLINE
        if typed and option.name in ("optimizer", "momentum", "weight_decay", "clip", "seed"):
            raise InputError(f"{option.opts[-1]}: expected together with --training-step only")
    return graph


def prepare_network(model: str, options: Options) -> Graph:
    """The network with its first weights, and what is frozen not trainable. Errors: InputError, FileError."""
    graph = find_model(model, num_classes=options.classes, seed=options.seed, trained=False)
    if options.weights:
        graph = _load_weights(graph, options.weights, replaceable=options.classes is not None)
    return freeze(graph, options.freeze)


def freeze(graph: Graph, patterns: Sequence[str]) -> Graph:
    """The network whose parameters of these names do not change; InputError for a pattern that fits none.

    Running statistics are parameters, too: a batch norm whose statistics are frozen normalises by them in training.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in graph.params):
            some = ", ".join(list(trainable(graph))[:5])
            raise InputError(f"--freeze: expected a pattern that fits a parameter ({some}, ...), got '{pattern}'")
    frozen = {n for n in graph.params if any(fnmatchcase(n, pattern) for pattern in patterns)}
    params = {
        n: Param(p.value, lambda p=p: p.array, trainable=False) if n in frozen else p  # type: ignore[misc]
        for n, p in graph.params.items()
    }

    def rule(b: Builder, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        fixed = isinstance(node.op, BatchNorm) and not frozen.isdisjoint(v.name for v in node.inputs[3:])
        return spell_out(b, node, inputs) if fixed else None  # enter_training leaves what is spelled out as it is

    return replace(graph, params=params).rewrite(rule)


def _load_weights(graph: Graph, path: Path, replaceable: bool) -> Graph:
    """The network with the file's parameters; if `replaceable`, those of another shape stay as they are."""
    arrays = read_state(path)
    other = [n for n, p in graph.params.items() if n in arrays and arrays[n].shape != p.value.type.shape]
    if replaceable and other:
        click.echo(f"graphc: note: {path} does not fit {', '.join(other)}, which begin with random weights", err=True)
        arrays |= {name: graph.params[name].array for name in other}
    return graph.with_params(arrays, str(path))


def describe_command() -> str:
    """The command that is being run, without what does not change its result."""
    context = click.get_current_context()
    words = ["graphc", "train", str(context.params["model"])]
    for option in context.command.params:
        name = str(option.name)
        typed = context.get_parameter_source(name) == ParameterSource.COMMANDLINE
        if isinstance(option, click.Option) and typed and name not in UNTOLD:
            value = context.params[name]
            values = value if option.multiple else [value]
            words += [word for v in values for word in (option.opts[-1], _spell(name, v))]
    return shlex.join(words)


def _spell(name: str, value: Any) -> str:
    """An option's value as it is typed."""
    if name == "size":
        return "x".join(map(str, value))
    return ",".join(f"{x:g}" for x in value) if isinstance(value, list) else str(value)
