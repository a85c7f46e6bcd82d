"""Machines made of namespaces of this host: their own mounts, processes and network, the host's kernel."""

from __future__ import annotations

from pathlib import Path

from pyinfra_overlaymig.lab import network
from pyinfra_overlaymig.lab.base import base_root
from pyinfra_overlaymig.lab.layout import SCRIPT, Place
from pyinfra_overlaymig.lab.locking import Report

patience = 60.0
"""Seconds within which ssh answers, or something is wrong."""


def ground(cache: Path, report: Report) -> Path:
    """What all machines of this kind start from: the base root."""
    return base_root(cache, report)


def data(place: Place) -> Path:
    """What is at /data, as this host sees it."""
    return place.directory / "data"


def create(place: Place) -> None:
    """Make /data, unless it is there."""
    data(place).mkdir(exist_ok=True)


def program(place: Place, base: Path) -> list[str | Path]:
    """Plug the machine in; the argv that boots it and stays as long as it runs."""
    network.plug_in(place)
    return ["/bin/sh", SCRIPT, "start", place.directory, place.name, place.namespace, base]


def enter(_: Place, pid: int, command: list[str]) -> list[str]:
    """The argv that runs ``command`` in the live root of the machine whose PID 1 is ``pid`` on this host."""
    return ["nsenter", "-t", str(pid), "-m", "-u", "-i", "-n", "-p", "-r", *command]
