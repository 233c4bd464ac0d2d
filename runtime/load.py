"""Loading a library that `graphc.build` made. It needs NumPy, and nothing of the compiler."""

import ctypes
import mmap
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from graphc.errors import FileError
from graphc.runtime.network import ABI_VERSION, SIGNATURES, Network, check_threads

_ERROR_FILE, _ERROR_WEIGHTS = 7, 8  # codes of runtime/api.ll
_LONGEST_NAME = 200  # characters: a file name has at most 255
_versions: dict[Path, list[tuple[int, int, int]]] = {}  # of each library, those that this process has loaded


def load(
    path: str | os.PathLike[str], threads: int | None = None, weights: str | os.PathLike[str] | None = None
) -> Network:
    """The network in the shared library `path`.

    `threads` counts the calling thread; None takes GRAPHC_NUM_THREADS or every CPU that this process may use.
    `weights` is the weights file of a network built with weights="file"; None takes NAME.weights beside the library.
    FileError if the library or the weights cannot be read or are not what they should be. The result pickles as the
    paths, so the files must be there where it is unpickled.
    """
    file, given = Path(path).absolute(), None if weights is None else Path(weights).absolute()
    count = check_threads(threads)
    prefix = _find_prefix(file)
    try:
        library = ctypes.CDLL(_spell(file))
    except OSError as error:
        raise FileError(f"{file}: cannot be loaded: {error}") from None
    functions = _find_functions(file, library, prefix)

    def create(out: Any) -> int:
        if given is None:
            code = int(functions["create"](out, count, None))
            if code != _ERROR_WEIGHTS:  # they are embedded
                return code
        source = given or file.with_name(f"{prefix}.weights")
        code = int(functions["create"](out, count, os.fsencode(source)))
        if code == _ERROR_FILE:
            raise FileError(f"{source}: expected the weights of {file}, got no readable file")
        if code == _ERROR_WEIGHTS:
            raise FileError(f"{source}: expected the weights of {file}, got something else")
        return code

    return Network(functions, create, library, (load, (file, threads, given)))


def _find_prefix(file: Path) -> str:
    """What the library's functions are called before `_run` and so on: the file's stem, if it has not been renamed.

    It is looked up in the file, so that nothing of a library that graphc has not made is run.
    """
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data.find(b"\0" + os.fsencode(file.stem) + b"_abi_version\0") >= 0:
                return file.stem
            end = max(data.find(b"_abi_version\0"), 0)
            found = re.search(rb"[A-Za-z]\w*$", data[max(end - _LONGEST_NAME, 0) : end])
    except ValueError:  # an empty file cannot be mapped
        found = None
    except OSError as error:
        raise FileError(f"{file}: cannot be read: {error.strerror}") from None
    if not found:
        raise FileError(f"{file}: expected a shared library made by graphc.build, got something else")
    return found[0].decode()


def _spell(file: Path) -> str:
    """A spelling of the path that is new if the file is.

    A library stays in the process once it is loaded, and the system gives it back for the same path even if the file
    there has been replaced; so a second version is called `folder/./net.so`, a third `folder/././net.so`.
    """
    status = file.stat()
    version, known = (status.st_dev, status.st_ino, status.st_mtime_ns), _versions.setdefault(file, [])
    if version not in known:
        known.append(version)
    return f"{file.parent}/{'./' * known.index(version)}{file.name}"


def _find_functions(file: Path, library: ctypes.CDLL, prefix: str) -> Mapping[str, Callable[..., Any]]:
    """The functions of SIGNATURES; FileError if the library has another interface."""
    version = library[f"{prefix}_abi_version"]()
    if version != ABI_VERSION:
        raise FileError(f"{file}: expected interface version {ABI_VERSION}, got {version}; build it again")
    functions = {}
    for name, (result, arguments) in SIGNATURES.items():
        try:
            function = library[f"{prefix}_{name}"]
        except AttributeError:
            raise FileError(
                f"{file}: expected a library made by graphc.build, got one without {prefix}_{name}"
            ) from None
        function.restype, function.argtypes = result, arguments
        functions[name] = function
    return functions
