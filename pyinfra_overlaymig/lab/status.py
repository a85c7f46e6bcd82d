"""Asks every machine of a lab what it is, over SSH of its own; it must change nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import paramiko

from pyinfra_overlaymig.format.errors import FormatError
from pyinfra_overlaymig.format.paths import PROGRAM
from pyinfra_overlaymig.format.status import UNKNOWN, MigrationRecord, ServiceStatus, Status
from pyinfra_overlaymig.format.status_reader import parse
from pyinfra_overlaymig.lab.connection import at_once, connect, output
from pyinfra_overlaymig.lab.fleet import machines
from pyinfra_overlaymig.lab.layout import Lab
from pyinfra_overlaymig.lab.machine import Machine

State = Literal["ready", "degraded", "no runner yet", "unreachable", "stopped", "unclear"]

_COMMAND = f"""[ ! -x {PROGRAM} ] || exec {PROGRAM} status; echo '{{"format": 1, "runner": null}}'"""
_CONNECTIONS = 16
_PREPARE = "prepare it: pyinfra inventories/lab.py deploys/prepare.py"
_WORDS = {"no runner yet": "not prepared"}

COLUMNS = ("host", "address", "state", "generation", "migrations", "services")


@dataclass(frozen=True)
class Answer:
    """What a machine said; ``detail`` says why it is not ready."""

    machine: Machine
    state: State
    detail: str = ""
    status: Status = UNKNOWN

    def to_json(self) -> dict[str, Any]:
        """name, address, state, detail, and the runner's document as status."""
        return {
            "name": self.machine.name,
            "address": self.machine.address,
            "state": self.state,
            "detail": self.detail,
            "status": self.status.to_json(),
        }


def ask_all(lab: Lab) -> list[Answer]:
    """One answer per machine, many asked at the same time."""
    found = machines(lab)
    answers = at_once(lambda machine: ask(lab, machine), found, size=_CONNECTIONS)
    return [
        answer if isinstance(answer, Answer) else Answer(machine, "unclear", str(answer))
        for machine, answer in zip(found, answers, strict=True)
    ]


def ask(lab: Lab, machine: Machine) -> Answer:
    """Ask one machine; trouble becomes part of the answer."""
    if not machine.running:
        return Answer(machine, "stopped", f"start it: overlaymig lab restart {machine.name}")
    try:
        with connect(lab, machine) as client:
            code, text, complaint = output(client, _COMMAND)
    except (OSError, EOFError, paramiko.SSHException) as error:
        return Answer(machine, "unreachable", str(error) or type(error).__name__)
    try:
        status = parse(text)
    except FormatError as error:
        said = (complaint or text).strip()[-200:]
        return Answer(machine, "unclear", f"{error} (status exits {code} and says {said!r})")
    if not status.prepared:
        return Answer(machine, "no runner yet", _PREPARE, status)
    return Answer(machine, "degraded" if status.troubles else "ready", "; ".join(status.troubles), status)


def as_json(answers: list[Answer]) -> str:
    """The answers as a JSON list."""
    return json.dumps([answer.to_json() for answer in answers], indent=2)


def rows(answers: list[Answer]) -> list[tuple[str, ...]]:
    """The answers as a table for people, under ``COLUMNS``; what a machine has many of is one a line."""
    return [
        (answer.machine.name, answer.machine.address, answer.state, *_cells(answer.status))
        if answer.status.prepared
        else (answer.machine.name, answer.machine.address, answer.state, "-", "-", "-")
        for answer in answers
    ]


def remedies(answers: list[Answer]) -> Iterator[str]:
    """What is wrong with machines that are not ready, and what to do."""
    for answer in answers:
        if answer.state != "ready":
            yield f"{answer.machine.name} is {_WORDS.get(answer.state, answer.state)}; {answer.detail}"


def _cells(status: Status) -> tuple[str, str, str]:
    generation = f"{status.generation}"
    if status.running != status.generation:
        generation += f" (running {status.running})"
    migrations = [_migration(found, status.late) for found in status.migrations if found.active]
    services = [f"{found.name} {_service(found)}" for found in status.services]
    return generation, "\n".join(migrations) or "-", "\n".join(services) or "-"


def _migration(found: MigrationRecord, late: Mapping[str, str]) -> str:
    words = [found.status] * (found.status != "applied")
    if found.id in late:
        words.append(f"on top of {late[found.id]}")
    return f"{found.id} ({', '.join(words)})" if words else found.id


def _service(found: ServiceStatus) -> str:
    if not found.up:
        return "down"
    return "ready" if found.ready else "up"
