"""Throwaway machines on one Linux host, to rehearse on and to test with, and nothing that stays."""

from __future__ import annotations

from pyinfra_overlaymig.errors import OverlaymigError
from pyinfra_overlaymig.lab.fleet import (
    down,
    inventory,
    machine,
    machines,
    restart,
    ssh_argv,
    stopped,
    up,
)
from pyinfra_overlaymig.lab.layout import Lab
from pyinfra_overlaymig.lab.machine import Machine

__all__ = [
    "Lab",
    "Machine",
    "OverlaymigError",
    "down",
    "inventory",
    "machine",
    "machines",
    "restart",
    "ssh_argv",
    "stopped",
    "up",
]
