"""The shape of the repository: which folder may import which, and that the links make one package of them."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import file_lengths
import pytest

ROOT = Path(__file__).resolve().parent.parent
LINKED = ("passes", "runtime", "models")

# From the bottom up. A group is graphc/NAME.py or the folder NAME; it may import the groups of lower lines.
LAYERS = (
    ("errors", "files", "settings"),
    ("drawing", "grids", "images", "layered", "maps", "pictures", "state", "stored"),
    ("ir",),
    ("ops",),
    ("codegen", "diagram", "geometry", "grad", "nn", "onnx", "optim", "reference", "schedules", "text"),
    ("passes", "runtime", "models", "sight"),
    ("halos", "training"),
    ("strips",),
    ("emission",),
    ("tuning",),
    ("driver",),
    ("artefact", "gradcheck", "onnx.backend", "summary", "verify"),
    ("demo", "learning"),
    ("graphc",),  # graphc/__init__.py, which fetches its names from the groups below
    ("bench",),
    ("cli",),
    ("__main__",),
)
# Imports between groups of one line that are wanted: (importer, imported).
SAME_LAYER = {
    ("files", "errors"),
    ("settings", "errors"),
    ("drawing", "layered"),
    ("grids", "pictures"),
    ("maps", "grids"),
    ("state", "stored"),
    ("maps", "pictures"),
    ("onnx", "geometry"),  # an exported model tells it
}
LEVEL = {group: level for level, layer in enumerate(LAYERS) for group in layer}

TOP_LEVEL = {
    *(".ci", ".gitignore", "LICENSE", "Makefile", "README.md", "pyproject.toml"),
    *("graphc", "passes", "runtime", "models", "tests"),
}


def list_modules() -> dict[str, Path]:
    """Dotted name -> file of every module of the package; the linked folders are read in their real places."""
    modules = {}
    for folder in ("graphc", *LINKED):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts if folder == "graphc" else ("graphc", *parts)
            modules[".".join(parts).removesuffix(".__init__")] = path
    return modules


MODULES = list_modules()


def name_group(module: str) -> str:
    """graphc.ops.conv -> ops; graphc itself, whose file is graphc/__init__.py, -> graphc.

    A file whose callers look for it in a folder of a lower line is a group of its own.
    """
    if module == "graphc.onnx.backend":
        return "onnx.backend"
    return [*module.split("."), "graphc"][1]


def find_imports(module: str, path: Path) -> Iterator[tuple[int, str]]:
    """(line, module of graphc) for each import in a file, those inside functions too."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, (above, node.module)))
            names = [f"{base}.{alias.name}" for alias in node.names]
            targets = [name if name in MODULES else base for name in names]
        else:
            continue
        for target in targets:
            if target.split(".")[0] == "graphc":
                yield node.lineno, target


def check_import(importer: str, imported: str) -> str | None:
    """What is wrong with an import of one group by another, or None."""
    if unknown := {importer, imported} - LEVEL.keys():
        return f"{unknown.pop()} is not in LAYERS"
    if importer == imported or (importer, imported) in SAME_LAYER or LEVEL[imported] < LEVEL[importer]:
        return None
    return f"{importer} may not import {imported}: the layers are {' < '.join('|'.join(layer) for layer in LAYERS)}"


def test_every_module_has_a_layer() -> None:
    assert not {name_group(module) for module in MODULES} - LEVEL.keys(), "add the new modules to LAYERS"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module: str) -> None:
    faults = [
        f"{MODULES[module].relative_to(ROOT)}:{line}: {fault}"
        for line, target in find_imports(module, MODULES[module])
        if (fault := check_import(name_group(module), name_group(target)))
    ]
    assert not faults, "\n".join(faults)


def test_find_imports_sees_every_form(tmp_path: Path) -> None:
    path = tmp_path / "conv.py"
    path.write_text(
        "import graphc.passes.fold\nfrom graphc import errors, compile\nfrom . import loops\nfrom ..ir import Graph\n"
        "import numpy\ndef f():\n    from graphc.driver import build\n"
    )
    found = [name_group(target) for _, target in find_imports("graphc.ops.conv", path)]
    assert found == ["passes", "errors", "graphc", "ops", "ir", "driver"]


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("ops", "ir", True),
        ("ops", "ops", True),
        ("demo", "driver", True),
        ("onnx.backend", "driver", True),
        ("onnx", "onnx.backend", False),
        ("ir", "errors", True),
        ("driver", "demo", False),
        ("ops", "passes", False),
        ("passes", "runtime", False),
        ("cli", "graphc", True),
        ("driver", "graphc", False),
        ("driver", "novelty", False),
    ],
)
def test_check_import(importer: str, imported: str, allowed: bool) -> None:
    assert (check_import(importer, imported) is None) == allowed


@pytest.mark.parametrize("folder", LINKED)
def test_link_is_the_folder(folder: str) -> None:
    link = ROOT / "graphc" / folder
    assert link.is_symlink()
    assert link.readlink() == Path("..") / folder
    assert link.samefile(ROOT / folder)


@pytest.mark.parametrize("folder", LINKED)
def test_linked_package_knows_its_name(folder: str) -> None:
    """Imported by its bare name, a folder would exist twice, with two copies of every class."""
    last = (ROOT / folder / "__init__.py").read_text(encoding="utf-8").splitlines()[-1]
    assert last == f'assert __name__ == "graphc.{folder}", "import graphc.{folder}, not {folder}"'


def test_top_level_is_fixed() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: nothing says which files belong to the project")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert {line.split("/")[0] for line in listing.splitlines()} == TOP_LEVEL


def test_runtime_is_light() -> None:
    """What runs an artefact loads neither the compiler's LLVM nor ONNX."""
    code = "import sys, graphc.runtime; assert not {'llvmlite', 'onnx'} & set(sys.modules), sorted(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_file_lengths_names_the_long_and_the_excused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_lengths, "EXCUSED", {"b.py": "a table", "c.py": "another"})
    assert file_lengths.find_faults({"a.py": 501, "b.py": 900, "c.py": 500}) == [
        "a.py: 501 lines, at most 500 wanted",
        "c.py: excused in file_lengths.py, but not over 500 lines",
    ]


def test_no_stack_frame_grows_with_the_network() -> None:
    """A service's threads may have little stack."""
    for text in sorted((ROOT / "runtime").glob("*.ll")):
        assert not [line for line in text.read_text().splitlines() if re.search(r"= alloca \w+, i\d+ %", line)], text
