"""Files that are whole or absent."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphc.errors import FileError
from graphc.files import replace_file, temporary_folder


def interrupted() -> Iterator[bytes]:
    yield b"half"
    raise KeyboardInterrupt


def test_files_are_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(TypeError), replace_file(path) as file:
        file.writelines([b"half", "the other half is no bytes"])  # type: ignore[list-item]
    with pytest.raises(KeyboardInterrupt), replace_file(path) as file:
        file.writelines(interrupted())
    assert path.read_text() == "old"
    with replace_file(path) as file:
        file.write(b"new")
    assert path.read_text() == "new"
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match="folder: cannot be written"), replace_file(tmp_path / "folder") as file:
        file.write(b"x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_the_bytes_are_on_the_disk_before_the_name_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "file", list[tuple[str, bytes]]()
    path.write_bytes(b"old")
    fsync, replace = os.fsync, os.replace

    def watch_fsync(descriptor: int) -> None:
        fsync(descriptor)
        (part,) = (p for p in tmp_path.iterdir() if p != path)
        seen.append(("fsync", part.read_bytes()))

    def watch_replace(part: Path, whole: Path) -> None:
        seen.append(("replace", path.read_bytes()))
        replace(part, whole)

    monkeypatch.setattr(os, "fsync", watch_fsync)
    monkeypatch.setattr(os, "replace", watch_replace)
    with replace_file(path) as file:
        file.write(b"new")
    assert seen == [("fsync", b"new"), ("replace", b"old")]


def test_permissions_are_those_of_other_new_files(tmp_path: Path) -> None:
    other, path, private = (tmp_path / name for name in ("other", "path", "private"))
    other.touch()
    with replace_file(path) as file:
        file.write(b"x")
    with replace_file(private, 0o600) as file:
        file.write(b"x")
    assert path.stat().st_mode == other.stat().st_mode
    assert private.stat().st_mode & 0o777 == 0o600


def killed_while_writing(folder: Path) -> None:
    """A process that is killed amid a file and a folder, both of which it leaves."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with replace_file(folder / "net.so"), temporary_folder(folder, "net"):
            os.write(write, b"x")
            signal.pause()
    os.read(read, 1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(read)
    os.close(write)


def test_what_a_killed_process_left_goes_with_the_next_writing(tmp_path: Path) -> None:
    killed_while_writing(tmp_path)
    others = [tmp_path / ".net.settings", tmp_path / ".other.x.part"]
    for other in others:
        other.touch()
    assert len(list(tmp_path.iterdir())) == 4
    with temporary_folder(tmp_path, "net") as first, temporary_folder(tmp_path, "net") as second:
        assert first.is_dir() and second.is_dir()  # those of the living stay
    assert len(list(tmp_path.iterdir())) == 2
    killed_while_writing(tmp_path)
    with replace_file(tmp_path / "net.so"), replace_file(tmp_path / "net.so.weights"):
        pass
    left = [p for p in tmp_path.iterdir() if p not in others and p.name[0] == "."]
    assert len(left) == 1 and left[0].is_dir()
