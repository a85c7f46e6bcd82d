"""boot [--] CMD…: the machine's entrypoint: recovers, switches to the current generation, becomes CMD.

Whatever is wrong with the layers, CMD runs: over the base alone in the worst case, so that ssh answers. A boot counts
as failed from before its switch until all services are ready, so that one that never gets that far counts as well.
"""

from __future__ import annotations

import os

from pyinfra_overlaymig.format.paths import BASE, RUN, SCANDIR
from pyinfra_overlaymig.runner import assembly, base, files, spawn
from pyinfra_overlaymig.runner.say import refused, usage, warn
from pyinfra_overlaymig.runner.verbs import settle


def main(arguments: list[str]) -> int:
    command = arguments[1:] if arguments[:1] == ["--"] else arguments
    if not command:
        raise usage("boot takes the command to become", f"system-migrate boot s6-svscan {SCANDIR}")
    base.need_root()
    if files.there(f"{RUN}/running"):
        raise refused("this machine has been booted", "boot is the entrypoint of a machine, once for each start")
    _assemble()
    settling = spawn.fork(_settle, orphan=True)
    while True:
        missing = _become(command)
        warn(f"{command[0]} cannot be started: {missing.strerror}")
        if spawn.finish(spawn.fork(lambda: _in_view(assembly.give_up))):
            os.kill(settling.pid, 9)
            raise missing


def _assemble() -> None:
    if spawn.finish(spawn.fork(lambda: _in_view(assembly.assemble))) == 0:
        return
    warn("the current generation could not be assembled: the base runs alone")
    if spawn.finish(spawn.fork(lambda: _in_view(assembly.lay_out_base))):
        warn("some services could not be laid out")


def _in_view(work: assembly.Work) -> None:
    """In the base view, as the base's programs and modules are there whatever the layers have."""
    base.view()
    os.chroot(BASE)
    os.chdir("/")
    work()


def _settle() -> None:
    """It waits for the command, in a process of its own that outlives this one's program."""
    os.setsid()
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    _in_view(lambda: settle.main([]))


def _become(command: list[str]) -> OSError:
    """Executes it in place of this process; why that failed, where it did."""
    os.chdir("/")
    spawn.default_signals()
    try:
        os.execvp(command[0], command)
    except OSError as error:
        return error
