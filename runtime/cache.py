"""What was computed once and is kept on disk: a folder of entries, each bytes under a key, which is a SHA-256.

An entry is a file of the user's own: a mark, the SHA-256 of all that follows, the key, the content. One that is cut
short, altered, under another key or somebody else's is as good as none. A file appears complete or not at all, so
processes may read, write and remove at the same time. Nothing that goes wrong with the disk is an error: then the work
is done anew.
"""

import os
import stat
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from graphc.errors import FileError, InputError
from graphc.files import replace_file
from graphc.settings import CACHE, cache_folder

MARK = b"graphc cache 1\n".ljust(32, b"\0")
LARGEST = 256 * 2**20  # bytes of all entries: some hundred networks at 1 to 3 MB of code
KEPT = 0.75  # of that is left when entries are removed, so that it does not happen at every new one


def load(key: bytes) -> bytes | None:
    """The content under this key; None if there is none."""
    folder = _open_folder()
    if folder is None:
        return None
    path = folder / key.hex()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            about = os.fstat(descriptor)
            if about.st_uid != os.getuid() or not stat.S_ISREG(about.st_mode):
                return None
            data = file.read()
        os.utime(path)  # used now: the last to be removed
    except OSError:
        return None
    head, rest = data[:64], data[64:]
    if head != MARK + sha256(rest).digest() or not rest.startswith(key):
        return None
    return rest[len(key) :]


def store(key: bytes, content: bytes) -> None:
    """Keep the content under this key, and remove what has not been used for longest where that is too much."""
    folder = _open_folder()
    if folder is None:
        return
    rest = key + content
    with suppress(OSError, FileError):
        with replace_file(folder / key.hex(), mode=0o600) as file:  # readable for the user alone
            file.write(MARK + sha256(rest).digest() + rest)
        _remove_old(folder)


def _open_folder() -> Path | None:
    """The folder, created if need be; None without one. InputError if one that was asked for cannot be used."""
    folder = cache_folder()
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        about = folder.stat()
        fault = None
        if about.st_uid != os.getuid() or stat.S_IMODE(about.st_mode) & 0o077:
            fault = f"mode {stat.S_IMODE(about.st_mode):04o} of user {about.st_uid}"
    except OSError as error:
        fault = error.strerror
    if fault and CACHE.text:
        raise InputError(f"{CACHE.name}: expected {CACHE.expects}, got {CACHE.text!r} ({fault})")
    return None if fault else folder


def _remove_old(folder: Path) -> None:
    entries = []
    for entry in os.scandir(folder):
        with suppress(FileNotFoundError):  # another process was faster
            about = entry.stat(follow_symlinks=False)
            entries.append((about.st_mtime_ns, about.st_size, entry.path))
    total = sum(size for _, size, _ in entries)
    if total <= LARGEST:
        return
    for _, size, path in sorted(entries):
        with suppress(OSError):
            os.unlink(path)
        total -= size
        if total <= KEPT * LARGEST:
            return
