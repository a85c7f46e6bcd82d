"""Reads the services that s6 supervises on a machine; it must change nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources

from pyinfra.api import FactBase, FactProcessError, QuoteString, StringCommand

from pyinfra_overlaymig.format.paths import SCANDIR, SERVICES
from pyinfra_overlaymig.format.readiness import is_ready
from pyinfra_overlaymig.format.status import Record, ServiceStatus
from pyinfra_overlaymig.migration.services import Rendered

SOURCEDIR = f"/{SERVICES}"


@dataclass(frozen=True)
class Death(Record):
    """A process of a service that ended; ``at``: seconds of the epoch. It left a code, or a signal took it."""

    at: int
    exit_code: int | None
    signal: str | None


@dataclass(frozen=True)
class S6Service(ServiceStatus):
    """A service as s6 tells of it.

    + supervised: whether s6-supervise runs for it
    + enabled: whether it starts at boot
    + deaths: the last ten at most, oldest first
    + definition: digest of the files that define it; None where it is not in the scan directory
    + needs: the services that are ready before it starts
    + kept: the same of its copy in the source directory, from which a boot makes it; None without one
    """

    supervised: bool
    enabled: bool
    deaths: tuple[Death, ...]
    needs: tuple[str, ...]
    definition: str | None
    kept: str | None


class S6Services(FactBase[dict[str, S6Service] | None]):
    """
    Returns the services of an s6 scan directory, by name; None if unknown, empty where there are none.

    + scandir: the scan directory, on which s6-svscan runs
    + sourcedir: where service directories are kept for the next boot; empty if nowhere

    Times are in seconds of the epoch. ``definition`` and ``kept`` are digests of the files of a service directory:
    equal digests are equal services. A service that tells no readiness is ready when it is up.

    **Example:**

    .. code:: python

        from pyinfra_overlaymig.facts import S6Services

        services = host.get_fact(S6Services)
        if services and services["postgresql"].ready:
            ...

    .. code:: json

        {
            "postgresql": {
                "name": "postgresql",
                "up": true,
                "ready": true,
                "pid": 412,
                "wanted_up": true,
                "since": 1764000000,
                "reason": "",
                "supervised": true,
                "enabled": true,
                "deaths": [{"at": 1763999999, "exit_code": null, "signal": "SIGKILL"}],
                "needs": [],
                "definition": "5f0c…",
                "kept": "5f0c…"
            }
        }
    """

    def command(self, scandir: str = SCANDIR, sourcedir: str = SOURCEDIR) -> StringCommand:
        return StringCommand("sh -c", QuoteString(_script()), "services", QuoteString(scandir), QuoteString(sourcedir))

    @staticmethod
    def default() -> dict[str, S6Service] | None:
        return None

    def process(self, output: list[str]) -> dict[str, S6Service] | None:
        pairs = [line.partition(" ")[::2] for line in output]
        if len(pairs) < 2 or pairs[0][0] != "now" or pairs[-1][0] != "end":  # noqa: PLR2004 - first and last
            raise FactProcessError("the list of services is not whole")
        try:
            return {name: _service(name, about, int(pairs[0][1])) for name, about in _by_service(pairs[1:-1]).items()}
        except (LookupError, ValueError) as error:
            raise FactProcessError(f"the list of services cannot be read: {error!r}") from error


def definition(files: Iterable[Rendered]) -> str:
    """The digest that a machine finds where just these files define a service."""
    lines = []
    for file in files:
        lines.append(f"{hashlib.sha256(file.text.encode('utf-8')).hexdigest()}  ./{file.path}\n")
        if file.executable:
            lines.append(f"./{file.path}\n")
    return hashlib.sha256("".join(sorted(lines)).encode("utf-8")).hexdigest()


@cache
def _script() -> str:
    return (resources.files(__package__) / "services.sh").read_text("utf-8")


def _by_service(pairs: Iterable[tuple[str, str]]) -> dict[str, dict[str, list[str]]]:
    """For each service the values of each key."""
    found: dict[str, dict[str, list[str]]] = {}
    name = ""
    for key, value in pairs:
        if key == "service":
            name = value
            found[name] = {}
        else:
            found[name].setdefault(key, []).append(value)
    return found


def _service(name: str, about: dict[str, list[str]], now: int) -> S6Service:
    supervised = "state" in about
    up, wanted_up, ready, pid, age = about["state"][0].split() if supervised else ("false", "false", "false", "-1", "0")
    return S6Service(
        name=name,
        up=_flag(up),
        ready=is_ready(up=_flag(up), told=_flag(ready), tells="tells" in about),
        pid=int(pid) if int(pid) > 0 else None,
        wanted_up=_flag(wanted_up),
        since=now - int(age) if supervised else None,
        reason="" if _flag(up) else about.get("reason", [""])[0],
        supervised=supervised,
        enabled="boot" not in about,
        deaths=tuple(_death(one) for one in about.get("death", [])),
        needs=tuple(about.get("needs", [])),
        definition=_digest(about["defined"]),
        kept=_digest(about.get("kept", ["-"])),
    )


def _flag(word: str) -> bool:
    return {"true": True, "false": False}[word]


def _digest(values: list[str]) -> str | None:
    (value,) = values
    return None if value == "-" else value


def _death(line: str) -> Death:
    """As `s6-svdt | s6-tai64nlocal -g` writes it: ``2026-11-23 18:27:32.151… signal SIGKILL``."""
    date, time, how, what = line.split()
    at = datetime.fromisoformat(f"{date} {time.partition('.')[0]}").replace(tzinfo=UTC)
    return Death(int(at.timestamp()), int(what) if how == "exitcode" else None, what if how == "signal" else None)
