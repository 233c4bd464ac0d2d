"""`graphc train`: from the options to a network, data and a schedule; and what is told and written, epoch by epoch."""

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from json import dumps
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from graphc.cli.output import format_bytes, make_console, show_progress
from graphc.cli.recipes import Options, describe_command, make_optimizer, make_schedule, prepare_network
from graphc.cli.running import read_labels, read_numbers
from graphc.errors import FileError, GraphcError, InputError
from graphc.files import replace_file
from graphc.ir import Graph
from graphc.learning import Trainer
from graphc.learning.checkpoint import Checkpoint, Epoch, read_checkpoint
from graphc.learning.curve import draw_curve
from graphc.learning.data import Data, open_data, want
from graphc.learning.loop import Progress, count_batches, train_epoch
from graphc.pictures import save_png
from graphc.state import format_safetensors
from graphc.training import add_cross_entropy, trainable

FREE = ("epochs", "threads", "resume")  # options that may differ when a training goes on


def train_network(model: str, source: str, output: Path, options: Options) -> None:
    """Train, and after every epoch tell a line and write the parameters, the checkpoint and the curve."""
    if output.suffix != ".safetensors":
        raise InputError(f"{output}: expected a file that ends in .safetensors")
    if not output.absolute().parent.is_dir():
        raise FileError(f"{output}: expected a folder to write into, got none")  # now, not after an epoch
    graph = prepare_network(model, options)
    mean = options.mean or read_numbers(graph.meta, "mean", 0.0)
    std = options.std or read_numbers(graph.meta, "std", 1.0)
    wanted = want(graph, options.size, mean, std)
    data = open_data(source, wanted, options.seed)
    if data.reading:
        if options.mean or options.std:
            raise InputError(f"--{'mean' if options.mean else 'std'}: data '{source}' is not read from pictures")
        mean, std = map(list, data.reading)
    labels = data.labels or read_labels(graph.meta) or ()
    meta = {"mean": dumps(mean), "std": dumps(std)} | ({"labels": dumps(list(labels))} if labels else {})
    graph = replace(graph, meta={**graph.meta, **meta})
    run = _Run(graph, data, source, output, options, meta)
    run.start()
    try:
        run.go_on()
    except (GraphcError, KeyboardInterrupt):
        run.tell_kept()
        raise


class _Run:
    """A training under way."""

    def __init__(
        self, graph: Graph, data: Data, source: str, output: Path, options: Options, meta: Mapping[str, str]
    ) -> None:
        self.data, self.output, self.options, self.meta = data, output, options, meta
        self.checkpoint = output.with_suffix(".checkpoint.safetensors")
        self.curve = output.with_suffix(".png")
        self.console = make_console()
        self.history: tuple[Epoch, ...] = ()
        self.settings = {k: v for k, v in asdict(options).items() if k not in FREE}
        self.settings |= {"network": graph.name, "data": source, "weights": str(options.weights or "")}
        if options.schedule == "cosine":
            self.settings["epochs"] = options.epochs  # its rates depend on it
        self.settings = {k: list(v) if isinstance(v, tuple) else v for k, v in self.settings.items()}
        optimizer = make_optimizer(options.optimizer, options.momentum, options.weight_decay)
        first, self.held = data.train(0), data.test()
        self.samples = len(first)
        self.shapes = [a.shape[1:] for a in first.read(np.zeros(1, np.int64))]  # of a sample and its label
        self.schedule = make_schedule(options, count_batches(self.samples, options.batch))
        with show_progress(f"compiling the training step of {graph.name}"):
            self.trainer = Trainer(
                add_cross_entropy(graph), optimizer, clip=options.clip, seed=options.seed, threads=options.threads
            )

    def start(self) -> None:
        """Take over the checkpoint if told to, and tell what will be done and what memory it takes."""
        if self.options.resume:
            found = read_checkpoint(self.checkpoint)
            for key, value in self.settings.items():
                if found.settings.get(key) != value:
                    option = key if key == "network" else f"--{key.replace('_', '-')}"
                    raise InputError(f"--resume: {self.checkpoint} was made with {option} {found.settings.get(key)}, "
                                     f"got {value}")  # fmt: skip
            try:
                self.trainer.restore(found.state, found.steps)
            except InputError as error:
                raise InputError(f"--resume: {self.checkpoint}: {error}") from None
            self.history = found.history
        elif self.checkpoint.exists():
            raise FileError(f"{self.checkpoint}: there already; --resume goes on from it, or remove it to begin anew")
        graph, count = self.trainer.graph, min(self.options.batch, self.samples)
        batch = zip((graph.inputs[0].name, "labels"), self.shapes, strict=True)
        memory = self.trainer.memory(**{name: (count, *shape) for name, shape in batch})
        trained = sum(graph.params[name].array.size for name in trainable(graph))
        parts = (
            f"parameters {format_bytes(memory.parameters)}, optimiser {format_bytes(memory.optimizer)}, "
            f"activations and gradients {format_bytes(memory.workspace)}, batch {format_bytes(memory.batch)}"
        )
        self.console.print(f"{graph.name}: {trained} parameters to train, {self.samples} samples an epoch, "
                           f"{len(self.held)} held out")  # fmt: skip
        self.console.print(f"memory of a step: {format_bytes(memory.total)} ({parts})")

    def go_on(self) -> None:
        """The epochs that are left."""
        with self._make_bar() as bar:
            for epoch in range(len(self.history), self.options.epochs):
                task = bar.add_task(f"epoch {epoch + 1}/{self.options.epochs}", total=self.samples, told="")
                begun = time.monotonic()

                def tell(p: Progress, task: Any = task, begun: float = begun) -> None:
                    speed = p.done / (time.monotonic() - begun)
                    told = f"loss {p.loss:.4f}  accuracy {p.accuracy:.1%}  {speed:.0f} images/s"
                    bar.update(task, completed=p.done, total=p.total, told=told)

                options = self.options
                samples = self.data.train(epoch)
                result = train_epoch(
                    self.trainer, samples, self.held, self.schedule, options.batch, options.seed, epoch, tell
                )
                bar.remove_task(task)
                self.history += (result,)
                self._write()
                self.console.print(
                    f"epoch {epoch + 1}/{options.epochs}  loss {result.loss:.4f}  accuracy {result.accuracy:.2%}  "
                    f"held out: loss {result.test_loss:.4f}  accuracy {result.test_accuracy:.2%}"
                )
        for path in (self.output, self.checkpoint, self.curve):
            click.echo(f"{path}  {format_bytes(path.stat().st_size)}")

    def tell_kept(self) -> None:
        """Where the last good state is."""
        if self.history:
            click.echo(f"graphc: {self.checkpoint} holds what was there after epoch {len(self.history)}", err=True)

    def _write(self) -> None:
        """The parameters, the curve, and last the checkpoint, which counts."""
        last = self.history[-1]
        result = f"epoch {len(self.history)}, held-out accuracy {last.test_accuracy:.2%}"
        meta = {**self.meta, "training": f"{describe_command()} ({result})"}
        with replace_file(self.output) as file:
            file.write(format_safetensors(self.trainer.parameters(), meta))
        save_png(self.curve, draw_curve(self.history, self.trainer.graph.name))
        Checkpoint(self.trainer.state, self.trainer.steps, self.history, self.settings).write(self.checkpoint)

    def _make_bar(self) -> Bar:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"),
                   TimeRemainingColumn())  # fmt: skip
        console = make_console(stderr=True)
        return Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
