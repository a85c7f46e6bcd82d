from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyinfra_overlaymig

NAME = "pyinfra_overlaymig"
TOP = Path(pyinfra_overlaymig.__file__).parent
LAYERS = (
    ("__init__",),
    ("errors",),
    ("format",),
    ("document",),
    ("json_fields", "model"),
    ("manifest",),
    ("migration",),
    ("ordering", "services"),
    ("bundle", "graph", "status", "capture"),
    ("facts",),
    ("operations",),
    ("fleet", "lab"),
    ("testing", "reports", "drawing"),
    ("cli",),
)
LEVEL = {module: level for level, layer in enumerate(LAYERS) for module in layer}
PURE = [module for module, level in LEVEL.items() if level < LEVEL["facts"]]


def top_level() -> set[str]:
    """Names of the modules and packages right below the package; the runner is sh, not Python."""
    files = {path.stem for path in TOP.glob("*.py")}
    return files | {path.parent.name for path in TOP.glob("*/__init__.py")}


def files_of(module: str) -> list[Path]:
    single = TOP / f"{module}.py"
    return [single] if single.exists() else sorted((TOP / module).rglob("*.py"))


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of all that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"), str(file))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{name.name}") for name in node.names)


def target(name: str) -> str | None:
    """The top-level module of ours that an import reaches; None for anything else."""
    package, _, rest = name.partition(".")
    if package != NAME:
        return None
    first = rest.partition(".")[0]
    return first if first in top_level() else "__init__"


def foreign(module: str, forbidden: set[str]) -> list[str]:
    return [
        f"{file}:{line}: {name}"
        for file in files_of(module)
        for line, name in imported(file)
        if name.partition(".")[0] in forbidden
    ]


def test_every_module_has_a_place() -> None:
    """A new module is put into a layer, deliberately; none is in two."""
    assert top_level() <= LEVEL.keys()
    assert len(LEVEL) == sum(map(len, LAYERS))


@pytest.mark.parametrize("module", sorted(top_level()))
def test_imports_go_down(module: str) -> None:
    """A module knows only of layers below its own; a package may look into itself."""
    wrong = [
        f"{file}:{line}: {module} imports {name}"
        for file in files_of(module)
        for line, name in imported(file)
        if (reached := target(name)) is not None and reached != module and LEVEL[reached] >= LEVEL[module]
    ]
    assert wrong == []


def test_the_check_sees_what_it_is_to_see(tmp_path: Path) -> None:
    """Imports are found inside functions and blocks, in every spelling."""
    file = tmp_path / "x.py"
    file.write_text(
        f"import os, {NAME}.lab.run\nif os:\n    from {NAME} import lab as l, __version__\n"
        f"def f():\n    from {NAME}.status import parse\n"
    )
    assert sorted((line, target(name)) for line, name in imported(file) if target(name)) == [
        (1, "lab"), (3, "__init__"), (3, "lab"), (5, "status"),
    ]  # fmt: skip


@pytest.mark.parametrize("module", PURE)
def test_the_pure_part_knows_no_machine(module: str) -> None:
    """Below the facts nothing imports what talks to machines."""
    assert foreign(module, {"pyinfra", "paramiko", "gevent"}) == []


@pytest.mark.parametrize("module", ["facts", "operations"])
def test_facts_and_operations_leave_the_wire_to_pyinfra(module: str) -> None:
    """What pyinfra runs for us does not open connections of its own."""
    assert foreign(module, {"paramiko", "gevent"}) == []


def test_the_pure_part_is_loaded_without_pyinfra() -> None:
    """Nor is any of it loaded by a detour: a program that only reads migrations starts fast."""
    names = ", ".join(f"{NAME}.{module}" for module in PURE if module != "__init__")
    code = f"import sys, {names}\nprint(sorted({{'pyinfra', 'paramiko', 'gevent'}} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=TOP.parent)
    assert found.stdout == "[]\n"
