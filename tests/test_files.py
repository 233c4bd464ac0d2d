"""Files that are whole or absent."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphc.errors import FileError
from graphc.files import replace_file


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
