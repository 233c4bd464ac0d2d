"""Files that are whole or absent."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from graphc.errors import FileError


@contextmanager
def replace_file(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file to write `path` into, with the permissions `mode` less the umask.

    `path` itself changes at the end, if all went well, once the bytes lie on the disk: also a crash of the machine
    leaves the old file or the new one. Errors: FileError, naming it.
    """
    # in the same folder, so that the last step is one rename; two threads may write the same file
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
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
