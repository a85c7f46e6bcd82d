"""Connections: that they notice when a machine is gone, and new ones that are tried for as long as it makes sense.

pyinfra's own wait for a machine without power for a quarter of an hour at least, and a new one is tried once.
"""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakSet

from pyinfra import logger
from pyinfra.api import Host, State, StringCommand

IDLE: Final = 5
"""Seconds without a word from the machine after which it is asked whether it is there, and between such questions."""
SILENT: Final = 20
"""Seconds after which a machine that answers none of them counts as lost."""
_EVERY: Final = 1.0
_NUMBER: Final = re.compile(r"\[Errno [^\]]*\]")
_OPTIONS: Final = (
    ("TCP_KEEPIDLE", IDLE), ("TCP_KEEPALIVE", IDLE),  # the second is what macOS calls it
    ("TCP_KEEPINTVL", IDLE), ("TCP_KEEPCNT", SILENT // IDLE - 1), ("TCP_USER_TIMEOUT", SILENT * 1000),
)  # fmt: skip

_watched: WeakSet[Any] = WeakSet()

# Without a handler, what it meets while it connects would be on the terminal as tracebacks; we say it in a line.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


def keep_watch(connector: Any) -> None:
    """Have the connection of ``connector`` end when its machine is gone; a container has none that could.

    The kernel does it, which neither a busy program nor a slow upload can deceive. A connection through a jump
    host ends at that one: there, and where the kernel cannot, the machine's sshd is asked.
    """
    transport = _transport(connector)
    if transport is None:
        return
    if not _kernel_watches(transport.sock) and transport not in _watched:
        _watched.add(transport)
        threading.Thread(target=_watch, args=(transport,), daemon=True).start()


def _transport(connector: Any) -> Any:
    """What pyinfra's ssh connector talks over, None in all others."""
    client: Any = getattr(connector, "client", None)
    return client.get_transport() if hasattr(client, "get_transport") else None


def _kernel_watches(sock: Any) -> bool:
    if not hasattr(sock, "setsockopt"):
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _OPTIONS:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    except OSError:
        # It is no TCP, or closed.
        return False
    return hasattr(socket, "TCP_USER_TIMEOUT")


def _watch(transport: Any) -> None:
    while transport.is_active():
        answered = threading.Event()
        threading.Thread(target=_ask, args=(transport, answered), daemon=True).start()
        # In small steps: between any two of them, what has arrived is read, however busy this program is.
        if not any(answered.wait(_EVERY) for _ in range(SILENT)):
            transport.close()
            return
        time.sleep(IDLE)


def _ask(transport: Any, answered: threading.Event) -> None:
    try:
        # Every sshd answers it, if only that it does not know it.
        transport.global_request("keepalive@openssh.com", wait=True)
    except Exception:  # noqa: BLE001 - whatever it is, the connection is over, and whoever uses it hears of that
        return
    answered.set()


def over_a_new_one(
    state: State, host: Host, command: StringCommand, within: float, arguments: Any
) -> tuple[bool, Any] | None:
    """What ``command`` gives over a connection that is made now; None, said, if there is none ``within`` seconds."""
    until = time.monotonic() + within
    why = ""
    while True:
        began = time.monotonic()
        with _in_silence(bool(why)):
            found = _once(state, host, command, dict(arguments))
        if not isinstance(found, str):
            return found
        if time.monotonic() + _EVERY >= until:
            say_lost(host, f"no new connection after the switch: the machine takes it back by itself ({found})")
            return None
        if not why:
            host.log(f"no new connection yet, trying on for {within:.0f} s ({found})")
        why = found
        time.sleep(max(0.0, began + _EVERY - time.monotonic()))


def _once(state: State, host: Host, command: StringCommand, arguments: Any) -> tuple[bool, Any] | str:
    """What it gives, or why there is no connection."""
    connector = type(host.connector)(state, host)
    try:
        connector.connect()
        keep_watch(connector)
        done, output = connector.run_shell_command(
            command, print_output=True, print_input=state.print_input, **arguments
        )
        return (done, output) if done or answers(connector) else "it was lost again"
    except Exception as error:  # noqa: BLE001 - each connector raises its own, and any of them ends the run for all hosts
        return in_a_line(error)
    finally:
        # One that was refused is open, and counts for the machine's limit of those who have not logged in.
        transport = _transport(connector)
        if transport is not None:
            transport.close()


@contextmanager
def _in_silence(silent: bool) -> Iterator[None]:
    """What pyinfra says each time that it connects is said once."""
    if not silent:
        yield
        return
    me = threading.get_ident()

    def of_others(record: logging.LogRecord) -> bool:
        return record.thread != me

    logger.addFilter(of_others)
    try:
        yield
    finally:
        logger.removeFilter(of_others)


def answers(what: Any) -> bool:
    """Whether the connection of a host, or of a connector, is there."""
    try:
        return bool(what.run_shell_command(StringCommand("true"))[0])
    except Exception:  # noqa: BLE001 - whatever the connector raises, there is no answer
        return False


def say_lost(host: Host, message: str) -> None:
    host.log_styled(message, fg="red", log_func=logger.error)


def in_a_line(error: BaseException) -> str:
    """Without the numbers of errors, which say nothing, and are None where paramiko tried several addresses."""
    said = " ".join(_NUMBER.sub(" ", str(error)).split()).replace("( ", "(")
    return said or ("it was closed" if isinstance(error, EOFError) else type(error).__name__)
