"""Epochs of training: batches in a random order that the seed decides, and after each epoch a look at what is held out.

Nothing is kept between epochs but the trainer's state and step: the order of epoch e depends on the seed and e alone.
So a training that goes on from a checkpoint ends with the same bits as one that was never stopped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, isfinite

import numpy as np

from graphc.errors import GraphcError, InputError
from graphc.ir import Array
from graphc.learning.checkpoint import Epoch
from graphc.learning.data import Ints, Samples
from graphc.learning.trainer import Trainer
from graphc.schedules import Schedule

NAMED = 3  # samples of a bad batch that are named


@dataclass(frozen=True)
class Progress:
    """How far an epoch has come, after a batch: samples so far of all, mean loss and accuracy so far."""

    epoch: int
    done: int
    total: int
    loss: float
    accuracy: float


class LossError(GraphcError):
    """A loss that is infinite or no number; the message names the epoch and the batch."""


def train_epoch(
    trainer: Trainer,
    samples: Samples,
    held: Samples,
    schedule: Schedule,
    batch: int,
    seed: int,
    epoch: int,
    tell: Callable[[Progress], object] = lambda progress: None,
) -> Epoch:
    """One epoch, counted from 0, and then the samples `held` out. Batches have about `batch` samples each, evenly.

    LossError if a loss is not finite: then the trainer's state is spoilt, and what was saved before counts. (The step
    that spoils it has a finite loss yet: after an epoch's last one only the samples held out tell.)
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(samples))
    total = Mean()
    batches = split_batches(order, batch)
    for i, places in enumerate(batches):
        x, labels = read(trainer, samples, places)
        outputs = trainer.step(schedule(trainer.steps), **{trainer.graph.inputs[0].name: x, "labels": labels})
        names = [samples.name(int(place)) for place in places[:NAMED]] + ["..."] * (len(places) > NAMED)
        _check_loss(f"epoch {epoch + 1}, batch {i + 1} of {len(batches)} ({', '.join(names)})", float(outputs["loss"]))
        total.add(outputs, trainer.graph.output_names[1], labels)
        tell(Progress(epoch, total.samples, len(samples), total.loss, total.accuracy))
    test = evaluate(trainer, held, batch)
    _check_loss(f"epoch {epoch + 1}, samples held out", test.loss)
    return Epoch(total.loss, total.accuracy, test.loss, test.accuracy)


def _check_loss(where: str, loss: float) -> None:
    if not isfinite(loss):
        raise LossError(f"{where}: expected a finite loss, got {loss}; a lower learning rate or --clip may help")


def evaluate(trainer: Trainer, samples: Samples, batch: int) -> "Mean":
    """Loss and accuracy over all samples, as in inference."""
    total = Mean()
    for places in split_batches(np.arange(len(samples)), batch):
        x, labels = read(trainer, samples, places)
        outputs = trainer.evaluate(**{trainer.graph.inputs[0].name: x, "labels": labels})
        total.add(outputs, trainer.graph.output_names[1], labels)
    return total


def count_batches(samples: int, batch: int) -> int:
    """How many batches of at most `batch` samples there are."""
    return ceil(samples / batch)


def split_batches(order: Ints, batch: int) -> list[Ints]:
    """As few batches as have at most `batch` samples, as even as can be: no batch of one sample comes last.

    (The variance of one sample's channels is what batch norm divides by.)
    """
    return np.array_split(order, count_batches(len(order), batch))


def read(trainer: Trainer, samples: Samples, places: Ints) -> tuple[Array, Ints]:
    """The batch; InputError that names the sample if a label is no class of the network."""
    x, labels = samples.read(places)
    classes = trainer.graph.outputs[1].type.shape[1]
    assert isinstance(classes, int)
    for place, label in zip(places, labels, strict=True):
        if label.min() < 0 or label.max() >= classes:
            wrong = label.min() if label.min() < 0 else label.max()
            raise InputError(f"{samples.name(int(place))}: expected labels from 0 to {classes - 1}, got {wrong}")
    return x, labels


class Mean:
    """Mean loss and accuracy over batches."""

    def __init__(self) -> None:
        self.samples = self._labels = self._right = 0
        self._loss = 0.0

    def add(self, outputs: dict[str, Array], scores: str, labels: Ints) -> None:
        """Count a batch, whose outputs are the mean loss and the `scores` [N,K,...]."""
        self.samples += len(labels)
        self._labels += labels.size
        self._loss += float(outputs["loss"]) * len(labels)
        self._right += int((outputs[scores].argmax(axis=1) == labels).sum())

    @property
    def loss(self) -> float:
        """The mean over the samples."""
        return self._loss / self.samples

    @property
    def accuracy(self) -> float:
        """The share of right labels."""
        return self._right / self._labels
