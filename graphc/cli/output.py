"""What all commands write: tables and progress on the terminal, and folders."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from graphc.errors import FileError

WIDE = 10_000  # columns where nobody looks at the width: a pipe or a file gets every line whole


def make_console(stderr: bool = False) -> Console:
    """The terminal behind stdout or stderr; square brackets in names are only that."""
    console = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDE
    return console


@contextmanager
def show_progress(what: str) -> Iterator[None]:
    """Say what takes so long, while it does, if stderr is a terminal."""
    with make_console(stderr=True).status(what):  # it writes nothing elsewhere
        yield


def make_folder(path: Path) -> None:
    """The folder and those above it. Errors: FileError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{path}: cannot be a folder: {error.strerror}") from None


def format_bytes(n: int) -> str:
    """512 bytes, 1.5 KiB, 20.0 MiB."""
    if n < 2**10:
        return f"{n} bytes"
    return f"{n / 2**20:.1f} MiB" if n >= 2**20 else f"{n / 2**10:.1f} KiB"
