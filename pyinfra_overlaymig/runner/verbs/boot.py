"""boot [--] CMD…: the machine's entrypoint: recovers, switches to the current generation, becomes CMD.

Whatever is wrong with the layers, CMD runs: over the base alone in the worst case, so that ssh answers. A boot counts
as failed from before its switch until all services are ready, so that one that never gets that far counts as well.
"""

from __future__ import annotations

import os
import signal

from pyinfra_overlaymig.format.paths import RUN, SCANDIR
from pyinfra_overlaymig.runner import assembly, base, files, loading, memory, spawn
from pyinfra_overlaymig.runner.say import attempt, refused, usage, warn
from pyinfra_overlaymig.runner.verbs import settle

_KILLED = 128
"""A status above it is of what a signal has ended: nothing is said of what it was doing."""


def main(arguments: list[str]) -> int:
    command = arguments[1:] if arguments[:1] == ["--"] else arguments
    if not command:
        raise usage("boot takes the command to become", f"system-migrate boot s6-svscan {SCANDIR}")
    base.need_root()
    if files.there(f"{RUN}/running"):
        raise refused("this machine has been booted", "boot is the entrypoint of a machine, once for each start")
    if not attempt(memory.ensure):
        warn("what is above is missing")
    _assemble()
    while True:
        trouble = _try(command)
        warn(f"{command[0]} cannot be started: {trouble.strerror}")
        if spawn.finish(spawn.fork(lambda: _in_view(assembly.give_up))):
            # There is nothing to fall back to: whatever seems to be wrong with it, it is this or nothing.
            raise _become(command)


def _assemble() -> None:
    """In a child, which may have come to its end anywhere: what it has done then stays, and is gone on with."""
    code = spawn.finish(spawn.fork(lambda: _in_view(assembly.assemble)))
    if code > _KILLED:
        code = spawn.finish(spawn.fork(lambda: _in_view(assembly.assemble)))
    if code == 0:
        return
    if not files.there(f"{RUN}/running"):
        warn("the current generation could not be assembled: the base runs alone")
    spawn.finish(spawn.fork(lambda: _in_view(assembly.lay_out)))


def _in_view(work: assembly.Work) -> None:
    """In the base view, as the base's programs and modules are there whatever the layers have."""
    base.go_in()
    work()


def _settle() -> None:
    """It waits for the command, in a process of its own that outlives this one's program."""
    os.setsid()
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    _in_view(lambda: settle.main([]))


def _try(command: list[str]) -> OSError:
    """Executes it in place of this process, with what follows a boot on its way; why that failed, where it did."""
    settling = spawn.fork(_settle, orphan=True)
    os.chdir("/")
    trouble = loading.trouble(command[0]) or _become(command)
    # It waits for another generation than comes now.
    os.kill(settling.pid, signal.SIGKILL)
    spawn.wait(settling)
    return trouble


def _become(command: list[str]) -> OSError:
    """Executes it in place of this process; why that failed, where it did."""
    spawn.default_signals()
    try:
        os.execvp(command[0], command)
    except OSError as error:
        return error
