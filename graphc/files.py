"""Files that are whole or absent.

What is not whole yet is called `.NAME.something.part`, and its process holds its lock. A process that is killed leaves
it, unlocked, and whoever writes NAME next removes it.
"""

import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from graphc.errors import FileError

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def replace_file(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file to write `path` into, with the permissions `mode` less the umask.

    `path` itself changes at the end, if all went well, once the bytes lie on the disk: also a crash of the machine
    leaves the old file or the new one. Errors: FileError, naming it.
    """
    # in the same folder, so that the last step is one rename; two threads may write the same file
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        with _cleaned(path.parent, path.name):
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
            _lock(descriptor)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)  # before the name changes: else a crash could leave a file of zeros
            os.replace(part, path)
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):  # renamed, or never made
            part.unlink()


@contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """A folder in `parent` for what becomes `name`; it goes at the end. Errors: OSError."""
    with ExitStack() as stack:
        with _cleaned(parent, name):
            folder = stack.enter_context(tempfile.TemporaryDirectory(".part", f".{name}.", parent))
            descriptor = os.open(folder, FOLDER)
            stack.callback(os.close, descriptor)
            _lock(descriptor)
        yield Path(folder)


@contextmanager
def _cleaned(folder: Path, name: str) -> Iterator[None]:
    """Remove the parts of `name` that no process holds.

    Until the end, nobody else removes any, so that a new one can be locked in peace.
    """
    with ExitStack() as stack:
        with suppress(OSError):  # there is no such folder, or nobody may look into it
            descriptor = os.open(folder, FOLDER)
            stack.callback(os.close, descriptor)
            if _lock(descriptor):
                with os.scandir(folder) as entries:
                    parts = [e for e in entries if e.name.startswith(f".{name}.") and e.name.endswith(".part")]
                for part in parts:
                    with suppress(OSError):  # it is another user's, or has gone
                        _remove_unlocked(part)
        yield


def _remove_unlocked(part: "os.DirEntry[str]") -> None:
    descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not _lock(descriptor):
            return
        if part.is_dir(follow_symlinks=False):
            shutil.rmtree(part)
        else:
            os.unlink(part)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock the file for as long as it is open; False if it is locked already, or cannot be on this file system."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
