"""Arrays by name in files: a network's weights as safetensors, NumPy's .npz or PyTorch's .pth.

Those of a .safetensors file can stay there until they are used (stored.py).

Nothing is unpickled but by PyTorch's own loader of weights, which makes tensors and nothing else.
"""

import json
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.errors import FileError
from graphc.stored import LARGE, TYPES, Stored, find_stored

_NAMES = {dtype: name for name, dtype in TYPES.items()}


def open_state(path: str | os.PathLike[str]) -> Mapping[str, NDArray[Any] | Stored]:
    """As `read_state`, but large arrays of a .safetensors file are read when they are used. Errors: FileError."""
    if Path(path).suffix != ".safetensors":
        return read_state(path)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            stored = find_stored(path)
            rest = {name: file.get_tensor(name) for name in file.keys() if name not in stored}  # noqa: SIM118
    except (OSError, SafetensorError, TypeError, AttributeError) as error:  # as below
        raise _unreadable(path, error) from None
    return {name: s if s.nbytes >= LARGE else s.read() for name, s in stored.items()} | rest


def read_state(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """All arrays of a .safetensors, .npz, .pth or .pt file, by name. Errors: FileError."""
    match Path(path).suffix:
        case ".safetensors":
            return _read_safetensors(path)
        case ".npz":
            return _read_npz(path)
        case ".pth" | ".pt":
            return _read_torch(path)
    raise FileError(f"{path}: expected a .safetensors, .npz or .pth file")


def _read_safetensors(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (OSError, SafetensorError, TypeError, AttributeError) as error:  # the last two: types that NumPy lacks
        raise _unreadable(path, error) from None


def _unreadable(path: str | os.PathLike[str], error: Exception) -> FileError:
    return FileError(f"{path}: cannot be read as safetensors ({error})")


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The text entries beside the arrays of a .safetensors file, in the order of their names. Errors: FileError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return dict(sorted((file.metadata() or {}).items()))  # the reader gives them in random order
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from None


def _read_npz(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("one array without a name")
        with archive:
            return dict(archive)
    except (OSError, ValueError, EOFError) as error:
        raise FileError(f"{path}: cannot be read as .npz ({error})") from None


def _read_torch(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    if find_spec("torch") is None:
        raise FileError(f"{path}: expected PyTorch to read it with (pip install torch), or a .safetensors or .npz file")
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many classes: of pickle, of zip files, of its own
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise FileError(f"{path}: cannot be read as PyTorch's weights ({reason})") from None
    if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise FileError(f"{path}: expected tensors by name, as net.state_dict() has them, got something else")
    return {name: (t.float() if t.dtype == torch.bfloat16 else t).detach().numpy() for name, t in state.items()}


def format_safetensors(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """A .safetensors file of these arrays in their order and these texts.

    The library's own writer orders the texts at random; here the same contents are the same bytes.
    """
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        dtype = _NAMES[array.dtype]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the data begin at a multiple of 8
    data = (np.ascontiguousarray(array).tobytes() for array in arrays.values())
    return b"".join([len(text).to_bytes(8, "little"), text, *data])
