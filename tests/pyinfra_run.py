"""A run of pyinfra for one operation on one host, without the host."""

from __future__ import annotations

from typing import Any

from pyinfra_testing.util import FakeState


def run(*, executing: bool) -> Any:
    """Pyinfra's own, with what it lacks: its host may be foreseen to fail."""
    state = FakeState()
    state.is_executing = executing
    state.failed_hosts = set()
    state.add_callback_handler = [].append
    return state
