"""What a run will be refused, as far as that is known before it begins: shown, counted, in a dry run's exit code."""

from __future__ import annotations

from typing import Any, cast
from weakref import WeakKeyDictionary

import click
from pyinfra import host, logger
from pyinfra.api import BaseStateCallback, Host, State
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_host

_runs: WeakKeyDictionary[State, dict[Host, set[str]]] = WeakKeyDictionary()
"""Per run and host, the operations that will be refused."""


class _End(BaseStateCallback):
    """A run that ends before it executes anything is a dry one, or nobody wanted it: it is summed up."""

    @staticmethod
    def operation_host_start(state: State, host: Host, op_hash: str) -> None:
        """What was foreseen of this host comes to pass now, or does not."""
        del op_hash
        if _runs.get(state, {}).pop(host, None):
            state.failed_hosts.discard(host)

    @staticmethod
    def host_disconnect(state: State, host: Host) -> None:
        refused = _runs.get(state, {})
        if state.current_stage == StateStage.Prepare and host in refused:
            count = sum(map(len, refused.values()))
            what = "1 operation" if count == 1 else f"{count} operations"
            where = f"{len(refused)} of {len(state.activated_hosts)} hosts"
            logger.error(click.style(f"--> {what} will be refused, on {where}: see above", "red"))
            del _runs[state]


def foresee(why: str, hint: str) -> None:
    """Say that the machine will refuse this operation, and why; while the run executes, it says so itself.

    pyinfra ends a dry run with 1 where a host has failed; a run that goes on begins without that.
    """
    state = host.state
    if state.is_executing:
        return
    if state not in _runs:
        _runs[state] = {}
        cast("Any", state).add_callback_handler(_End())
    for line in (f"will be refused: {why}", f"  hint: {hint}"):
        host.log(click.style(line, "red"), log_func=logger.error)
    itself = cast("Any", ctx_host).get()
    _runs[state].setdefault(itself, set()).add(itself.current_op_hash or why)
    state.failed_hosts.add(itself)
