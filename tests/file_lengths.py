"""Report the lengths of the source files; fail when one has more than 500 lines. `make check` runs it."""

import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("graphc", "passes", "runtime", "models", "tests")
SUFFIXES = (".py", ".c", ".h", ".ll")

# The codebases that we look up to have medians of 87 to 234 lines, and apologise for their files over 1,500.
LIMIT = 500

# Path from the root -> why this file may be longer than LIMIT.
EXCUSED: dict[str, str] = {}


def count_lines() -> dict[str, int]:
    """Path from the root -> lines of every source file; each once, since rglob follows no links below a folder."""
    return {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in SUFFIXES
    }


def find_faults(lengths: dict[str, int]) -> list[str]:
    """One line for each file that is too long, and for each excuse that is no longer needed."""
    long = {path for path, length in lengths.items() if length > LIMIT}
    too_long = [f"{path}: {lengths[path]} lines, at most {LIMIT} wanted" for path in sorted(long - EXCUSED.keys())]
    idle = [f"{path}: excused in file_lengths.py, but not over {LIMIT} lines" for path in sorted(EXCUSED.keys() - long)]
    return too_long + idle


def main() -> None:
    lengths = count_lines()
    longest = max(lengths, key=lambda path: lengths[path])
    print(
        f"{len(lengths)} source files, {sum(lengths.values())} lines: median {statistics.median(lengths.values()):g}, "
        f"longest {lengths[longest]} ({longest})"
    )
    if faults := find_faults(lengths):
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
