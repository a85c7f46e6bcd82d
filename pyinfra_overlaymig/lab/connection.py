"""SSH to machines independently of pyinfra, many at once; paramiko and gevent are used here alone.

It never patches its caller: in a process that pyinfra has patched, greenlets carry the connections,
in any other gevent's pool of native threads.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import paramiko
from gevent import get_hub
from gevent.monkey import is_module_patched
from gevent.pool import Pool
from gevent.threadpool import ThreadPool

from pyinfra_overlaymig.errors import OverlaymigError, in_words
from pyinfra_overlaymig.lab.layout import Lab
from pyinfra_overlaymig.lab.machine import Machine

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# A machine that ends in the middle of a handshake makes paramiko's own thread log a traceback.
logging.getLogger("paramiko.transport").addHandler(logging.NullHandler())


def connect(lab: Lab, machine: Machine, timeout: float = 10.0) -> paramiko.SSHClient:
    """Log in as root with the lab's key; a host key that known_hosts lacks is refused.

    Raises `paramiko.SSHException` or `OSError`; ``timeout`` (seconds) bounds each step.
    """
    client = paramiko.SSHClient()
    client.load_system_host_keys(str(lab.known_hosts))
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    try:
        client.connect(
            machine.address,
            username="root",
            key_filename=str(lab.key),
            allow_agent=False,
            look_for_keys=False,
            timeout=timeout,
            banner_timeout=timeout,
            auth_timeout=timeout,
        )
    except BaseException:
        client.close()
        raise
    return client


def output(client: paramiko.SSHClient, command: str, timeout: float = 30.0) -> tuple[int, str, str]:
    """Run ``command`` with the machine's shell; its exit code, standard output and error."""
    _, stdout, stderr = client.exec_command(command, timeout=timeout)
    said = [stream.read().decode(errors="replace") for stream in (stdout, stderr)]
    return stdout.channel.recv_exit_status(), said[0], said[1]


def wait_for_ssh(lab: Lab, machine: Machine, alive: Callable[[], bool], timeout: float = 60.0) -> None:
    """Wait until ``machine`` runs a command over ssh.

    Raises an `OverlaymigError` with the end of its console when ``timeout`` seconds pass, or at
    once when it is no longer ``alive``.
    """
    deadline = time.monotonic() + timeout
    problem: Exception | None = None
    while alive() and time.monotonic() < deadline:
        try:
            with connect(lab, machine) as client:
                return _answers(client)
        except (OSError, EOFError, paramiko.SSHException) as error:
            problem = error
        time.sleep(0.1)
    raise _no_answer(machine, problem, alive())


def at_once(work: Callable[[_Item], _Result], items: Sequence[_Item], *, size: int) -> list[_Result | Exception]:
    """Do ``work`` on ``items``, ``size`` at a time: a result or what was raised, in order."""

    def guarded(item: _Item) -> _Result | Exception:
        try:
            return work(item)
        except Exception as error:  # noqa: BLE001 - handed back whole: one machine must not hide the others
            return error

    if is_module_patched("socket"):
        return list(Pool(size).imap(guarded, items))
    # Its hub would print an interrupt's traceback besides raising it here.
    hub = get_hub()
    hub.NOT_ERROR = (*hub.NOT_ERROR, KeyboardInterrupt)
    pool = ThreadPool(size)
    try:
        return list(pool.map(guarded, items))
    finally:
        pool.kill()


def _answers(client: paramiko.SSHClient) -> None:
    code, _, complaint = output(client, "true")
    if code != 0:
        raise paramiko.SSHException(f"`true` exits {code}: {complaint}")


def _no_answer(machine: Machine, problem: Exception | None, alive: bool) -> OverlaymigError:
    try:
        last = machine.console.read_text(errors="replace").strip().splitlines()[-8:]
    except FileNotFoundError:
        last = []
    why = in_words(problem) if isinstance(problem, OSError) else problem
    state = f"does not answer ssh ({why})" if alive else "ended while it booted"
    return OverlaymigError(
        "\n".join([f"{machine.name} {state}; the end of its console:", *last]),
        hint=f"look at {machine.console}, or run: overlaymig lab exec {machine.name} -- sh",
    )
