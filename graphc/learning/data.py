"""Samples to train with and samples held out: from a folder of class folders, an .npz file, or scanned digits.

A sample is an array of the network's input type without N, and its class from 0 to K-1; or for a network whose output
is a map, a class for each pixel. What a file holds is checked when it is read, and each error names the file.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graphc.errors import FileError, InputError
from graphc.images import normalise_image, read_image, resize_image
from graphc.ir import Array, Graph, TensorType
from graphc.state import read_state

Ints = NDArray[np.int64]
Reading = tuple[Sequence[float], Sequence[float]]
HELD_OUT = 10  # where the data has no held-out part of its own, every tenth sample of a class becomes it
PICTURES = frozenset([".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"])
# The parts of an .npz file: training samples, and if they are there, held-out ones (as Keras names them)
TRAINING, TESTING = (("x_train", "y_train"), ("x", "y"), ("images", "labels")), ("x_test", "y_test")
SPLITS = ("train", ("test", "val", "valid", "validation"))  # folders, if the data is split already


@dataclass(frozen=True)
class Wanted:
    """What a network wants: samples `type` f32[N,...], `classes` of them, one for each pixel if `dense`.

    `size` is the height and width for images; `mean` and `std` normalise them.
    """

    type: TensorType
    classes: int
    dense: bool = False
    size: tuple[int, int] | None = None
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)


class Samples(ABC):
    """Samples that are read in batches."""

    @abstractmethod
    def __len__(self) -> int:
        """How many."""

    @abstractmethod
    def read(self, places: Ints) -> tuple[Array, Ints]:
        """These samples f32[n,...] and their labels i64[n,...]."""

    def name(self, place: int) -> str:
        """What an error calls this sample."""
        return f"sample {place}"


class Data(ABC):
    """Where samples come from: `labels` names the classes, if they have names.

    `reading` holds mean and std, if the data reads pictures in a way of its own; None leaves that to the network.
    """

    labels: tuple[str, ...] = ()
    reading: Reading | None = None

    @abstractmethod
    def train(self, epoch: int) -> Samples:
        """What this epoch, from 0, trains with."""

    @abstractmethod
    def test(self) -> Samples:
        """What has been held out."""


@dataclass(frozen=True)
class ArraySamples(Samples):
    """Samples in memory."""

    x: Array
    y: Ints
    source: str = "data"

    def __len__(self) -> int:
        return len(self.x)

    def read(self, places: Ints) -> tuple[Array, Ints]:
        return self.x[places], self.y[places]

    def name(self, place: int) -> str:
        return f"{self.source}, sample {place}"


@dataclass(frozen=True)
class FileSamples(Samples):
    """Pictures that are read when they are needed."""

    files: Sequence[Path]
    y: Ints
    wanted: Wanted

    def __len__(self) -> int:
        return len(self.files)

    def read(self, places: Ints) -> tuple[Array, Ints]:
        return np.stack([self._read_one(self.files[i]) for i in places]), self.y[places]

    def name(self, place: int) -> str:
        return str(self.files[place])

    def _read_one(self, path: Path) -> Array:
        channels = self.wanted.type.shape[1]
        assert isinstance(channels, int) and self.wanted.size is not None
        image = read_image(path, channels)
        if image.shape[1:] != self.wanted.size:
            image = resize_image(image, *self.wanted.size)
        return normalise_image(image, self.wanted.mean, self.wanted.std)


@dataclass(frozen=True)
class SplitData(Data):
    """The same samples in every epoch."""

    training: Samples
    testing: Samples
    labels: tuple[str, ...] = ()
    reading: Reading | None = None

    def train(self, epoch: int) -> Samples:
        return self.training

    def test(self) -> Samples:
        return self.testing


def want(graph: Graph, size: tuple[int, int] | None, mean: Sequence[float], std: Sequence[float]) -> Wanted:
    """What this network, without its loss, wants to be trained with. Errors: InputError."""
    if len(graph.inputs) != 1:
        names = ", ".join(v.name for v in graph.inputs)
        raise InputError(f"network '{graph.name}': expected one input to fill with samples, got {names}")
    type, scores = graph.inputs[0].type, graph.outputs[0].type
    classes = scores.shape[1] if scores.rank in (2, 4) else None
    if not isinstance(classes, int) or classes < 2:
        raise InputError(f"network '{graph.name}': expected scores [N,K] or [N,K,P,Q] of 2 classes or more, got "
                         f"{graph.output_names[0]} {scores}")  # fmt: skip
    if type.rank == 4:
        fixed = tuple(d if isinstance(d, int) else None for d in type.shape[2:])
        given = size or (fixed[0] or 224, fixed[1] or 224)  # pixels: the usual size of classifiers
        if any(f not in (None, g) for f, g in zip(fixed, given, strict=True)):
            raise InputError(f"size: network '{graph.name}' wants {type}, got {given[0]}x{given[1]}")
        size = given
    elif size:
        raise InputError(f"size: network '{graph.name}' wants {type}, which are no images")
    return Wanted(type, classes, scores.rank == 4, size, mean, std)


def open_data(source: str, wanted: Wanted, seed: int = 0) -> Data:
    """The data that `source` names: "digits", "pages", an .npz file or a folder. Errors: InputError, FileError.

    `seed` decides what is drawn anew in every epoch (digits and pages).
    """
    if source in ("digits", "pages"):
        from graphc.learning.written import open_digits, open_pages

        return open_digits(wanted, seed) if source == "digits" else open_pages(wanted, seed)
    path = Path(source)
    if path.suffix == ".npz":
        return _open_npz(path, wanted)
    if path.is_dir():
        return _open_folder(path, wanted)
    raise FileError(
        f"{source}: expected a folder of class folders, an .npz file, 'digits' or 'pages', got none of them"
    )


def hold_out(labels: Ints) -> tuple[Ints, Ints]:
    """The places of the samples to train with and of those held out: of each class the first, the 11th, ...

    A class of one sample is trained with.
    """
    held = np.zeros(len(labels), bool)
    for k in np.unique(labels):
        places = np.flatnonzero(labels == k)
        held[places[::HELD_OUT] if len(places) > 1 else []] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _open_folder(path: Path, wanted: Wanted) -> Data:
    """FOLDER/CLASS/IMAGE, or FOLDER/train/CLASS/IMAGE and FOLDER/val/CLASS/IMAGE. Classes in the order of names."""
    if wanted.size is None or wanted.dense:
        raise InputError(f"{path}: class folders of images fit a classifier of images, got a network for {wanted.type}")
    first, others = SPLITS
    second = next((path / name for name in others if (path / name).is_dir()), None)
    if (path / first).is_dir() and second:
        names, files, labels = _list_folder(path / first)
        test_names, test_files, test_labels = _list_folder(second)
        if test_names != names:
            raise FileError(f"{second}: expected the classes {', '.join(names)}, got {', '.join(test_names)}")
        parts = [(files, labels), (test_files, test_labels)]
    else:
        names, files, labels = _list_folder(path)
        parts = [([files[i] for i in places], labels[places]) for places in hold_out(labels)]
    if len(names) != wanted.classes:
        raise InputError(
            f"{path}: {len(names)} class folders ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''}), "
            f"but the network has {wanted.classes} classes; --classes {len(names)} replaces its last layer"
        )
    training, testing = (FileSamples(files, labels, wanted) for files, labels in parts)
    return SplitData(training, testing, tuple(names))


def _list_folder(path: Path) -> tuple[list[str], list[Path], Ints]:
    """The classes of a folder, its pictures, and the class of each. FileError for a class without a picture."""
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(folders) < 2:
        raise FileError(f"{path}: expected a folder for each of 2 classes or more, got {len(folders)}")
    files: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES and not p.name.startswith("."))
        if not found:
            raise FileError(f"{folder}: expected pictures of class '{folder.name}', got none")
        files += found
        labels += [label] * len(found)
    return [folder.name for folder in folders], files, np.array(labels, np.int64)


def _open_npz(path: Path, wanted: Wanted) -> Data:
    """Arrays x and y (or images and labels), or x_train, y_train, x_test and y_test. Bytes 0..255 become 0..1."""
    arrays = read_state(path)
    names = next((pair for pair in TRAINING if set(pair) <= arrays.keys()), None)
    if names is None:
        found = ", ".join(arrays) or "none"
        raise FileError(f"{path}: expected arrays x and y, or x_train, y_train, x_test and y_test, got {found}")
    x, y = _check_arrays(path, names, arrays, wanted)
    if set(TESTING) <= arrays.keys():
        testing = _check_arrays(path, TESTING, arrays, wanted)
        return SplitData(ArraySamples(x, y, str(path)), ArraySamples(*testing, f"{path}, held out"))
    kept, held = hold_out(y.reshape(len(y), -1)[:, 0]) if not wanted.dense else hold_out(np.zeros(len(y), np.int64))
    held = held if len(held) else kept
    return SplitData(ArraySamples(x[kept], y[kept], str(path)), ArraySamples(x[held], y[held], f"{path}, held out"))


def _check_arrays(
    path: Path, names: tuple[str, str], arrays: Mapping[str, Array], wanted: Wanted
) -> tuple[Array, Ints]:
    """Samples in the network's dtype and their labels i64. Errors: FileError that names the array and the sample."""
    x, y = (arrays[name] for name in names)
    if x.dtype == np.uint8:
        x = x.astype(np.float32) / 255
    if x.dtype.kind != "f" or y.dtype.kind not in "iu":
        raise FileError(f"{path}: expected floats or bytes in {names[0]} and integers in {names[1]}, got {x.dtype} and "
                        f"{y.dtype}")  # fmt: skip
    if x.ndim == 3 and wanted.type.rank == 4:
        x = x[:, None]  # grey images
    size = (None, *(d if isinstance(d, int) else None for d in wanted.type.shape[1:]))
    if x.ndim != len(size) or any(d not in (None, got) for d, got in zip(size, x.shape, strict=True)) or not len(x):
        raise FileError(f"{path}: {names[0]}: expected samples {wanted.type}, got {list(x.shape)}")
    labels = (len(x), *x.shape[2:]) if wanted.dense else (len(x),)
    if y.shape != labels:
        raise FileError(f"{path}: {names[1]}: expected labels {list(labels)}, got {list(y.shape)}")
    for i, sample in enumerate(x):
        if not np.isfinite(sample).all():
            raise FileError(f"{path}: {names[0]}: expected finite numbers, sample {i} has others")
    outside = np.flatnonzero(((y < 0) | (y >= wanted.classes)).reshape(len(y), -1).any(axis=1))
    if len(outside):
        i = int(outside[0])
        found = next(int(k) for k in y[i].ravel() if not 0 <= k < wanted.classes)
        raise FileError(f"{path}: {names[1]}: expected labels from 0 to {wanted.classes - 1}, sample {i} has {found}")
    if wanted.size and (list(wanted.mean), list(wanted.std)) != ([0.0], [1.0]):
        x = np.stack([normalise_image(image.astype(np.float32), wanted.mean, wanted.std) for image in x])
    return np.ascontiguousarray(x, wanted.type.dtype.numpy), y.astype(np.int64)
