"""What a machine has to be after any sequence of migrations, kept in Python; it reads and changes no machine."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

Files = dict[str, str]
"""Contents by path, below the one directory that the migrations here change."""


@dataclass(frozen=True)
class Change:
    """What one migration does: operations on files and on state, in order, and the service that it defines."""

    id: str
    files: tuple[tuple[str, str], ...]
    state: tuple[tuple[str, str], ...]
    service: tuple[str, str] | None
    fails: str
    """`script`, `verify` or nothing."""

    @property
    def script(self) -> str:
        lines = ["mkdir -p /opt/m /var/lib/m"]
        for where, operations in (("/opt/m", self.files), ("/var/lib/m", self.state)):
            for operation, path in operations:
                if operation == "write":
                    lines.append(f"mkdir -p $(dirname {where}/{path}); echo {self.id} >{where}/{path}")
                elif operation == "link":
                    lines.append(f"mkdir -p {where}/links; ln -sfn {self.id} {where}/links/{path}")
                else:
                    lines.append(f"rm -rf {where}/{path}")
        return "\n".join([*lines, "exit 7" if self.fails == "script" else ""])

    @property
    def verify(self) -> str | None:
        return "exit 1" if self.fails == "verify" else None

    @property
    def manifest(self) -> dict[str, object]:
        services = {self.service[0]: {"run": f"exec {self.service[1]}", "check": "true"}} if self.service else {}
        return {"state": ["/var/lib/m"], "services": services}


def changed(files: Files, id: str, operations: tuple[tuple[str, str], ...]) -> Files:
    """``files`` after ``operations`` of migration ``id``."""
    now = dict(files)
    for operation, path in operations:
        if operation == "write":
            now[path] = f"{id}\n"
        elif operation == "link":
            now[f"links/{path}"] = f"-> {id}"
        else:
            now = {name: text for name, text in now.items() if name != path and not name.startswith(f"{path}/")}
    return now


@dataclass
class Model:
    """A machine: every migration that was ever applied, the stack, state, and what was changed by hand."""

    dice: random.Random
    known: dict[str, Change] = field(default_factory=dict)
    stack: tuple[str, ...] = ()
    state: Files = field(default_factory=dict)
    drift: Files = field(default_factory=dict)
    generations: dict[int, tuple[str, ...]] = field(default_factory=lambda: {0: ()})
    made: int = 0

    def files(self, stack: tuple[str, ...]) -> Files:
        files: Files = {}
        for id in stack:
            files = changed(files, id, self.known[id].files)
        return files

    def services(self, stack: tuple[str, ...]) -> set[str]:
        """The commands that run: of each service, that of the topmost layer."""
        services = dict(change.service for id in stack if (change := self.known[id]).service)
        return set(services.values())

    def change(self) -> Change:
        """A migration that nobody has seen yet."""
        self.made += 1
        dice, number = self.dice, self.made
        tree = [
            (
                dice.choice(("write", "write", "link", "remove")),
                dice.choice(("a", "b", "c/d", "c/e", "f/g/h", "c", "f")),
            )
            for _ in range(dice.randint(1, 5))
        ]
        state = [
            (dice.choice(("write", "write", "remove")), dice.choice(("a", "b", "c/d", "c/e", "c")))
            for _ in range(dice.randint(0, 3))
        ]
        return Change(
            f"{20250101 + number // 900}-{number % 900:03d}_random",
            tuple(self._sound(tree)),
            tuple(self._sound(state)),
            (f"s{dice.randint(0, 2)}", f"sleep {100000 + number}") if dice.random() < 0.3 else None,
            dice.choice(("", "", "", "", "", "", "script", "verify")),
        )

    @staticmethod
    def _sound(operations: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Directories are only removed, never written as a file; links have plain names."""
        return [
            ("remove", path)
            if path in {"c", "f"}
            else (operation, path.replace("/", "-") if operation == "link" else path)
            for operation, path in operations
        ]
