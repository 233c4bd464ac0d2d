"""All that a training needs to go on to the same bits, as one .safetensors file, whole or not there."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from graphc.errors import FileError
from graphc.files import replace_file
from graphc.ir import Array
from graphc.state import format_safetensors, read_metadata, read_state

KEY = "graphc.training"  # of the one text in a checkpoint's metadata


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to: losses are means over samples, accuracies in 0..1 (of pixels, if each has a class)."""

    loss: float
    accuracy: float
    test_loss: float
    test_accuracy: float


@dataclass(frozen=True)
class Checkpoint:
    """The state after `len(history)` epochs and `steps` steps, under these settings."""

    state: Mapping[str, Array]
    steps: int
    history: tuple[Epoch, ...]
    settings: Mapping[str, Any]

    def write(self, path: Path) -> None:
        """Write the file; one that is there is replaced when the new one is complete. Errors: FileError."""
        history = [asdict(epoch) for epoch in self.history]
        text = json.dumps({"steps": self.steps, "history": history, "settings": dict(self.settings)})
        with replace_file(path) as file:
            file.write(format_safetensors(self.state, {KEY: text}))


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a file. Errors: FileError."""
    text = read_metadata(path).get(KEY)
    if text is None:
        raise FileError(f"{path}: expected a checkpoint of `graphc train`, got other tensors")
    found = json.loads(text)
    history = tuple(Epoch(**epoch) for epoch in found["history"])
    return Checkpoint(read_state(path), found["steps"], history, found["settings"])
