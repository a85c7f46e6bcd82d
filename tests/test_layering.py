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
_BELOW_FACTS = ("__init__", "errors", "format", "migration")
_BELOW_LAB = (*_BELOW_FACTS, "facts", "operations")
MAY_IMPORT = {
    "__init__": (),
    "errors": (),
    # It is on machines, too, where nothing of ours is but the runner.
    "format": (),
    "migration": ("__init__", "errors", "format"),
    "runner": ("format",),
    "facts": _BELOW_FACTS,
    "operations": (*_BELOW_FACTS, "facts"),
    "fleet": _BELOW_LAB,
    "lab": (*_BELOW_LAB, "runner"),
    "testing": _BELOW_LAB,
    "cli": (*_BELOW_LAB, "fleet", "lab"),
}
"""Who may import whom, as DESIGN section 9 has it. A room may look into itself."""
PURE = ("errors", "format", "migration", "runner")


def top_level() -> set[str]:
    """Names of the modules and packages right below the package."""
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
    """A new room is put into its place, deliberately."""
    assert top_level() <= MAY_IMPORT.keys()


def test_no_arrow_runs_in_a_circle() -> None:
    """What the rooms may import, they may in one order."""
    rest = dict(MAY_IMPORT)
    while rest:
        free = [module for module, others in rest.items() if not rest.keys() & set(others)]
        assert free, f"a circle among {sorted(rest)}"
        for module in free:
            del rest[module]


@pytest.mark.parametrize("module", sorted(top_level()))
def test_imports_go_down(module: str) -> None:
    """A module knows only of rooms below its own; a package may look into itself."""
    wrong = [
        f"{file}:{line}: {module} imports {name}"
        for file in files_of(module)
        for line, name in imported(file)
        if (reached := target(name)) is not None and reached not in (module, *MAY_IMPORT[module])
    ]
    assert wrong == []


@pytest.mark.parametrize("module", ["format", "runner"])
def test_what_runs_on_machines_needs_nothing_but_python(module: str) -> None:
    """Wherever the import stands: one inside a function would be missed at the worst moment."""
    wrong = [
        f"{file}:{line}: {name}"
        for file in files_of(module)
        for line, name in imported(file)
        if name.partition(".")[0] not in sys.stdlib_module_names | {NAME}
    ]
    assert wrong == []


def test_the_check_sees_what_it_is_to_see(tmp_path: Path) -> None:
    """Imports are found inside functions and blocks, in every spelling."""
    file = tmp_path / "x.py"
    file.write_text(
        f"import os, {NAME}.lab.run\nif os:\n    from {NAME} import lab as l, __version__\n"
        f"def f():\n    from {NAME}.format.status import parse\n"
    )
    assert sorted((line, target(name)) for line, name in imported(file) if target(name)) == [
        (1, "lab"), (3, "__init__"), (3, "lab"), (5, "format"),
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
    names = ", ".join(
        f"{NAME}.{file.relative_to(TOP).with_suffix('').as_posix().replace('/', '.')}"
        for module in PURE
        if module != "runner"
        for file in files_of(module)
        if file.stem != "__init__"
    )
    code = f"import sys, {names}\nprint(sorted({{'pyinfra', 'paramiko', 'gevent'}} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=TOP.parent)
    assert found.stdout == "[]\n"


def test_limits_are_of_no_clock_that_is_set() -> None:
    """A step of the wall clock, as at boot, is no reason to give up: only what is told to people is of it."""
    told = {"adopt.py", "metadata.py", "status.py", "stage_root.py"}
    for file in files_of("runner"):
        text = file.read_text()
        assert ("time.time" not in text and "datetime" not in text) or file.name in told, file
    for file in [*TOP.rglob("*.sh"), TOP / "runner/system-migrate"]:
        found = [line for line in file.read_text().splitlines() if "date +" in line]
        assert found == (['echo "now $(date +%s)"'] if file.name == "services.sh" else []), file
